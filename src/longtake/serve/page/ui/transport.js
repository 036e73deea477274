// The buttons under the picture: where, which way, how fast, and what to keep.

import * as state from '../state.js';
import { current } from '../take.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { Save } from './save.js';
import { timecode } from './words.js';

const SPEEDS = [0.25, 0.5, 1, 2, 4];

/** @param {{name: string, icon: any, act: () => void, shown?: boolean, hint?: string}} props */
const Button = ({ name, icon, act, hint }) =>
  html`<button class="tool" aria-label=${name} title=${hint ? `${name} (${hint})` : name} onClick=${act}>
    <${Icon} name=${icon} />
  </button>`;

/** @param {-1 | 1} direction */
export function changeSpeed(direction) {
  const player = current?.player;
  if (!player) return;
  const place = SPEEDS.indexOf(player.speed) + direction;
  player.setSpeed(SPEEDS[Math.min(Math.max(0, place), SPEEDS.length - 1)]);
}

function Loop() {
  const view = state.playback.value;
  const fps = current?.tree.opened?.fps ?? 16;
  if (!view || (view.loopIn === null && view.loopOut === null)) return null;
  /** @param {number | null} frame @param {string} none */
  const words = (frame, none) => (frame === null ? none : timecode(frame / fps));
  return html`<span class="loop">
    <${Icon} name="loop" />${words(view.loopIn, 'start')} to ${words(view.loopOut, 'end')}
    <button class="tool small" aria-label="Stop looping" onClick=${() => current?.player.loop(null, null)}>
      <${Icon} name="close" />
    </button>
  </span>`;
}

export function Transport() {
  const view = state.playback.value;
  const player = current?.player;
  if (!view || !player) return null;
  const fps = current?.tree.opened?.fps ?? 16;
  const frame = Math.max(0, view.frame);
  const chunk = view.chunk === null ? undefined : current?.tree.chunks.get(view.chunk);
  return html`<section class="transport" aria-label="Transport">
    <div class="tools">
      <${Button} name="To start" icon="start" hint="Home" act=${() => player.seek(0)} />
      <${Button} name="Previous frame" icon="previous" hint="Left" act=${() => player.step(-1)} />
      <button class="tool play" aria-label=${view.playing ? 'Pause' : 'Play'} title="Space"
        onClick=${() => player.toggle()}>
        <${Icon} name=${view.playing ? 'pause' : 'play'} />
      </button>
      <${Button} name="Next frame" icon="next" hint="Right" act=${() => player.step(1)} />
      <button
        class="tool live ${view.live ? 'on' : ''}"
        aria-label="Live"
        aria-pressed=${view.live}
        title="Live (End)"
        onClick=${() => player.goLive()}
      >
        <i class="dot"></i>Live
      </button>
    </div>
    <p class="time">
      <b>${timecode(frame / fps)}</b>
      <span>frame ${frame}</span>
      <span class="wide">chunk ${(chunk?.index ?? 0) + 1}</span>
    </p>
    <${Loop} />
    <div class="tools end">
      <label class="speed">
        <span class="hidden">Speed</span>
        <select
          value=${String(view.speed)}
          onChange=${(/** @type {{currentTarget: HTMLSelectElement}} */ event) =>
            player.setSpeed(Number(event.currentTarget.value))}
        >
          ${SPEEDS.map((speed) => html`<option value=${String(speed)}>${speed}×</option>`)}
        </select>
      </label>
      <${Save} />
    </div>
  </section>`;
}
