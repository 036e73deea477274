// What a take is made from besides words.

import * as state from '../state.js';
import { current } from '../take.js';
import { useEffect, useRef } from '../vendor/hooks.js';
import { take as takeFile } from './attach.js';
import { board, camera, cameras, chosenCamera, clearBoard, colour, COLOURS, noCamera } from './feeds.js';
import { closeCamera, openCamera } from './feeds.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { Arrows } from './arrows.js';
import { spoken } from './words.js';

/** @type {[state.SourceKind, string, string][]} */
const KINDS = [
  ['text', 'Text', 'Words alone.'],
  ['image', 'Image', 'A picture that the take begins with. Drop one anywhere.'],
  ['webcam', 'Webcam', 'Your camera, painted over while you move.'],
  ['canvas', 'Canvas', 'Draw, and watch it come to life. Flat colours do.'],
  ['video', 'Video', 'A file that is painted over, or gone on from.'],
  ['game', 'Game', 'A little game in flat colours; you steer, the model paints.'],
];

/**
 * An element that lives longer than what shows it.
 * @param {{element: HTMLElement}} props
 */
export function Keep({ element }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  useEffect(() => {
    box.current?.replaceChildren(element);
  }, [element]);
  return html`<div class="keep" ref=${box}></div>`;
}

export function Board() {
  return html`<div class="board-box">
    <${Keep} element=${board} />
    <div class="paints" role="radiogroup" aria-label="Colour">
      ${COLOURS.map(
        (paint, place) =>
          html`<button role="radio" aria-label="Colour ${place + 1}" aria-checked=${colour.value === paint}
            style=${{ background: paint }} onClick=${() => (colour.value = paint)}></button>`,
      )}
      <button class="quiet" onClick=${clearBoard}>Clear</button>
    </div>
  </div>`;
}

/** Where there are several. */
function CameraPicker() {
  if (cameras.value.length < 2) return null;
  return html`<label class="line">Camera
    <select aria-label="Camera" value=${chosenCamera.value}
      onChange=${(/** @type {{currentTarget: HTMLSelectElement}} */ event) => openCamera(event.currentTarget.value)}>
      ${cameras.value.map(({ deviceId, label }) => html`<option value=${deviceId}>${label}</option>`)}
    </select></label>`;
}

function Webcam() {
  if (noCamera) return html`<p class="hint">${noCamera}</p>`;
  if (!camera.value)
    return html`<button class="plain" onClick=${() => openCamera()}><${Icon} name="webcam" />Turn the camera on</button>`;
  return html`<div class="preview mirrored">
    <${Keep} element=${camera.value} />
    <button class="quiet" onClick=${closeCamera}>Turn it off</button>
  </div><${CameraPicker} />`;
}

/** @param {{accept: string, name: string}} props */
const File = ({ accept, name }) =>
  html`<label class="plain"><${Icon} name=${accept === 'image/*' ? 'image' : 'video'} />${name}
    <input type="file" class="hidden" accept=${accept} onChange=${takeFile} /></label>`;

function Video() {
  /** @type {['restyle' | 'extend', string][]} */
  const uses = [
    ['restyle', 'Paint over it'],
    ['extend', 'Go on from its end'],
  ];
  return html`<div class="segments" role="radiogroup" aria-label="What to do with it">
      ${uses.map(
        ([use, text]) =>
          html`<button role="radio" aria-checked=${state.videoUse.value === use}
            onClick=${() => (state.videoUse.value = use)}>
            ${text}
          </button>`,
      )}
    </div>
    <${File} accept="video/*" name="Choose a video" />`;
}

function Game() {
  const { subjects, places } = state.about.value?.game ?? { subjects: [], places: [] };
  /** @param {'subject' | 'place'} key @param {string[]} options */
  const select = (key, options) =>
    html`<label class="line">${key === 'subject' ? 'Who' : 'Where'}
      <select value=${state.game.value[key]}
        onChange=${(/** @type {{currentTarget: HTMLSelectElement}} */ event) =>
          (state.game.value = { ...state.game.value, [key]: event.currentTarget.value })}>
        ${options.map((option) => html`<option value=${option}>${spoken(option)}</option>`)}
      </select></label>`;
  return html`${select('subject', subjects)}${select('place', places)}<p class="hint">Steer with the arrow keys.</p>`;
}

function Strength() {
  const percent = Math.round(state.strength.value * 100);
  return html`<label class="line strength">How freely
    <input type="range" min="0.1" max="1" step="0.05" value=${state.strength.value} aria-valuetext="${percent} percent"
      onInput=${(/** @type {{currentTarget: HTMLInputElement}} */ event) =>
        (state.strength.value = event.currentTarget.valueAsNumber)} />
    <span>${percent} %</span></label>`;
}

/** Before a take: choose. */
export function SourcePicker() {
  const kind = state.sourceKind.value;
  const [, , text] = KINDS.find(([key]) => key === kind) ?? KINDS[0];
  const follows =
    kind === 'webcam' ||
    kind === 'canvas' ||
    kind === 'game' ||
    (kind === 'video' && state.videoUse.value === 'restyle');
  return html`<section class="source" aria-label="Source">
    <div class="kinds" role="radiogroup" aria-label="Source">
      ${KINDS.map(
        ([key, name]) =>
          html`<button role="radio" aria-checked=${kind === key} onClick=${() => (state.sourceKind.value = key)}>
            <${Icon} name=${key} />${name}
          </button>`,
      )}
    </div>
    ${
      kind !== 'text' &&
      html`<div class="settings">
      <p class="hint">${text}</p>
      ${kind === 'image' && html`<${File} accept="image/*" name="Choose a picture" />`}
      ${kind === 'webcam' && html`<${Webcam} />`} ${kind === 'canvas' && html`<${Board} />`}
      ${kind === 'video' && html`<${Video} />`} ${kind === 'game' && html`<${Game} />`}
      ${follows && html`<${Strength} />`}
    </div>`
    }
  </section>`;
}

/** During a take: what it follows. */
export function LiveSource() {
  const kind = state.liveSource.value;
  state.take.value;
  const capture = current?.capture;
  if (kind === 'game') return html`<section class="panel"><h2>Game</h2><${Arrows} /></section>`;
  if (kind !== 'webcam' && kind !== 'canvas') return null;
  return html`<section class="panel">
    <h2>Source</h2>
    ${kind === 'canvas' ? html`<${Board} />` : capture && html`<${Keep} element=${capture.canvas} /><${CameraPicker} />`}
    <label class="line"><input type="checkbox" checked=${capture?.frozen}
      onChange=${(/** @type {{currentTarget: HTMLInputElement}} */ event) =>
        capture && (capture.frozen = event.currentTarget.checked)} />
      Freeze the picture</label>
  </section>`;
}
