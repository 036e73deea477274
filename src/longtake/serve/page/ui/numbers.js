// How fast it is, measured here.

import * as state from '../state.js';
import { html } from './html.js';
import { duration } from './words.js';

/** @param {string} name @param {string} value @param {string} title */
const row = (name, value, title) => html`<div title=${title}><dt>${name}</dt><dd>${value}</dd></div>`;

export function Numbers() {
  const { firstFrameMs, cueMs, chunkMs, chunkS } = state.numbers.value;
  const [view, status] = [state.playback.value, state.status.value];
  const made = chunkMs === null || !chunkS ? '–' : `${duration(chunkMs)} for ${chunkS.toFixed(2)} s`;
  return html`<section class="panel">
    <h2>Live numbers</h2>
    <dl class="numbers">
      ${row('First frame', duration(firstFrameMs), 'From asking to the first picture on this screen')}
      ${row('Cue latency', duration(cueMs), 'From sending words to their first picture on this screen')}
      ${row('Frames a second', view?.fps ? view.fps.toFixed(1) : '–', 'Drawn on this screen')}
      ${row('A chunk', made, 'What the server took to make the last one')}
      ${row('Made ahead', `${view?.behind ?? 0} frames`, 'Made, but not shown yet')}
      ${status && status.viewers > 1 ? row('Watching', String(status.viewers), 'Viewers of this take') : null}
      ${status?.dropped ? row('Left out', `${status.dropped} pictures`, 'Of the source, which came too fast') : null}
    </dl>
  </section>`;
}
