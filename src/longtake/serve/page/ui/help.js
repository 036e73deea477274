// The keys, listed on "?".

import * as state from '../state.js';
import { useEffect, useRef } from '../vendor/hooks.js';
import { html } from './html.js';

const KEYS = [
  ['Space, K', 'Play or pause'],
  ['Left, Right', 'A frame back or on'],
  ['Shift + Left, Right', 'A chunk back or on'],
  ['Home', 'To start'],
  ['End, Esc Esc', 'Live'],
  ['J, L', 'Slower, faster'],
  ['I, O', 'Loop from here, to here'],
  ['[ , ]', 'Prompt before, prompt after'],
  ['/', 'Write what happens next'],
  ['B', 'Branch here'],
  ['S', 'Save the picture'],
  ['Up', 'Earlier words, in the empty field'],
  ['Arrows', 'Steer, while a game is live'],
  ['?', 'This list'],
];

export function Help() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const open = state.help.value;
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  const close = () => (state.help.value = false);
  return html`<dialog class="help" ref=${dialog} aria-labelledby="help-title" onClose=${close}>
    <h2 id="help-title">Keys</h2>
    <dl>
      ${KEYS.map(
        ([keys, what]) =>
          html`<div>
            <dt>${keys.split(', ').map((key) => html`<kbd>${key}</kbd>`)}</dt>
            <dd>${what}</dd>
          </div>`,
      )}
    </dl>
    <button class="plain" onClick=${close}>Close</button>
  </dialog>`;
}
