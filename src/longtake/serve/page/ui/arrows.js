// The keys of the game, for fingers and for the keyboard.

import { current } from '../take.js';
import { signal } from '../vendor/signals.js';
import { html } from './html.js';
import { Icon } from './icons.js';

/** @import { Key } from '../protocol.js' */
/** @import { Signal } from '../vendor/signals.js' */

/** @type {Signal<Key[]>} */
const held = signal([]);

/** @type {Record<string, Key>} */
export const ARROWS = { ArrowLeft: 'left', ArrowRight: 'right', ArrowUp: 'up', ArrowDown: 'down' };

/**
 * @param {Key} key
 * @param {boolean} down
 */
export function hold(key, down) {
  if (held.value.includes(key) === down) return;
  held.value = down ? [...held.value, key] : held.value.filter((other) => other !== key);
  current?.hold(held.value);
}

/** Nothing is held once the page has lost the keyboard. */
export function letGo() {
  for (const key of held.value) hold(key, false);
}

export function Arrows() {
  return html`<div class="arrows">
    ${Object.values(ARROWS).map(
      (key) =>
        html`<button
          class="tool ${key} ${held.value.includes(key) ? 'on' : ''}"
          aria-label="Steer ${key}"
          onPointerDown=${() => hold(key, true)}
          onPointerUp=${() => hold(key, false)}
          onPointerLeave=${() => hold(key, false)}
          onContextMenu=${(/** @type {Event} */ event) => event.preventDefault()}
        >
          <${Icon} name=${key} />
        </button>`,
    )}
    <p class="hint">Hold the arrow keys</p>
  </div>`;
}
