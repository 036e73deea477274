// Words of the draft that the model was not trained on, each with the known one that is nearest.

import { getJson } from '../api.js';
import * as state from '../state.js';
import { useEffect, useState } from '../vendor/hooks.js';
import { html } from './html.js';

const PAUSE_MS = 350; // after the last key before the server is asked

/** @typedef {{word: string, nearest: string}} UnknownWord */

/** @param {UnknownWord} found */
function exchange({ word, nearest }) {
  const written = state.draft.value.toLowerCase().indexOf(word);
  if (written < 0) return;
  state.draft.value = state.draft.value.slice(0, written) + nearest + state.draft.value.slice(written + word.length);
  document.getElementById('composer')?.focus();
}

export function UnknownWords() {
  const [unknown, setUnknown] = useState(/** @type {UnknownWord[]} */ ([]));
  const text = state.draft.value.trim();
  useEffect(() => {
    if (!text) {
      setUnknown([]);
      return undefined;
    }
    let stale = false;
    const ask = async () => {
      const answer = await getJson(`/api/words?prompt=${encodeURIComponent(text)}`).catch(() => ({ unknown: [] }));
      if (!stale) setUnknown(answer.unknown);
    };
    const timer = setTimeout(ask, PAUSE_MS);
    return () => {
      stale = true;
      clearTimeout(timer);
    };
  }, [text]);
  return html`<p class="unknown" aria-live="polite">
    ${
      unknown.length > 0 &&
      html`Not learned:
    ${unknown.map(
      (found) => html`${' '}<button class="exchange" title="Say ${found.nearest} instead" onClick=${() => exchange(found)}>
        <s>${found.word}</s> ${found.nearest}
      </button>`,
    )}`
    }
  </p>`;
}
