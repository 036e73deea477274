// The first frame of a chunk.

import { picture } from '../api.js';
import { useEffect, useState } from '../vendor/hooks.js';
import { html } from './html.js';

const AGAIN_MS = 600;

/** @param {{take: string, chunk: number, whole?: boolean}} props `whole`: all its frames have come */
export function Thumb({ take, chunk, whole = true }) {
  const path = `/api/takes/${take}/chunks/${chunk}.jpg`;
  const [shown, setShown] = useState({ path: '', url: '' });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (!whole) return undefined;
    let gone = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let later;
    picture(path).then(
      (url) => gone || setShown({ path, url }),
      () => (later = setTimeout(() => gone || setTries((count) => count + 1), AGAIN_MS)),
    );
    return () => {
      gone = true;
      clearTimeout(later);
    };
  }, [path, tries, whole]);
  if (shown.path !== path) return html`<span class="thumb empty"></span>`;
  return html`<img class="thumb" src=${shown.url} alt="" draggable=${false} />`;
}
