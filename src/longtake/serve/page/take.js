// A take on this page: its line to the server, its tree, its player, and what a person can do with it.

import * as api from './api.js';
import { Capture } from './capture.js';
import { Connection } from './connection.js';
import { createDecoder, hasVideoDecoder } from './decoder.js';
import { Player } from './player.js';
import { readMarks } from './marks.js';
import * as state from './state.js';
import { FrameStore } from './store.js';
import { Tree } from './tree.js';
import { batch } from './vendor/signals.js';

/** @import { Command, Event, Key, Open } from './protocol.js' */

/** @typedef {(picture: CanvasImageSource, frame: number, chunk: number) => void} Screen */

const KEPT_S = 120; // of encoded frames

export class Take {
  tree = new Tree();
  /** @type {Capture | null} */
  capture = null;
  /** Where pictures are drawn. @type {Set<Screen>} */
  screens = new Set();
  #frames = /** @type {'h264' | 'jpeg'} */ (hasVideoDecoder() ? 'h264' : 'jpeg');
  #askedAt = performance.now(); // for the first frame
  /** When a cue was sent, by event id, then by the chunk that shows it. @type {Map<string, number>} */
  #sent = new Map();
  /** @type {Map<number, number>} */
  #awaited = new Map();
  /** @type {number | null} */
  #branchedAt = null;
  /** On the screen, but not whole. @type {number | null} */
  #partial = null;

  /**
   * @param {string} id
   * @param {import('./protocol.js').Opened} opened
   * @param {import('./protocol.js').Chunk[]} chunks that were made before
   */
  constructor(id, opened, chunks) {
    this.id = id;
    this.path = `/api/takes/${id}`;
    this.tree.add(opened);
    for (const chunk of chunks) this.tree.add(chunk);
    this.store = new FrameStore({
      fetch: (chunk) => api.framesOf(id, chunk, this.#frames),
      keep: KEPT_S * opened.fps,
    });
    this.player = this.newPlayer((...drawn) => this.#drawn(...drawn), {
      onseen: (chunk) => this.#show(chunk),
      onchange: (view) => (state.playback.value = view),
      onerror: () => this.#useJpeg(),
    });
    // The last chunk comes over the line again, with its frames.
    this.connection = this.#connect((chunks.at(-1)?.n ?? opened.n + 1) - 1);
  }

  /**
   * A player of this take.
   * @param {Screen} draw
   * @param {Partial<import('./player.js').Options>} [also]
   */
  newPlayer(draw, also = {}) {
    const { tree, store } = this;
    const format = /** @type {import('./protocol.js').Opened} */ (tree.opened);
    return new Player({ tree, store, decoder: (sink) => createDecoder(format, sink), draw, ...also });
  }

  /**
   * Begin to send the pictures of a live source.
   * @param {HTMLVideoElement | HTMLCanvasElement} source
   * @param {boolean} mirrored
   */
  follow(source, mirrored) {
    const format = /** @type {import('./protocol.js').Opened} */ (this.tree.opened);
    this.capture = new Capture(source, format, (picture) => this.connection.sendPicture(picture));
    this.capture.mirrored = mirrored;
    this.capture.start(format.fps);
  }

  close() {
    this.connection.close();
    this.capture?.stop();
    this.player.close();
  }

  /**
   * Words for what comes next: a cue, or a branch when an earlier point is on the screen.
   * @param {{change?: string, prompt?: string, image?: string, seed?: number, guidance?: number, fade?: number,
   *   transition?: import('./protocol.js').Transition}} what
   */
  async say(what) {
    if (!this.player.live) return this.branch(what);
    const sent = performance.now();
    const answer = await this.connection.send({ type: 'cue', ...what });
    if (answer.type === 'accepted' && answer.event_id) this.#sent.set(answer.event_id, sent);
  }

  /**
   * @param {{change?: string, prompt?: string, image?: string, seed?: number, guidance?: number}} what
   * @param {number | null} [after] the chunk that it grows from; the playhead's, if not given
   */
  async branch({ image, ...what }, after = this.branchPoint().after) {
    const random = Math.floor(Math.random() * 2 ** 31);
    const seed = what.seed ?? (what.change || what.prompt ? undefined : random); // the same words again: another way on
    const sent = performance.now();
    await this.connection.send({ type: 'retake', after, ...what, ...(seed === undefined ? {} : { seed }) });
    this.#branchedAt = sent;
    this.player.goLive();
    if (image) await this.connection.send({ type: 'cue', image });
  }

  /**
   * The border between chunks nearest to the playhead.
   * @returns {{after: number | null, frame: number}}
   */
  branchPoint() {
    const { chunk: id, k } = this.player.view();
    const chunk = id === null ? undefined : this.tree.chunks.get(id);
    if (!chunk) return { after: null, frame: 0 };
    const before = k < chunk.num_frames / 2 && chunk.parent !== null;
    if (before) return { after: chunk.parent, frame: chunk.start_frame };
    return { after: chunk.chunk, frame: chunk.start_frame + chunk.num_frames };
  }

  /** @param {Command} command */
  order(command) {
    return this.connection.send(command).catch(state.complain);
  }

  /** @param {Key[]} held */
  hold(held) {
    this.connection.tell({ type: 'keys', held });
  }

  /** @param {number} after */
  #connect(after) {
    const connection = new Connection({
      path: this.path,
      base: api.base,
      key: api.key,
      frames: this.#frames,
      after,
      onevent: (event, bytes) => this.#take(event, bytes),
      onstate: (line) => {
        if (line.name !== 'open') this.capture?.reset();
        state.line.value = line;
      },
    });
    connection.open();
    return connection;
  }

  /** The browser cannot decode what comes: ask for what every browser can. */
  #useJpeg() {
    if (this.#frames === 'jpeg') return;
    this.#frames = 'jpeg';
    const after = this.connection.after;
    this.connection.close();
    this.store.clear();
    this.player.redo();
    this.connection = this.#connect(after);
  }

  /**
   * @param {Event} event
   * @param {Uint8Array} bytes
   */
  #take(event, bytes) {
    if (event.type === 'frame') return this.#keep(event, bytes);
    if (event.type === 'credit') return this.capture?.grant(event.frames);
    if (event.type === 'status') return this.#stand(event);
    if (event.type === 'refused' && event.event_id === null) return state.complain(event.message);
    if (event.type === 'done' || event.type === 'refused') return;
    this.tree.add(event);
    if (event.type === 'chunk') {
      this.store.expect(event.chunk, event.num_frames);
      if (this.#branchedAt !== null) this.#awaited.set(event.chunk, this.#branchedAt);
      this.#branchedAt = null;
      const made = Object.values(event.timings).reduce((sum, seconds) => sum + seconds, 0);
      const chunkS = event.num_frames / (this.tree.opened?.fps ?? 16);
      state.numbers.value = { ...state.numbers.value, chunkMs: made * 1000, chunkS };
    }
    if (event.type === 'applied') this.#await(event.event_id, event.chunk);
    if (event.type === 'ended' && (event.why === 'failed' || event.why === 'lost'))
      state.complain(event.message ?? 'The take has failed.');
    if (event.type === 'chunk' || event.type === 'head') this.player.grew();
    state.growth.value += 1;
  }

  /** @param {import('./protocol.js').Status} status */
  #stand(status) {
    state.status.value = status;
    // A server that was started anew goes on with no take: such a log has no last word.
    if (status.state !== 'ended' || this.tree.ended) return;
    this.tree.ended = { type: 'ended', n: -1, why: 'closed', message: null };
    state.growth.value += 1;
  }

  /**
   * @param {import('./protocol.js').Frame} frame
   * @param {Uint8Array} bytes
   */
  #keep({ chunk, k }, bytes) {
    this.store.put(chunk, k, bytes);
    if (this.store.arriving(chunk)) return;
    state.growth.value += 1; // it can be had as a picture now
    if (chunk === this.#partial) this.#show(chunk);
  }

  /**
   * A chunk is on the screen. The server may go on when all of it is here: what a slow link holds follows no cue.
   * @param {number} chunk
   */
  #show(chunk) {
    const whole = !this.store.arriving(chunk);
    this.#partial = whole ? null : chunk;
    if (whole) this.connection.tell({ type: 'seen', chunk });
  }

  /**
   * @param {string | null} event_id
   * @param {number} chunk
   */
  #await(event_id, chunk) {
    const sent = event_id === null ? undefined : this.#sent.get(event_id);
    if (sent !== undefined) this.#awaited.set(chunk, sent);
  }

  /** @type {Screen} */
  #drawn(picture, frame, chunk) {
    for (const screen of this.screens) screen(picture, frame, chunk);
    const { firstFrameMs } = state.numbers.value;
    const sent = this.#awaited.get(chunk);
    this.#awaited.delete(chunk);
    if (firstFrameMs !== null && sent === undefined) return;
    const now = performance.now();
    state.numbers.value = {
      ...state.numbers.value,
      firstFrameMs: firstFrameMs ?? now - this.#askedAt,
      cueMs: sent === undefined ? state.numbers.value.cueMs : now - sent,
    };
  }

  /** @param {number} askedAt when the person asked for it */
  askedAt(askedAt) {
    this.#askedAt = askedAt;
  }
}

/** The one on the page. @type {Take | null} */
export let current = null;

/** @param {{take: Take, watch: string | null} | null} shown */
function show(shown) {
  current?.close();
  current = shown?.take ?? null;
  batch(() => {
    state.status.value = state.notice.value = state.beside.value = null;
    state.marks.value = shown ? readMarks(shown.take.id) : {};
    state.numbers.value = { firstFrameMs: null, cueMs: null, chunkMs: null, chunkS: null };
    state.playback.value = current?.player.view() ?? null;
    state.line.value = current?.connection.state ?? null;
    state.take.value = shown && { id: shown.take.id, watch: shown.watch };
    state.growth.value += 1;
  });
}

/**
 * @param {Open} opening
 * @returns {Promise<Take>}
 */
export async function begin(opening) {
  const askedAt = performance.now();
  const { id, watch, opened } = await api.postJson('/api/takes', opening);
  const take = new Take(id, opened, []);
  take.askedAt(askedAt);
  show({ take, watch });
  history.pushState(null, '', `?take=${id}`);
  return take;
}

/**
 * Go to a take that there is already.
 * @param {string} id
 */
export async function join(id) {
  const { take, how } = await found(id);
  const source = take.tree.opened?.source;
  state.liveSource.value = source === 'game' ? 'game' : source === 'video' ? 'video' : 'text';
  show({ take, watch: null });
  if (how === 'ended') take.player.seek(0);
}

/**
 * A new take that goes on from what is on the screen, of a take that is over.
 * @param {Parameters<Take['say']>[0]} what comes next
 */
export async function goOn(what) {
  if (!current) return;
  const askedAt = performance.now();
  const { after } = current.branchPoint();
  const { id, watch } = await api.postJson(`${current.path}/chunks/${after ?? 0}/takes`, {});
  const { change, prompt, image, seed, guidance } = what;
  const says = [change, prompt, image, seed, guidance].some((one) => one !== undefined);
  try {
    // Before anybody watches: nothing is made until then, so the words are in time.
    if (says) await api.postJson(`/api/takes/${id}/commands`, { type: 'cue', ...what });
  } finally {
    const { take } = await found(id);
    take.askedAt(askedAt);
    show({ take, watch });
    history.pushState(null, '', `?take=${id}`);
  }
}

/** @param {string} id */
async function found(id) {
  const { opened, tree, state: how } = await api.getJson(`/api/takes/${id}`);
  return { take: new Take(id, opened, tree), how };
}

export function leave() {
  show(null);
}
