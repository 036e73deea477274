// Plays a path through the tree of chunks. Owns all playback state, and knows no page: only a clock, a decoder, and
// whom to call with a picture.

/** @import { Tree } from './tree.js' */
/** @import { FrameStore } from './store.js' */
/** @import { Decoder, Sink } from './decoder.js' */

/**
 * @typedef {{close(): void}} Picture
 * @typedef {{chunk: number | null, frame: number, live: boolean, playing: boolean}} Position
 * @typedef {Position & {k: number, starved: boolean, speed: number, loopIn: number | null, loopOut: number | null,
 *   behind: number, frames: number, path: number[], fps: number}} View
 *   `frames` and `behind` count what the path has, and what of it is still to come
 * @typedef {{pictures: (Picture | undefined)[], fed: number}} Slot decoded pictures of a chunk; `fed` to the decoder
 *
 * @typedef {object} Options
 * @property {Tree} tree
 * @property {FrameStore} store
 * @property {(sink: Sink) => Decoder} decoder
 * @property {(picture: any, frame: number, chunk: number) => void} draw
 * @property {(chunk: number) => void} [onseen] when another chunk comes on the screen
 * @property {(view: View) => void} [onchange]
 * @property {(reason: Error) => void} [onerror] the decoder cannot go on
 * @property {() => number} [now] milliseconds
 */

const JITTER_FRAMES = 3; // that must wait before it goes on after it ran dry
const LATE_MS = 250; // after which the clock starts anew instead of racing
const VIEW_MS = 100; // between two views of a playing player
const FPS_WINDOW_MS = 2000;
const FAILURES = 3; // of the decoder in a row

export class Player {
  live = true;
  playing = true;
  speed = 1;
  /** Frames, both inclusive. @type {number | null} */
  loopIn = null;
  /** @type {number | null} */
  loopOut = null;
  /** @type {number[]} */
  path = [];
  #options;
  #tree;
  #store;
  #decoder;
  #now;
  #stopListening;
  /** Place on the path of the chunk that is shown or waited for; -1: none yet. */
  #at = -1;
  #k = 0;
  #shown = false; // whether that picture has been drawn
  /** The last picture drawn. @type {{chunk: number, frame: number} | null} */
  #drawn = null;
  #starved = true;
  #nextAt = 0;
  /** @type {Map<number, Slot>} */
  #slots = new Map();
  /** Which chunk the decoder is in. @type {number | null} */
  #feeding = null;
  #failures = 0;
  /** @type {number | null} */
  #seen = null;
  #viewedAt = -Infinity;
  /** @type {number[]} */
  #drawTimes = [];

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.#tree = options.tree;
    this.#store = options.store;
    this.path = this.#tree.path(this.#tree.head);
    this.#now = options.now ?? (() => performance.now());
    this.#decoder = options.decoder({
      onpicture: (chunk, k, picture) => this.#receive(chunk, k, picture),
      onerror: (reason) => this.#fail(reason),
    });
    this.#stopListening = options.store.listen(() => this.#feed());
  }

  close() {
    this.#stopListening();
    this.#decoder.close();
    for (const id of this.#slots.keys()) this.#forget(id);
  }

  /** @returns {Position} */
  position() {
    return {
      chunk: this.#drawn?.chunk ?? null,
      frame: this.#drawn?.frame ?? -1,
      live: this.live,
      playing: this.playing,
    };
  }

  /** @returns {View} */
  view() {
    const { chunk, start_frame, num_frames } = this.#chunk(this.path.length - 1) ?? { start_frame: 0, num_frames: 0 };
    const frames = chunk === undefined ? 0 : start_frame + num_frames;
    const frame = this.#frame();
    const { speed, loopIn, loopOut, path } = this;
    const starved = this.playing && this.#starved;
    const behind = Math.max(0, frames - 1 - frame);
    const place = { frame, chunk: this.path[this.#at] ?? null, k: this.#k };
    return { ...this.position(), ...place, starved, speed, loopIn, loopOut, behind, frames, path, fps: this.#fps() };
  }

  /** The tree has grown or its head has moved. */
  grew() {
    if (this.live) this.#followHead();
    else {
      const tip = this.path.at(-1);
      const next = this.#tree.head === null ? undefined : this.#tree.chunks.get(this.#tree.head);
      if (next && tip !== undefined && next.parent === tip) this.path = [...this.path, next.chunk];
    }
    this.#feed();
    this.#change();
  }

  play() {
    if (this.#tree.ended || !this.live) this.#again();
    this.playing = true;
    this.#starved = false;
    this.#nextAt = this.#now() + this.#period();
    this.#feed();
    this.#change();
  }

  pause() {
    this.playing = false;
    this.#feed();
    this.#change();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  /** Follow what is being made, from its newest chunk on. */
  goLive() {
    this.live = this.playing = true;
    this.loopIn = this.loopOut = null;
    this.speed = 1;
    this.#followHead();
    if (this.path.length - 1 - this.#at > 1) this.#place(this.path.length - 1, 0);
    this.#starved = true;
    this.#feed();
    this.#change();
  }

  /**
   * Show a frame of the path.
   * @param {number} frame
   */
  seek(frame) {
    this.live = false;
    this.#goTo(frame);
    this.#feed();
    this.#change();
  }

  /**
   * Show a chunk, of another path perhaps.
   * @param {number} chunk
   */
  seekChunk(chunk) {
    if (!this.path.includes(chunk)) this.path = this.#tree.path(this.#tree.newestAfter(chunk));
    this.seek(this.#tree.chunks.get(chunk)?.start_frame ?? 0);
  }

  /** @param {number} frames */
  step(frames) {
    this.playing = false;
    this.seek(this.#frame() + frames);
  }

  /**
   * Go over to another path, at the same time of the take.
   * @param {number} tip
   */
  follow(tip) {
    const frame = this.#frame();
    this.live = false;
    this.path = this.#tree.path(tip);
    this.#at = -1; // the chunk at that place may be another one
    this.seek(Math.max(0, frame));
  }

  /** @param {number} speed */
  setSpeed(speed) {
    this.speed = speed;
    if (speed !== 1) this.live = false;
    this.#change();
  }

  /**
   * Play a part of the path again and again.
   * @param {number | null} from
   * @param {number | null} to
   */
  loop(from, to) {
    if (from !== null && to !== null && from > to) [from, to] = [to, from];
    [this.loopIn, this.loopOut] = [from, to];
    if (from !== null || to !== null) this.live = false;
    this.#change();
  }

  /** Forget what was decoded: the frames will come in another encoding. */
  redo() {
    this.#failures = 0;
    this.#decoder.reset();
    for (const id of this.#slots.keys()) this.#forget(id);
    this.#feeding = null;
    this.#feed();
  }

  /** To be called with each picture of the screen. */
  tick() {
    const now = this.#now();
    if (this.#at < 0 && this.path.length)
      this.#place(this.live ? Math.max(0, this.path.length - 1 - this.#lead) : 0, 0);
    if (!this.#shown) this.#show(now);
    if (!this.playing || !this.#shown) return;
    if (now - this.#nextAt > LATE_MS) this.#nextAt = now;
    while (now >= this.#nextAt && this.#advance(now)) {
      this.#nextAt += this.#period();
      if (this.speed <= 1) break; // at its own pace every frame is drawn
    }
    if (now - this.#viewedAt >= VIEW_MS) this.#change();
  }

  /** @param {number} now */
  #advance(now) {
    if (this.loopOut !== null && this.#frame() >= this.loopOut) {
      this.#goTo(this.loopIn ?? 0);
      this.#feed();
      return false;
    }
    const next = this.#after(this.#at, this.#k);
    if (!next) return this.#runDry();
    if (!this.#ready(next)) {
      this.#starved = true;
      return false;
    }
    this.#starved = false;
    this.#place(next.at, next.k);
    this.#show(now);
    return true;
  }

  /** At the end of what there is, playing means from the beginning. */
  #again() {
    if (this.#frame() < (this.loopOut ?? this.#lastFrame())) return;
    this.live = false;
    this.#goTo(this.loopIn ?? 0);
  }

  /** The path has no further frame. */
  #runDry() {
    const { head, ended } = this.#tree;
    if (this.path.at(-1) === head && !ended) {
      this.live = this.speed === 1 && this.loopIn === null;
      this.#starved = true;
    } else {
      this.playing = false;
      this.#change();
    }
    return false;
  }

  /** @param {{at: number, k: number}} place */
  #ready({ at, k }) {
    if (!this.#picture(at, k)) return false;
    if (!this.#starved) return true;
    const chunk = this.#chunk(at);
    if (!chunk || !this.#store.arriving(chunk.chunk)) return true;
    const pictures = this.#slots.get(chunk.chunk)?.pictures ?? [];
    return pictures.length - k >= JITTER_FRAMES;
  }

  /** @param {number} now */
  #show(now) {
    const chunk = this.#chunk(this.#at);
    const picture = this.#picture(this.#at, this.#k);
    if (!chunk || !picture) return;
    const frame = chunk.start_frame + this.#k;
    if (!this.#drawn) this.#nextAt = now + this.#period();
    this.#shown = true;
    this.#drawn = { chunk: chunk.chunk, frame };
    this.#options.draw(picture, frame, chunk.chunk);
    this.#drawTimes.push(now);
    if (this.#seen !== chunk.chunk) this.#options.onseen?.(chunk.chunk);
    this.#seen = chunk.chunk;
    if (!this.playing) this.#change();
  }

  #followHead() {
    const shown = this.path[this.#at];
    this.path = this.#tree.path(this.#tree.head);
    if (shown === undefined) return;
    const at = this.path.indexOf(shown);
    if (at < 0) this.#place(this.#fork(shown), 0);
    else if (this.path.length - 1 - at > this.#lead + 2) this.#place(this.path.length - 2, 0);
    else this.#at = at;
  }

  /**
   * Where the path leaves that of a chunk which is not on it; its last chunk if there is none after it.
   * @param {number} chunk
   */
  #fork(chunk) {
    const past = new Set(this.#tree.path(chunk));
    const at = this.path.findIndex((id) => !past.has(id));
    return at < 0 ? this.path.length - 1 : at;
  }

  /** @param {number} frame */
  #goTo(frame) {
    const wanted = Math.min(Math.max(0, Math.round(frame)), this.#lastFrame());
    const at = this.path.findLastIndex((id) => (this.#tree.chunks.get(id)?.start_frame ?? 0) <= wanted);
    const chunk = this.#chunk(at);
    if (!chunk) return;
    const k = wanted - chunk.start_frame;
    const waits = !this.#picture(at, k) && chunk.chunk !== this.#feeding;
    this.#place(at, k);
    if (waits) this.#startOver();
    this.#starved = false;
    this.#nextAt = this.#now() + this.#period();
    if (!this.#shown) this.#show(this.#now());
  }

  /**
   * @param {number} at
   * @param {number} k
   */
  #place(at, k) {
    const other = at !== this.#at;
    [this.#at, this.#k, this.#shown] = [at, k, false];
    if (other) this.#feed();
  }

  /** Let the decoder drop what nobody waits for any more. */
  #startOver() {
    this.#decoder.reset();
    this.#feeding = null;
    for (const [id, slot] of this.#slots) {
      if (!this.#decoded(id)) slot.fed = 0;
    }
  }

  /** Give the decoder the frames that will be needed next. */
  #feed() {
    const wanted = this.#wanted();
    for (const id of [...this.#slots.keys()]) {
      if (!wanted.includes(id)) this.#forget(id);
    }
    for (const id of [...wanted].reverse()) this.#store.use(id);
    for (const id of wanted) {
      const slot = this.#slots.get(id) ?? { pictures: [], fed: 0 };
      this.#slots.set(id, slot);
      const frames = this.#store.frames(id);
      if (slot.fed < frames.length) this.#enter(id);
      while (slot.fed < frames.length) this.#decoder.decode(id, slot.fed, frames[slot.fed++]);
      if (this.#store.arriving(id)) return; // what follows would tear its frames apart
    }
  }

  /**
   * The decoder turns to a chunk. One that it leaves half-way must begin again.
   * @param {number} id
   */
  #enter(id) {
    if (this.#feeding === id) return;
    const left = this.#feeding === null ? undefined : this.#slots.get(this.#feeding);
    if (left && this.#feeding !== null && this.#store.arriving(this.#feeding)) left.fed = 0;
    const slot = this.#slots.get(id);
    if (slot) slot.fed = 0;
    this.#feeding = id;
  }

  #wanted() {
    const places = this.playing ? [0, 1, 2] : [0, -1, 1];
    const ids = places.map((place) => this.path[this.#at + place]);
    return ids.filter((id) => id !== undefined);
  }

  /**
   * @param {number} id
   * @param {number} k
   * @param {Picture} picture
   */
  #receive(id, k, picture) {
    const slot = this.#slots.get(id);
    if (!slot || slot.pictures[k]) return picture.close();
    slot.pictures[k] = picture;
    this.#failures = 0;
    if (this.path[this.#at] === id && this.#k === k && !this.#shown) this.#show(this.#now());
  }

  /** @param {Error} reason */
  #fail(reason) {
    this.#failures += 1;
    if (this.#failures >= FAILURES) return this.#options.onerror?.(reason);
    this.#startOver();
    this.#feed();
  }

  /** @param {number} id */
  #forget(id) {
    for (const picture of this.#slots.get(id)?.pictures ?? []) picture?.close();
    this.#slots.delete(id);
    if (this.#feeding === id) this.#feeding = null;
  }

  /** @param {number} id */
  #decoded(id) {
    const slot = this.#slots.get(id);
    return slot !== undefined && slot.pictures.filter(Boolean).length === this.#tree.chunks.get(id)?.num_frames;
  }

  /**
   * @param {number} at
   * @param {number} k
   */
  #after(at, k) {
    const chunk = this.#chunk(at);
    if (!chunk) return null;
    if (k + 1 < chunk.num_frames) return { at, k: k + 1 };
    return at + 1 < this.path.length ? { at: at + 1, k: 0 } : null;
  }

  /**
   * @param {number} at
   * @param {number} k
   */
  #picture(at, k) {
    return this.#slots.get(this.path[at])?.pictures[k];
  }

  /** @param {number} at */
  #chunk(at) {
    return this.#tree.chunks.get(this.path[at]);
  }

  #frame() {
    const chunk = this.#chunk(this.#at);
    return chunk ? chunk.start_frame + this.#k : -1;
  }

  #lastFrame() {
    const chunk = this.#chunk(this.path.length - 1);
    return chunk ? chunk.start_frame + chunk.num_frames - 1 : 0;
  }

  /** Chunks that may be made ahead of what is seen. */
  get #lead() {
    return this.#tree.opened?.lead ?? 3;
  }

  #period() {
    return 1000 / ((this.#tree.opened?.fps ?? 16) * this.speed);
  }

  #fps() {
    const from = this.#now() - FPS_WINDOW_MS;
    this.#drawTimes = this.#drawTimes.filter((time) => time > from);
    const [first, last] = [this.#drawTimes[0], this.#drawTimes.at(-1)];
    if (last === undefined || last === first) return 0;
    return ((this.#drawTimes.length - 1) * 1000) / (last - first);
  }

  #change() {
    this.#viewedAt = this.#now();
    this.#options.onchange?.(this.view());
  }
}
