// What was asked for and what became of it: accepted, then applied.

import * as state from '../state.js';
import { current } from '../take.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { timecode } from './words.js';

const SHOWN_S = 5; // after it has come on the screen

/** @param {import('../tree.js').Cue} cue */
function Waiting({ cue, words, due }) {
  const view = state.playback.value;
  const { tree } = /** @type {import('../take.js').Take} */ (current);
  const head = tree.chunks.get(tree.head ?? -1);
  const fps = tree.opened?.fps ?? 16;
  const made = head ? head.start_frame + head.num_frames : 0;
  const start = made + Math.max(0, due - (head?.index ?? -1) - 1) * (head?.num_frames ?? 12);
  const left = Math.max(0, (start - Math.max(0, view?.frame ?? 0)) / fps);
  return html`<li class="cue pending">
    <${Icon} name="clock" /><b>${words ?? 'Picture'}</b><span>accepted, in ${left.toFixed(1)} s</span>
    <button class="tool small" aria-label="Take back: ${words ?? 'picture'}"
      onClick=${() => current?.order({ type: 'cancel', cue })}>
      <${Icon} name="close" />
    </button>
  </li>`;
}

/** @param {import('../tree.js').Cue} cue */
function Applied({ words, chunk }) {
  const { tree } = /** @type {import('../take.js').Take} */ (current);
  const at = tree.chunks.get(chunk ?? -1)?.start_frame ?? 0;
  return html`<li class="cue applied">
    <${Icon} name="check" /><b>${words ?? 'Picture'}</b>
    <span>applied at ${timecode(at / (tree.opened?.fps ?? 16))}</span>
  </li>`;
}

export function Cues() {
  state.growth.value;
  const view = state.playback.value;
  if (!current || !view?.live) return null;
  const { tree } = current;
  const fps = tree.opened?.fps ?? 16;
  const fresh = [...tree.cues.values()].filter((cue) => {
    const at = tree.chunks.get(cue.chunk ?? -1)?.start_frame;
    return (
      cue.state === 'applied' &&
      at !== undefined &&
      view.path.includes(cue.chunk ?? -1) &&
      view.frame < at + SHOWN_S * fps
    );
  });
  const cues = [...fresh.map(Applied), ...tree.pending.map(Waiting)];
  return html`<ul class="cues" aria-live="polite" aria-label="Cues">${cues}</ul>`;
}
