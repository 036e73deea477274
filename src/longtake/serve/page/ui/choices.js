// How a change comes about: as something that happens or as a new prompt, by which transition, over how long.

import * as state from '../state.js';
import { useState } from '../vendor/hooks.js';
import { html } from './html.js';
import { Icon } from './icons.js';

const MODES = [
  ['change', 'Something happens', 'The rest goes on as it was'],
  ['prompt', 'A whole new prompt', 'Replaces all that was said'],
];
const TRANSITIONS = [
  ['recache', 'Carry on', 'Keeps the motion, changes the meaning'],
  ['flush', 'At once', 'Forgets most of the past'],
  ['cut', 'Cut', 'A new scene in the same take'],
];

/** @param {Partial<state.Choices>} change */
const choose = (change) => (state.choices.value = { ...state.choices.value, ...change });

/** @param {{name: string, value: string, options: string[][], onchoose: (value: any) => void}} props */
const Radios = ({ name, value, options, onchoose }) =>
  html`<fieldset>
    <legend>${name}</legend>
    ${options.map(
      ([key, title, text]) =>
        html`<label class="choice">
          <input type="radio" name=${name} checked=${value === key} onChange=${() => onchoose(key)} />
          <span><b>${title}</b>${text}</span>
        </label>`,
    )}
  </fieldset>`;

export function Choices() {
  const [open, setOpen] = useState(false);
  const { mode, transition, fade, seed, guidance } = state.choices.value;
  const plain = mode === 'change' && transition === 'recache' && !fade && seed === '' && guidance === '';
  /** @param {KeyboardEvent} event */
  const escape = (event) => {
    if (event.key !== 'Escape' || !open) return;
    event.stopPropagation();
    setOpen(false);
  };
  return html`<div class="choices" onKeyDown=${escape}>
    <button class="tool ${plain ? '' : 'on'}" aria-label="How it changes" title="How it changes" aria-expanded=${open}
      onClick=${() => setOpen(!open)}>
      <${Icon} name="tune" />
    </button>
    ${
      open &&
      html`<div class="menu" role="group" aria-label="How it changes">
      <${Radios} name="The words say" value=${mode} options=${MODES}
        onchoose=${(/** @type {any} */ key) => choose({ mode: key })} />
      <${Radios} name="Transition" value=${transition} options=${TRANSITIONS}
        onchoose=${(/** @type {any} */ key) => choose({ transition: key, fade: key === 'recache' ? fade : 0 })} />
      <label class="line">
        Fade over <input type="number" min="0" max="64" value=${fade} disabled=${transition !== 'recache'}
          onChange=${(/** @type {{currentTarget: HTMLInputElement}} */ event) =>
            choose({ fade: Math.min(64, Math.max(0, Math.round(event.currentTarget.valueAsNumber || 0))) })} /> chunks
      </label>
      <label class="line">
        Seed <input type="number" step="1" placeholder="same" value=${seed}
          onChange=${(/** @type {{currentTarget: HTMLInputElement}} */ event) =>
            choose({ seed: event.currentTarget.value })} />
      </label>
      <label class="line" title="Above 1: further towards the words, at half the speed">
        Guidance <input type="number" min="0" max="20" step="0.5" placeholder="same" value=${guidance}
          onChange=${(/** @type {{currentTarget: HTMLInputElement}} */ event) =>
            choose({ guidance: event.currentTarget.validity.valid ? event.currentTarget.value : '' })} />
      </label>
    </div>`
    }
  </div>`;
}
