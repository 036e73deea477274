// What the page shows, as signals. Playback itself is the player's; `playback` mirrors it at most ten times a second.

import { computed, signal } from './vendor/signals.js';

/** @import { Signal } from './vendor/signals.js' */
/** @import { State } from './connection.js' */
/** @import { Status, Transition } from './protocol.js' */
/** @import { View } from './player.js' */

/**
 * @typedef {{model: string, width: number, height: number, fps: number, examples: string[], strength: number,
 *   game: {subjects: string[], places: string[]} | null}} About
 * @typedef {{id: string, prompt: string, created_at: number, state: string, chunks: number, seconds: number,
 *   tip: number | null, starred: boolean}} Listed a take in the gallery
 * @typedef {'text' | 'image' | 'webcam' | 'canvas' | 'video' | 'game'} SourceKind
 * @typedef {{asset: string, kind: 'image' | 'video', name: string}} Attachment an uploaded file that waits for words
 * @typedef {{firstFrameMs: number | null, cueMs: number | null, chunkMs: number | null, chunkS: number | null}} Numbers
 * @typedef {{mode: 'change' | 'prompt', transition: Transition, fade: number, seed: string,
 *   guidance: string}} Choices of the composer
 */

/** @type {Signal<About | null>} */
export const about = signal(null);
/** @type {Signal<Listed[]>} */
export const gallery = signal([]);
/** Whose page this is. @type {Signal<{id: string, watch: string | null} | null>} */
export const take = signal(null);
/** @type {Signal<State | null>} */
export const line = signal(null);
/** @type {Signal<Status | null>} */
export const status = signal(null);
/** @type {Signal<View | null>} */
export const playback = signal(null);
/** Counts the entries that changed the tree. */
export const growth = signal(0);
/** @type {Signal<{kind: 'error' | 'note', text: string, offer?: {label: string, act: () => void}} | null>} */
export const notice = signal(null);
export const busy = signal(/** @type {string | null} */ (null));
/** @type {Signal<Numbers>} */
export const numbers = signal({ firstFrameMs: null, cueMs: null, chunkMs: null, chunkS: null });
/** Tip of the path that is shown beside this one. @type {Signal<number | null>} */
export const beside = signal(null);
/** What was noted of this take's branches. @type {Signal<import('./marks.js').Marks>} */
export const marks = signal({});
export const draft = signal('');
export const help = signal(false);

export const sourceKind = signal(/** @type {SourceKind} */ ('text'));
/** @type {Signal<Attachment | null>} */
export const attachment = signal(null);
export const videoUse = signal(/** @type {'restyle' | 'extend'} */ ('restyle'));
export const strength = signal(0.6);
export const game = signal({ subject: 'car', place: 'city_street' });
/** Which of them is at work in this take. @type {Signal<SourceKind>} */
export const liveSource = signal('text');
/** @type {Signal<Choices>} */
export const choices = signal({ mode: 'change', transition: 'recache', fade: 0, seed: '', guidance: '' });

/** Whether words now would go on from an earlier point. */
export const scrubbed = computed(() => {
  const view = playback.value;
  return view !== null && view.frame >= 0 && !view.live && status.value?.state !== 'ended';
});

/** Whether the take is over; words now would begin another one that goes on from what is on the screen. */
export const over = computed(() => take.value !== null && status.value?.state === 'ended');

/** @param {unknown} error */
export function complain(error) {
  notice.value = { kind: 'error', text: error instanceof Error ? error.message : String(error) };
}
