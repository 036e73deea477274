// A picture or a video that goes with the words: chosen, pasted or dropped.

import { picture, upload } from '../api.js';
import * as state from '../state.js';
import { useEffect, useState } from '../vendor/hooks.js';
import { html } from './html.js';
import { Icon } from './icons.js';

let running = Promise.resolve();

/** Wait for the upload that runs, if any: what is sent meanwhile is sent with it. */
export const uploaded = () => running;

/** @param {File} file */
export function attach(file) {
  running = send(file);
}

/** @param {File} file */
async function send(file) {
  state.busy.value = 'upload';
  try {
    const { id, kind } = await upload(file);
    if (state.take.value && kind === 'video')
      throw new Error('A video can begin a take: leave this one, then drop it again.');
    state.attachment.value = { asset: id, kind, name: file.name };
    if (!state.take.value) state.sourceKind.value = kind;
  } catch (error) {
    state.complain(error);
  } finally {
    state.busy.value = null;
  }
}

/** @param {{currentTarget: HTMLInputElement}} event of a file field */
export function take({ currentTarget }) {
  const file = currentTarget.files?.[0];
  currentTarget.value = '';
  if (file) attach(file);
}

/** Files that are dropped or pasted anywhere on the page. */
export function acceptFiles() {
  /** @param {DataTransfer | null} data */
  const first = (data) => [...(data?.files ?? [])].find(({ type }) => /^(image|video)\//.test(type));
  const { classList } = document.documentElement;
  addEventListener('dragover', (event) => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    classList.add('dropping');
  });
  addEventListener('dragleave', (event) => event.relatedTarget === null && classList.remove('dropping'));
  addEventListener('drop', (event) => {
    event.preventDefault();
    classList.remove('dropping');
    const file = first(event.dataTransfer);
    if (file) attach(file);
  });
  addEventListener('paste', (event) => {
    const file = first(event.clipboardData);
    if (file) attach(file);
  });
}

export function Attached() {
  const attached = state.attachment.value;
  const [url, setUrl] = useState('');
  useEffect(() => {
    setUrl('');
    if (attached) picture(`/api/assets/${attached.asset}.jpg`).then(setUrl, state.complain);
  }, [attached]);
  if (state.busy.value === 'upload') return html`<p class="attached"><span class="thumb empty"></span>Uploading…</p>`;
  if (!attached) return null;
  return html`<p class="attached">
    ${url && html`<img class="thumb" src=${url} alt="" />`}
    <span>
      <b>${attached.name}</b>
      ${state.take.value ? 'The take goes on from this picture' : 'As the model will see it'}
    </span>
    <button class="tool small" aria-label="Remove ${attached.name}" onClick=${() => (state.attachment.value = null)}>
      <${Icon} name="close" />
    </button>
  </p>`;
}
