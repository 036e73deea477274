// The keyboard, when nobody writes.

import * as state from '../state.js';
import { current } from '../take.js';
import { ARROWS, hold, letGo } from './arrows.js';
import { focusComposer } from './composer.js';
import { snapshot } from './save.js';
import { changeSpeed } from './transport.js';

/** @import { Player } from '../player.js' */

const TWICE_MS = 500;
let escapedAt = -Infinity;

/**
 * To the beginning of a chunk or of a span of words, this way or that way.
 * @param {Player} player
 * @param {number[]} starts frames, ascending
 * @param {-1 | 1} direction
 */
function hop(player, starts, direction) {
  const { frame } = player.view();
  const next = direction > 0 ? starts.find((start) => start > frame) : starts.findLast((start) => start < frame);
  if (next === undefined) return;
  player.pause();
  player.seek(next);
}

/** @param {Player} player */
function chunkStarts({ path }) {
  return path.map((id) => current?.tree.chunks.get(id)?.start_frame ?? 0);
}

/** @param {Player} player */
function promptStarts(player) {
  const starts = chunkStarts(player);
  return current?.tree.spans(player.path).map(({ from }) => starts[from]) ?? [];
}

/** @param {Player} player */
function branchHere(player) {
  player.pause();
  if (player.live) player.seek(player.view().frame);
  focusComposer();
}

/** @type {Record<string, (player: Player) => void>} */
const ACTS = {
  ' ': (player) => player.toggle(),
  k: (player) => player.toggle(),
  ArrowLeft: (player) => player.step(-1),
  ArrowRight: (player) => player.step(1),
  ',': (player) => player.step(-1),
  '.': (player) => player.step(1),
  'Shift+ArrowLeft': (player) => hop(player, chunkStarts(player), -1),
  'Shift+ArrowRight': (player) => hop(player, chunkStarts(player), 1),
  j: () => changeSpeed(-1),
  l: () => changeSpeed(1),
  Home: (player) => player.seek(0),
  End: (player) => player.goLive(),
  '[': (player) => hop(player, promptStarts(player), -1),
  ']': (player) => hop(player, promptStarts(player), 1),
  i: (player) => player.loop(player.view().frame, player.loopOut),
  o: (player) => player.loop(player.loopIn, player.view().frame),
  s: snapshot,
  b: branchHere,
};

/** @param {KeyboardEvent} event */
function press(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input, textarea, select, dialog')) return;
  if (event.key === ' ' && target.closest('button, a, label')) return; // it presses that
  if (event.key === '?') state.help.value = true;
  else if (event.key === '/') focusComposer();
  else if (current && state.liveSource.value === 'game' && current.player.live && ARROWS[event.key])
    hold(ARROWS[event.key], true);
  else if (current && event.key === 'Escape') escape(current.player);
  else {
    const name = event.shiftKey && event.key.startsWith('Arrow') ? `Shift+${event.key}` : event.key;
    const act = ACTS[name.length === 1 ? name.toLowerCase() : name];
    if (!current || !act) return;
    act(current.player);
  }
  event.preventDefault();
}

/** @param {Player} player */
function escape(player) {
  if (performance.now() - escapedAt < TWICE_MS) player.goLive();
  escapedAt = performance.now();
}

export function listenToKeys() {
  addEventListener('keydown', press);
  addEventListener('keyup', (event) => ARROWS[event.key] && hold(ARROWS[event.key], false));
  addEventListener('blur', letGo);
}
