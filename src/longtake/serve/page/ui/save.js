// What can be taken home: the video of this path, its script, the picture on the screen.

import { download, save } from '../api.js';
import * as state from '../state.js';
import { current } from '../take.js';
import { useState } from '../vendor/hooks.js';
import { html } from './html.js';
import { Icon } from './icons.js';

const FILES = [
  { kind: 'mp4', name: 'MP4', text: 'Video, as it was streamed' },
  { kind: 'gif', name: 'GIF', text: 'For a chat or a page' },
  { kind: 'webp', name: 'WebP', text: 'Like a GIF, smaller and finer' },
  { kind: 'json', name: 'Script', text: 'Makes this take again, bit for bit' },
];

/** The picture on the screen, as a PNG file. */
export function snapshot() {
  const canvas = /** @type {HTMLCanvasElement | null} */ (document.getElementById('screen'));
  const frame = current?.player.position().frame ?? 0;
  canvas?.toBlob((blob) => blob && save(blob, `longtake-${frame}.png`));
}

/**
 * @param {string} kind
 * @param {'path' | 'here'} extent
 */
async function fetchFile(kind, extent) {
  const view = state.playback.value;
  const chunk = extent === 'here' ? view?.chunk : view?.path.findLast((id) => !current?.store.arriving(id));
  if (!current || chunk === null || chunk === undefined) return;
  state.busy.value = kind;
  try {
    const name = kind === 'json' ? 'longtake.take.json' : `longtake.${kind}`;
    await download(`${current.path}/paths/${chunk}.${kind}`, name);
  } catch (error) {
    state.complain(error);
  } finally {
    state.busy.value = null;
  }
}

export function Save() {
  const [open, setOpen] = useState(false);
  const [extent, setExtent] = useState(/** @type {'path' | 'here'} */ ('path'));
  /** @param {KeyboardEvent} event */
  const escape = (event) => {
    if (event.key !== 'Escape' || !open) return;
    event.stopPropagation();
    setOpen(false);
  };
  return html`<div class="save" onKeyDown=${escape}>
    <button class="tool text" aria-expanded=${open} aria-label="Save" onClick=${() => setOpen(!open)}>
      <${Icon} name="save" /><span class="wide">Save</span>
    </button>
    ${
      open &&
      html`<div class="menu" role="group" aria-label="Save">
      <div class="segments" role="radiogroup" aria-label="How much">
        ${[
          ['path', 'All of this branch'],
          ['here', 'Up to the playhead'],
        ].map(
          ([value, text]) =>
            html`<button role="radio" aria-checked=${extent === value}
              onClick=${() => setExtent(/** @type {any} */ (value))}>
              ${text}
            </button>`,
        )}
      </div>
      ${FILES.map(
        ({ kind, name, text }) =>
          html`<button class="row" disabled=${state.busy.value !== null} onClick=${() => fetchFile(kind, extent)}>
            <b>${name}</b><span>${state.busy.value === kind ? 'Preparing…' : text}</span>
          </button>`,
      )}
      <button class="row" onClick=${snapshot}><b>PNG</b><span>The picture on the screen</span></button>
    </div>`
    }
  </div>`;
}
