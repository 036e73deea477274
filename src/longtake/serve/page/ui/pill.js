// How the line to the server and the making of chunks stand: always on the screen.

import * as state from '../state.js';
import { html } from './html.js';
import { share } from './words.js';

const MAKING = {
  running: ['good', 'Connected'],
  buffered: ['good', 'Connected'],
  queued: ['wait', 'In the queue'],
  paused: ['wait', 'Making is paused'],
  waiting_for_input: ['wait', 'Waiting for pictures'],
  idle: ['wait', 'Idle'],
  ended: ['calm', 'Complete'],
};

/** @returns {[string, string]} tone and words */
function words() {
  const [line, status] = [state.line.value, state.status.value];
  if (!state.take.value || !line) return state.about.value ? ['good', 'Ready'] : ['wait', 'Connecting'];
  if (line.name === 'refused' || line.name === 'closed') return ['bad', 'Not connected'];
  if (line.name === 'lost') return ['bad', 'Reconnecting'];
  if (line.name === 'connecting') return ['wait', 'Connecting'];
  if (!status || (status.state === 'waiting_for_input' && !state.playback.value?.starved)) return ['good', 'Connected'];
  if (status.state === 'queued' && status.position) return ['wait', `In the queue, number ${status.position}`];
  if (status.state === 'rebuilding') return ['wait', `Rebuilding, ${share(status.rebuilt ?? 0)}`];
  return /** @type {[string, string]} */ (MAKING[status.state]);
}

export function Pill() {
  const [tone, text] = words();
  const way = state.line.value?.way === 'http' && state.take.value ? ' over HTTP' : '';
  return html`<span class="pill ${tone}" role="status"><i class="dot"></i>${text}${way}</span>`;
}

/** What went wrong, or is worth knowing. */
export function Notice() {
  const notice = state.notice.value;
  if (!notice) return null;
  return html`<div class="notice ${notice.kind}" role=${notice.kind === 'error' ? 'alert' : 'note'}>
    <p>${notice.text}</p>
    ${notice.offer && html`<button class="quiet" onClick=${notice.offer.act}>${notice.offer.label}</button>`}
    <button class="quiet" onClick=${() => (state.notice.value = null)}>Dismiss</button>
  </div>`;
}
