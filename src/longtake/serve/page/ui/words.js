// Numbers as people read them.

/** @param {number} seconds */
export function timecode(seconds) {
  const tenths = Math.max(0, Math.round(seconds * 10));
  const [minutes, rest] = [Math.floor(tenths / 600), tenths % 600];
  return `${String(minutes).padStart(2, '0')}:${(rest / 10).toFixed(1).padStart(4, '0')}`;
}

/** @param {number | null} ms */
export function duration(ms) {
  if (ms === null) return '–';
  return ms < 995 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** @param {number} part of 1 */
export const share = (part) => `${Math.round(100 * part)} %`;

/** @param {number} at seconds since 1970 */
export function ago(at) {
  const minutes = Math.round((Date.now() / 1000 - at) / 60);
  if (minutes < 1) return 'just now';
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.round(minutes / 60)} h ago`;
  return new Date(at * 1000).toLocaleDateString();
}

/** @param {string} name of a subject or place */
export const spoken = (name) => name.replaceAll('_', ' ');

const COLOURS = 8;

/**
 * The class that colours a prompt.
 * @param {string[]} prompts all of the take, in order
 * @param {string} prompt
 */
export const hue = (prompts, prompt) => `hue-${Math.max(0, prompts.indexOf(prompt)) % COLOURS}`;
