// Sees when a picture flashes more than three times in a second, which can hurt some people (WCAG 2.3.1).

const CHANGE = 0.1; // of relative luminance
const DARK = 0.8; // a flash has a side darker than this
const AREA = 0.25; // of the picture that changes together
const SPAN_MS = 1000;
const TURNS = 6; // there and back, three times

/** @param {number} value 0..255 */
const linear = (value) => (value / 255) ** 2.2;

/**
 * Relative luminance of pixels.
 * @param {ArrayLike<number>} rgba
 */
export function luminance(rgba) {
  return Float32Array.from(
    { length: rgba.length / 4 },
    (_, i) => 0.2126 * linear(rgba[4 * i]) + 0.7152 * linear(rgba[4 * i + 1]) + 0.0722 * linear(rgba[4 * i + 2]),
  );
}

export class Flashes {
  /** @type {Float32Array | null} */
  #before = null;
  /** The way of the last turn: 1 to lighter, -1 to darker. */
  #way = 0;
  /** @type {number[]} */
  #turns = [];

  /**
   * @param {Float32Array} cells relative luminance all over a picture
   * @param {number} now milliseconds
   * @returns {boolean} whether there were more than three flashes in the last second
   */
  add(cells, now) {
    const way = this.#before ? turn(this.#before, cells) : 0;
    this.#before = cells;
    if (way === 0 || way === this.#way) return false;
    this.#way = way;
    this.#turns = [...this.#turns.filter((at) => now - at < SPAN_MS), now];
    return this.#turns.length > TURNS;
  }

  /** What comes next does not follow what came last. */
  forget() {
    this.#before = null;
    this.#way = 0;
    this.#turns = [];
  }
}

/**
 * Which way much of a picture changes at once: 1, -1, or 0.
 * @param {Float32Array} before
 * @param {Float32Array} after
 */
function turn(before, after) {
  let [up, down] = [0, 0];
  after.forEach((value, i) => {
    if (Math.min(value, before[i]) >= DARK) return;
    if (value - before[i] >= CHANGE) up += 1;
    else if (before[i] - value >= CHANGE) down += 1;
  });
  if (Math.max(up, down) < AREA * after.length) return 0;
  return up > down ? 1 : -1;
}
