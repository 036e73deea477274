// The tree of a take as lanes, like those of a version history: each branch leaves another one at a chunk.

import * as state from '../state.js';
import { current } from '../take.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { hue, timecode } from './words.js';

/** @import { Branch, Tree } from '../tree.js' */

const ROW = 52;
const WIDTH = 84;
const EDGE = 8;

/** @param {{tree: Tree, branches: Branch[]}} props */
function Lanes({ tree, branches }) {
  const longest = Math.max(1, ...branches.map(({ tip }) => tree.chunks.get(tip)?.index ?? 0));
  /** @param {number} index */
  const x = (index) => EDGE + (index / longest) * (WIDTH - 2 * EDGE);
  /** @param {number} row */
  const y = (row) => row * ROW + ROW / 2;
  const prompts = tree.prompts;
  const lanes = branches.map((branch, row) => {
    const [first, tip] = [tree.chunks.get(branch.first)?.index ?? 0, tree.chunks.get(branch.tip)?.index ?? 0];
    const parent = branch.parent === null ? undefined : tree.chunks.get(branch.parent);
    const from = branches.findIndex(({ branch: id }) => id === parent?.branch);
    const [px, py] = [x(parent?.index ?? 0), y(Math.max(0, from))];
    const bend = parent && `M${px} ${py}C${px} ${(py + y(row)) / 2} ${px} ${y(row)} ${x(first)} ${y(row)}`;
    const lane = hue(prompts, branch.prompt);
    return html`<g class=${lane}>
      ${bend && html`<path d=${bend} />`}
      <path d="M${x(first)} ${y(row)}H${x(tip)}" />
      <circle cx=${x(tip)} cy=${y(row)} r="4.5" class=${branch.tip === tree.head ? 'head' : ''} />
    </g>`;
  });
  return html`<svg class="lanes" width=${WIDTH} height=${branches.length * ROW} aria-hidden="true">${lanes}</svg>`;
}

/** @param {{branch: Branch, here: boolean}} props */
function Row({ branch, here }) {
  state.growth.value;
  const { tree, player } = /** @type {import('../take.js').Take} */ (current);
  const tip = tree.chunks.get(branch.tip);
  const fps = tree.opened?.fps ?? 16;
  const seconds = tip ? (tip.start_frame + tip.num_frames) / fps : 0;
  const making = branch.tip === tree.head && !tree.ended;
  const beside = state.beside.value === branch.tip;
  const go = () => {
    if (making) player.goLive();
    else player.follow(branch.tip);
    if (beside) state.beside.value = null;
  };
  return html`<li class="branch ${here ? 'here' : ''}">
    <button class="go" aria-current=${here} title=${branch.prompt} onClick=${go}>
      <b>${branch.branch + 1}</b>
      <span class="what">${branch.prompt}</span>
      <span class="sub">${timecode(seconds)}${making ? ', being made' : ''}</span>
    </button>
    ${
      !here &&
      html`<button class="tool small ${beside ? 'on' : ''}" aria-label="Compare with branch ${branch.branch + 1}"
        title="Show both side by side"
      aria-pressed=${beside} onClick=${() => (state.beside.value = beside ? null : branch.tip)}>
      <${Icon} name="compare" />
    </button>`
    }
  </li>`;
}

export function Branches() {
  state.growth.value;
  const tip = state.playback.value?.path.at(-1);
  const tree = current?.tree;
  if (!tree || tree.branches.size === 0) return null;
  const branches = [...tree.branches.values()];
  const here = tree.chunks.get(tip ?? -1)?.branch;
  return html`<section class="panel">
    <h2>Branches</h2>
    <div class="tree">
      <${Lanes} tree=${tree} branches=${branches} />
      <ol>
        ${branches.map((one) => html`<${Row} key=${one.branch} branch=${one} here=${one.branch === here} />`)}
      </ol>
    </div>
    ${branches.length === 1 && html`<p class="hint">Scrub back, say something else, and a branch grows from there.</p>`}
  </section>`;
}
