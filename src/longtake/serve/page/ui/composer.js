// "What happens next?": words for the next chunk, or for a branch when an earlier point is on the screen.

import * as state from '../state.js';
import { current, goOn } from '../take.js';
import { useEffect, useRef, useState } from '../vendor/hooks.js';
import { Attached, take as takeFile, uploaded } from './attach.js';
import { Choices } from './choices.js';
import { Cues } from './cues.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { roll } from './rolling.js';
import { UnknownWords } from './unknown.js';
import { timecode } from './words.js';

/** @type {string[]} */
const said = [];

/** Put the cursor into the composer. */
export function focusComposer() {
  document.getElementById('composer')?.focus();
}

async function saySomething() {
  await uploaded();
  const text = state.draft.value.trim();
  const attached = state.attachment.value;
  const { mode, transition, fade, seed, guidance } = state.choices.value;
  const words = text ? { [mode]: text } : {};
  const what = {
    ...words,
    ...(transition === 'recache' ? {} : { transition }),
    ...(fade ? { fade } : {}),
    ...(seed === '' ? {} : { seed: Number(seed) }),
    ...(guidance === '' ? {} : { guidance: Number(guidance) }),
    ...(attached?.kind === 'image' ? { image: attached.asset } : {}),
  };
  const numbers = seed !== '' || guidance !== '';
  if (!text && !attached && !numbers && !state.scrubbed.value && !state.over.value) return;
  if (state.over.value && state.busy.value) return;
  if (state.over.value) state.busy.value = 'roll';
  state.draft.value = '';
  try {
    await (state.over.value ? goOn(what) : current?.say(what));
    if (text) said.push(text);
    state.attachment.value = null;
  } catch (error) {
    state.draft.value = text;
    state.complain(error);
  } finally {
    if (state.busy.value === 'roll') state.busy.value = null;
  }
}

/** The words of the button. */
function action() {
  if (!state.take.value) return 'Start the take';
  if (!current || !(state.scrubbed.value || state.over.value)) return 'Send';
  state.playback.value; // it moves
  const from = timecode(current.branchPoint().frame / (current.tree.opened?.fps ?? 16));
  return `${state.over.value ? 'Go on' : 'Branch'} from ${from}`;
}

export function Composer() {
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const [back, setBack] = useState(0);
  const inTake = state.take.value !== null;
  const tree = current?.tree;
  const closed = state.over.value && (tree?.opened?.source !== null || !tree.chunks.size); // nothing to go on from
  const name = inTake ? 'What happens next?' : 'Describe the first shot';
  const branching = (state.scrubbed.value && inTake) || (state.over.value && !closed);
  const submit = () => {
    setBack(0);
    return inTake ? saySomething() : roll(state.draft.value.trim());
  };

  useEffect(() => {
    const area = field.current;
    if (!area) return;
    area.style.height = 'auto';
    area.style.height = `${area.scrollHeight}px`;
  }, [state.draft.value]);

  /** @param {KeyboardEvent} event */
  const type = (event) => {
    const recall = event.key === 'ArrowUp' && (state.draft.value === '' || back > 0) && said.length > back;
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      void submit();
    } else if (recall) {
      event.preventDefault();
      state.draft.value = said[said.length - 1 - back];
      setBack(back + 1);
    } else if (event.key === 'Escape') field.current?.blur();
  };
  const label = action();
  return html`<section class="composer ${branching ? 'branching' : ''}" aria-label="Composer">
    ${inTake && html`<${Cues} />`}
    <${Attached} />
    <div class="field">
      <label class="hidden" for="composer">${name}</label>
      <textarea
        id="composer"
        ref=${field}
        rows="1"
        maxlength="1000"
        placeholder=${closed ? 'This take is complete' : name}
        disabled=${closed}
        value=${state.draft.value}
        onInput=${(/** @type {{currentTarget: HTMLTextAreaElement}} */ event) =>
          (state.draft.value = event.currentTarget.value)}
        onKeyDown=${type}
      ></textarea>
      <div class="under">
        ${
          inTake &&
          html`<label class="tool" title="Go on from a picture">
          <${Icon} name="image" /><span class="hidden">Go on from a picture</span>
          <input type="file" class="hidden" accept="image/*" disabled=${closed} onChange=${takeFile} />
        </label>`
        }
        ${inTake && html`<${Choices} />`}
        <${UnknownWords} />
        <button
          class="send"
          aria-label=${label}
          disabled=${state.busy.value === 'roll' || closed}
          onClick=${submit}
        >
          <${Icon} name=${branching ? 'branch' : 'send'} />${label}
        </button>
      </div>
    </div>
  </section>`;
}
