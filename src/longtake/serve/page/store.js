// The encoded frames of chunks: those that arrive, those that are kept, those that must be fetched again.

/** @typedef {{frames: Uint8Array[], total: number, arriving: boolean, fetching: boolean}} Entry */

const PAUSE_AFTER_FAILURE_MS = 1000;

export class FrameStore {
  /** In the order of their last use. @type {Map<number, Entry>} */
  #entries = new Map();
  #fetch;
  #keep;
  /** @type {Set<() => void>} */
  #listeners = new Set();

  /**
   * @param {object} options
   * @param {(chunk: number) => Promise<Uint8Array[]>} options.fetch all frames of a chunk
   * @param {number} options.keep frames, about; those that arrive are never dropped
   */
  constructor({ fetch, keep }) {
    this.#fetch = fetch;
    this.#keep = keep;
  }

  /**
   * @param {() => void} listener called when frames came
   * @returns {() => void} ends it
   */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * A chunk whose frames are on their way.
   * @param {number} chunk
   * @param {number} total
   */
  expect(chunk, total) {
    this.#entries.set(chunk, { frames: [], total, arriving: true, fetching: false });
  }

  /**
   * @param {number} chunk
   * @param {number} k
   * @param {Uint8Array} bytes
   */
  put(chunk, k, bytes) {
    const entry = this.#entries.get(chunk);
    if (!entry?.arriving) return;
    entry.frames[k] = bytes;
    entry.arriving = entry.frames.length < entry.total;
    if (!entry.arriving) this.#evict();
    this.#tell();
  }

  /**
   * The frames that are here, from the first on.
   * @param {number} chunk
   * @returns {Uint8Array[]}
   */
  frames(chunk) {
    return this.#entries.get(chunk)?.frames ?? [];
  }

  /** @param {number} chunk */
  arriving(chunk) {
    return this.#entries.get(chunk)?.arriving ?? false;
  }

  /**
   * Say that a chunk is used; it is fetched if it is not here.
   * @param {number} chunk
   */
  use(chunk) {
    const entry = this.#entries.get(chunk) ?? { frames: [], total: 0, arriving: false, fetching: false };
    this.#entries.delete(chunk);
    this.#entries.set(chunk, entry);
    if (!entry.frames.length && !entry.arriving && !entry.fetching) void this.#get(chunk, entry);
  }

  /** Forget all frames: they will come in another encoding. */
  clear() {
    for (const [chunk, entry] of this.#entries) {
      if (!entry.arriving) this.#entries.delete(chunk);
    }
  }

  /** How many frames are kept. */
  get size() {
    return [...this.#entries.values()].reduce((sum, { frames }) => sum + frames.length, 0);
  }

  /**
   * @param {number} chunk
   * @param {Entry} entry
   */
  async #get(chunk, entry) {
    entry.fetching = true;
    try {
      const frames = await this.#fetch(chunk);
      Object.assign(entry, { frames, total: frames.length });
    } catch {
      await new Promise((resolve) => setTimeout(resolve, PAUSE_AFTER_FAILURE_MS)); // the player asks again
    }
    entry.fetching = false;
    this.#evict();
    this.#tell();
  }

  #evict() {
    let kept = this.size;
    const newest = [...this.#entries.keys()].slice(-4); // in use
    for (const [chunk, { frames, arriving, fetching }] of this.#entries) {
      if (kept <= this.#keep) return;
      if (arriving || fetching || newest.includes(chunk)) continue;
      kept -= frames.length;
      this.#entries.delete(chunk);
    }
  }

  #tell() {
    for (const listener of this.#listeners) listener();
  }
}
