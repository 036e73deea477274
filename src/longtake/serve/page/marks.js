// What a viewer has noted of the branches of a take: a star, a name, or that they need not be seen. Kept in the browser.

/** @typedef {{starred?: boolean, name?: string, hidden?: boolean}} Mark */
/** @typedef {{[branch: number]: Mark}} Marks */

/** @param {string} take */
const place = (take) => `longtake.marks.${take}`;

/**
 * @param {string} take
 * @param {Pick<Storage, 'getItem'>} [storage]
 * @returns {Marks}
 */
export function readMarks(take, storage = localStorage) {
  try {
    return JSON.parse(storage.getItem(place(take)) ?? '{}');
  } catch {
    return {}; // of another version, or the browser keeps nothing
  }
}

/**
 * The marks with one of them changed. What says nothing is not kept.
 * @param {Marks} marks
 * @param {number} branch
 * @param {Mark} change
 * @returns {Marks}
 */
export function marked(marks, branch, change) {
  const said = Object.entries({ ...marks[branch], ...change }).filter(([, value]) => Boolean(value));
  const { [branch]: _, ...others } = marks;
  return said.length ? { ...others, [branch]: Object.fromEntries(said) } : others;
}

/**
 * @param {string} take
 * @param {Marks} marks
 * @param {Pick<Storage, 'setItem' | 'removeItem'>} [storage]
 */
export function keepMarks(take, marks, storage = localStorage) {
  try {
    if (Object.keys(marks).length) storage.setItem(place(take), JSON.stringify(marks));
    else storage.removeItem(place(take));
  } catch {
    // A browser that keeps nothing: the marks last as long as the page.
  }
}
