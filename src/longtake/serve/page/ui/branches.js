// The tree of a take as lanes, like those of a version history: each branch leaves another one at a chunk.

import { keepMarks, marked } from '../marks.js';
import * as state from '../state.js';
import { current } from '../take.js';
import { useState } from '../vendor/hooks.js';
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

/**
 * @param {number} branch
 * @param {import('../marks.js').Mark} change
 */
function mark(branch, change) {
  state.marks.value = marked(state.marks.value, branch, change);
  if (current) keepMarks(current.id, state.marks.value);
}

/** @param {{branch: Branch, onclose: () => void}} props */
function Name({ branch, onclose }) {
  /** @param {FocusEvent | KeyboardEvent} event */
  const keep = (event) => {
    mark(branch.branch, { name: /** @type {HTMLInputElement} */ (event.currentTarget).value.trim() });
    onclose();
  };
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    if (event.key === 'Enter') keep(event);
    else if (event.key === 'Escape') onclose();
  };
  return html`<input class="name" aria-label="Name of branch ${branch.branch + 1}" maxlength="80" autofocus
    ref=${(/** @type {HTMLInputElement | null} */ box) => box?.focus()}
    value=${state.marks.value[branch.branch]?.name ?? ''} placeholder=${branch.prompt}
    onKeyDown=${press} onBlur=${keep} />`;
}

/** @param {{branch: Branch, here: boolean}} props */
function Row({ branch, here }) {
  const [naming, setNaming] = useState(false);
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
  const { starred, name } = state.marks.value[branch.branch] ?? {};
  const number = branch.branch + 1;
  if (naming) {
    return html`<li class="branch here"><${Name} branch=${branch} onclose=${() => setNaming(false)} /></li>`;
  }
  return html`<li class="branch ${here ? 'here' : ''}">
    <button class="go" aria-current=${here} title=${branch.prompt} onClick=${go} onDblClick=${() => setNaming(true)}>
      <b>${number}</b>
      <span class="what">${name ?? branch.prompt}</span>
      <span class="sub">${timecode(seconds)}${making ? ', being made' : ''}</span>
    </button>
    <button class="tool small star ${starred ? 'on' : ''}" aria-label="Star branch ${number}" title="Star"
      aria-pressed=${Boolean(starred)} onClick=${() => mark(branch.branch, { starred: !starred })}>
      <${Icon} name="star" />
    </button>
    ${
      here
        ? html`<button class="tool small" aria-label="Name branch ${number}" title="Name it"
            onClick=${() => setNaming(true)}>
            <${Icon} name="canvas" />
          </button>`
        : html`<button class="tool small ${beside ? 'on' : ''}" aria-label="Compare with branch ${number}"
            title="Show both side by side"
            aria-pressed=${beside} onClick=${() => (state.beside.value = beside ? null : branch.tip)}>
            <${Icon} name="compare" />
          </button>`
    }
    ${
      !here &&
      !making &&
      html`<button class="tool small" aria-label="Hide branch ${number}" title="Hide it from this list"
        onClick=${() => mark(branch.branch, { hidden: true })}>
        <${Icon} name="close" />
      </button>`
    }
  </li>`;
}

export function Branches() {
  state.growth.value;
  const tip = state.playback.value?.path.at(-1);
  const tree = current?.tree;
  if (!tree || tree.branches.size === 0) return null;
  const here = tree.chunks.get(tip ?? -1)?.branch;
  const all = [...tree.branches.values()];
  const branches = all.filter(({ branch }) => branch === here || !state.marks.value[branch]?.hidden);
  const showAll = () => {
    for (const { branch } of all) mark(branch, { hidden: false });
  };
  return html`<section class="panel">
    <h2>Branches</h2>
    <div class="tree">
      <${Lanes} tree=${tree} branches=${branches} />
      <ol>
        ${branches.map((one) => html`<${Row} key=${one.branch} branch=${one} here=${one.branch === here} />`)}
      </ol>
    </div>
    ${
      branches.length < all.length &&
      html`<button class="quiet" onClick=${showAll}>Show ${all.length - branches.length} hidden</button>`
    }
    ${
      all.length === 1 &&
      html`<p class="hint">
      Scrub back, say something else, and ${state.over.value ? 'a new take' : 'a branch'} grows from there.
    </p>`
    }
  </section>`;
}
