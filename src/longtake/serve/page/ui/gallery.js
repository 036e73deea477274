// The takes that the server keeps.

import { request } from '../api.js';
import * as state from '../state.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { openPage, refreshGallery } from './routes.js';
import { Thumb } from './thumb.js';
import { ago, timecode } from './words.js';

/** @param {{take: state.Listed}} props */
function Card({ take }) {
  const going = take.state !== 'ended';
  const star = async () => {
    await request(`/api/takes/${take.id}/star`, { method: take.starred ? 'DELETE' : 'PUT' }).catch(state.complain);
    await refreshGallery();
  };
  return html`<li>
    <a class="card" href="?take=${take.id}" onClick=${openPage}>
      ${take.tip === null ? html`<span class="thumb empty" />` : html`<${Thumb} take=${take.id} chunk=${take.tip} />`}
      <span class="title">${take.prompt}</span>
      <span class="sub">${timecode(take.seconds)}, ${ago(take.created_at)}${going ? ', still open' : ''}</span>
    </a>
    <button class="tool small star ${take.starred ? 'on' : ''}" aria-label="Star ${take.prompt}"
      title="Star: deleted last, where the server keeps only some" aria-pressed=${take.starred} onClick=${star}>
      <${Icon} name="star" />
    </button>
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
