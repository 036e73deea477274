// Puts the page together.

import { getJson } from './api.js';
import * as state from './state.js';
import { current } from './take.js';
import { acceptFiles } from './ui/attach.js';
import { html } from './ui/html.js';
import { listenToKeys } from './ui/keys.js';
import { route } from './ui/routes.js';
import { Shell } from './ui/shell.js';
import { render } from './vendor/preact.js';
import { effect } from './vendor/signals.js';

const AGAIN_MS = 2000;

/** What browser tests look at. `onframe` is theirs to set. */
const hook = {
  get player() {
    return current?.player ?? null;
  },
  get connection() {
    return current?.connection ?? null;
  },
  state,
  /** @type {((frame: number, chunk: number) => void) | null} */
  onframe: null,
};
Object.assign(globalThis, { longtake: hook });

async function learn() {
  try {
    state.about.value = await getJson('/api/about');
    if (state.about.value) state.strength.value = state.about.value.strength;
    state.notice.value = null;
  } catch (error) {
    state.complain(error);
    setTimeout(learn, AGAIN_MS);
  }
}

/** @type {import('./take.js').Screen} */
const report = (_, frame, chunk) => hook.onframe?.(frame, chunk);

function tick() {
  current?.screens.add(report);
  current?.player.tick();
  requestAnimationFrame(tick);
}

render(html`<${Shell} />`, /** @type {Element} */ (document.getElementById('app')));
effect(() => {
  const prompt = state.take.value && current?.tree.opened?.prompt;
  document.title = prompt ? `${prompt} | longtake` : 'longtake';
});
listenToKeys();
acceptFiles();
addEventListener('popstate', route);
void learn();
void route();
tick();
