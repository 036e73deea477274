// From what a person chose to a take that runs.

import * as state from '../state.js';
import { begin } from '../take.js';
import { uploaded } from './attach.js';
import { board, camera } from './feeds.js';

/** @import { Open } from '../protocol.js' */

/**
 * @param {string} prompt
 * @returns {Partial<Open>} what the chosen source adds to an opening
 * @throws {Error} if the source is not there yet
 */
function sourced(prompt) {
  const [kind, attached, strength] = [state.sourceKind.value, state.attachment.value, state.strength.value];
  if (!prompt) throw new Error('Say in a few words what is to be seen.');
  if (kind === 'image') {
    if (attached?.kind !== 'image') throw new Error('Choose a picture first, or drop one anywhere on the page.');
    return { image: attached.asset };
  }
  if (kind === 'video') {
    if (attached?.kind !== 'video') throw new Error('Choose a video first, or drop one anywhere on the page.');
    if (state.videoUse.value === 'extend') return { clip: attached.asset };
    return { source: { kind: 'video', asset: attached.asset }, strength };
  }
  if (kind === 'webcam' && !camera.value) throw new Error('Turn the camera on first.');
  if (kind === 'webcam' || kind === 'canvas') return { source: { kind: 'frames' }, strength };
  if (kind === 'game') return { source: { kind: 'game', ...state.game.value }, strength };
  return {};
}

/** @param {string} prompt */
export async function roll(prompt) {
  await uploaded();
  if (state.busy.value) return;
  state.notice.value = null;
  state.busy.value = 'roll';
  try {
    const kind = state.sourceKind.value;
    const seed = Math.floor(Math.random() * 2 ** 31);
    const take = await begin({ type: 'open', prompt, seed, ...sourced(prompt) });
    state.liveSource.value = kind;
    state.attachment.value = null;
    state.draft.value = '';
    if (kind === 'webcam' && camera.value) take.follow(camera.value, true);
    if (kind === 'canvas') take.follow(board, false);
  } catch (error) {
    state.complain(error);
  } finally {
    state.busy.value = null;
  }
}
