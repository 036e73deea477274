// The two pages: home, where a take begins, and the studio, where it runs.

import { base } from '../api.js';
import { hasVideoDecoder } from '../decoder.js';
import * as state from '../state.js';
import { current } from '../take.js';
import { Branches } from './branches.js';
import { Composer, focusComposer } from './composer.js';
import { Gallery } from './gallery.js';
import { Help } from './help.js';
import { html } from './html.js';
import { Icon, Mark } from './icons.js';
import { Numbers } from './numbers.js';
import { Notice, Pill } from './pill.js';
import { roll } from './rolling.js';
import { openPage } from './routes.js';
import { LiveSource, SourcePicker } from './source.js';
import { Stage } from './stage.js';
import { Timeline } from './timeline.js';
import { Transport } from './transport.js';

function Header() {
  const inTake = state.take.value !== null;
  const about = state.about.value;
  return html`<header class="top">
    <a class="brand" href=${base.pathname} onClick=${openPage} aria-label="longtake, home"><${Mark} />longtake</a>
    ${about && html`<span class="model wide">${about.model}, ${about.width}×${about.height}</span>`}
    <span class="space"></span>
    <${Pill} />
    ${
      inTake &&
      html`<a class="plain" href=${base.pathname} onClick=${openPage} aria-label="New take">
      <${Icon} name="plus" /><span class="wide">New take</span>
    </a>`
    }
    <button class="tool" aria-label="Keys" title="Keys (?)" onClick=${() => (state.help.value = true)}>
      <${Icon} name="keyboard" />
    </button>
  </header>`;
}

function Examples() {
  const examples = state.about.value?.examples ?? [];
  /** @param {string} prompt */
  const start = (prompt) => {
    state.draft.value = prompt;
    if (state.sourceKind.value === 'text') void roll(prompt);
    else focusComposer();
  };
  return html`<section class="examples" aria-label="Examples">
    ${examples.map(
      (prompt) =>
        html`<button disabled=${state.busy.value === 'roll'} onClick=${() => start(prompt)}>
          <${Icon} name="play" />${prompt}
        </button>`,
    )}
  </section>`;
}

function Home() {
  return html`<main class="home">
    <div class="hero">
      <h1>One long take.<br /><span>You say what happens next.</span></h1>
      <${Notice} />
      <${Composer} />
      <${SourcePicker} />
      <${Examples} />
    </div>
    <${Gallery} />
  </main>`;
}

/** @param {string} prompt to be changed from the playhead on */
function edit(prompt) {
  state.choices.value = { ...state.choices.value, mode: 'prompt' };
  state.draft.value = prompt;
  focusComposer();
}

/** @param {string} watch the id for whoever looks on */
async function share(watch) {
  const link = `${location.origin}/?take=${watch}`;
  await navigator.clipboard?.writeText(link);
  state.notice.value = { kind: 'note', text: `${navigator.clipboard ? 'Copied' : 'To watch'}: ${link}` };
}

/** Making was paused by someone, or the take may end. */
function Making() {
  state.growth.value;
  const how = state.status.value?.state;
  if (!current || how === 'ended') return null;
  const paused = how === 'paused';
  const watch = state.take.value?.watch;
  return html`<section class="panel making">
    <button class="quiet" onClick=${() => current?.order({ type: paused ? 'resume' : 'pause' })}>
      ${paused ? 'Go on making' : 'Pause making'}
    </button>
    ${watch && html`<button class="quiet" onClick=${() => share(watch)}>Copy a link to watch</button>`}
    <button class="quiet" onClick=${() => current?.connection.tell({ type: 'close' })}>End this take</button>
  </section>`;
}

function Studio() {
  return html`<main class="studio">
    <div class="desk">
      <${Stage} key=${state.take.value?.id} />
      <${Transport} />
      <div class="words"><${Notice} /><${Composer} /></div>
      <${Timeline} onedit=${edit} />
    </div>
    <aside class="side" aria-label="More">
      <${LiveSource} /><${Branches} /><${Numbers} /><${Making} />
      ${
        !hasVideoDecoder() &&
        html`<p class="hint">Sharper video and the webcam need https, or localhost (an SSH tunnel does).</p>`
      }
    </aside>
  </main>`;
}

export function Shell() {
  return html`<${Header} />${state.take.value ? html`<${Studio} />` : html`<${Home} />`}<${Help} />`;
}
