// The takes that the server keeps.

import * as state from '../state.js';
import { html } from './html.js';
import { openPage } from './routes.js';
import { Thumb } from './thumb.js';
import { ago, timecode } from './words.js';

/** @param {{take: state.Listed}} props */
function Card({ take }) {
  const going = take.state !== 'ended';
  return html`<li>
    <a class="card" href="?take=${take.id}" onClick=${openPage}>
      ${take.tip === null ? html`<span class="thumb empty" />` : html`<${Thumb} take=${take.id} chunk=${take.tip} />`}
      <span class="title">${take.prompt}</span>
      <span class="sub">${timecode(take.seconds)}, ${ago(take.created_at)}${going ? ', still open' : ''}</span>
    </a>
  </li>`;
}

export function Gallery() {
  const takes = state.gallery.value;
  if (!takes.length) return null;
  return html`<section class="gallery" aria-labelledby="gallery-title">
    <h2 id="gallery-title">Earlier takes</h2>
    <ul>${takes.map((take) => html`<${Card} key=${take.id} take=${take} />`)}</ul>
  </section>`;
}
