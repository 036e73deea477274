// What the log of a take amounts to: a tree of chunks, the cues that wait, and where the next chunk will go.

/** @import { Accepted, Applied, Cancelled, Chunk, Ended, Numbered, Opened } from './protocol.js' */

/**
 * @typedef {{cue: number, words: string | null, due: number, branch: number, event_id: string | null,
 *   state: 'accepted' | 'applied' | 'cancelled', chunk: number | null}} Cue `due`: index of a chunk on its branch
 * @typedef {{branch: number, parent: number | null, first: number, tip: number, length: number, prompt: string}} Branch
 * @typedef {{prompt: string, from: number, to: number}} Span chunks of a path under one prompt, half-open
 */

export class Tree {
  /** @type {Opened | null} */
  opened = null;
  /** @type {Ended | null} */
  ended = null;
  /** @type {Map<number, Chunk>} */
  chunks = new Map();
  /** @type {Map<number, Cue>} */
  cues = new Map();
  /** @type {Map<number, Branch>} */
  branches = new Map();
  /** The chunk after which the next one will be made. @type {number | null} */
  head = null;
  /** Which branch that is on. */
  branch = 0;

  /** @param {Numbered} event */
  add(event) {
    if (event.type === 'opened') this.opened = event;
    else if (event.type === 'ended') this.ended = event;
    else if (event.type === 'chunk') this.#grow(event);
    else if (event.type === 'head') [this.head, this.branch] = [event.chunk, event.branch];
    else if (event.type === 'accepted') this.#accept(event);
    else if (event.type === 'applied') this.#settle(event, 'applied');
    else if (event.type === 'cancelled') this.#settle(event, 'cancelled');
  }

  /**
   * The chunks from the beginning up to one.
   * @param {number | null} tip
   * @returns {number[]}
   */
  path(tip) {
    const ids = [];
    for (let chunk = this.#at(tip); chunk; chunk = this.#at(chunk.parent)) ids.push(chunk.chunk);
    return ids.reverse();
  }

  /**
   * The newest chunk that has this one in its past, or is it.
   * @param {number} chunk
   */
  newestAfter(chunk) {
    const ids = [...this.chunks.keys()].sort((one, other) => other - one);
    return ids.find((id) => this.path(id).includes(chunk)) ?? chunk;
  }

  /** Cues that no chunk shows yet, on the branch that is being made. */
  get pending() {
    return [...this.cues.values()].filter((cue) => cue.state === 'accepted' && cue.branch === this.branch);
  }

  /**
   * @param {number[]} path
   * @returns {Span[]}
   */
  spans(path) {
    /** @type {Span[]} */
    const spans = [];
    path.forEach((id, index) => {
      const prompt = this.chunks.get(id)?.prompt ?? '';
      const last = spans.at(-1);
      if (last?.prompt === prompt) last.to = index + 1;
      else spans.push({ prompt, from: index, to: index + 1 });
    });
    return spans;
  }

  /** Prompts in the order in which they first appeared: their places give them their colours. */
  get prompts() {
    return [...new Set([...this.chunks.values()].map((chunk) => chunk.prompt))];
  }

  /** @param {Chunk} chunk */
  #grow(chunk) {
    this.chunks.set(chunk.chunk, chunk);
    [this.head, this.branch] = [chunk.chunk, chunk.branch];
    const { branch, parent, chunk: id, prompt } = chunk;
    const grown = this.branches.get(branch) ?? { branch, parent, first: id, tip: id, length: 0, prompt };
    this.branches.set(branch, { ...grown, tip: id, length: grown.length + 1, prompt });
  }

  /** @param {Accepted} event */
  #accept({ cue, words, due_at, event_id }) {
    const known = { cue, words, due: due_at.index, branch: this.branch, event_id };
    this.cues.set(cue, { ...known, state: 'accepted', chunk: null });
  }

  /**
   * @param {Applied | Cancelled} event
   * @param {'applied' | 'cancelled'} state
   */
  #settle(event, state) {
    const cue = this.cues.get(event.cue);
    if (cue) this.cues.set(event.cue, { ...cue, state, chunk: event.type === 'applied' ? event.chunk : null });
  }

  /** @param {number | null} id */
  #at(id) {
    return id === null ? undefined : this.chunks.get(id);
  }
}
