// The picture, what it is (live or not), and a veil whenever nothing can move.

import { Flashes, luminance } from '../flashes.js';
import * as state from '../state.js';
import { current } from '../take.js';
import { useEffect, useRef } from '../vendor/hooks.js';
import { html } from './html.js';
import { share, timecode } from './words.js';

const GLOW_EVERY = 6; // frames

/** @param {HTMLCanvasElement} canvas */
const pen = (canvas) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));

/** The light that the picture throws on the wall behind it. */
function Glow() {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    const take = current;
    let count = 0;
    /** @type {import('../take.js').Screen} */
    const screen = (picture) => {
      if (canvas.current && count++ % GLOW_EVERY === 0) pen(canvas.current).drawImage(picture, 0, 0, 16, 9);
    };
    take?.screens.add(screen);
    return () => void take?.screens.delete(screen);
  }, [state.take.value]);
  return html`<canvas class="glow" ref=${canvas} width="16" height="9" aria-hidden="true"></canvas>`;
}

const CELLS = { width: 16, height: 9 }; // that are looked at for flashes

/** Pauses what flashes, and lets the viewer decide. */
function useFlashGuard() {
  useEffect(() => {
    const take = current;
    if (!take) return undefined;
    const flashes = new Flashes();
    const canvas = new OffscreenCanvas(CELLS.width, CELLS.height);
    const ink = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d', { willReadFrequently: true }));
    const playOn = () => {
      take.screens.delete(screen);
      state.notice.value = null;
      take.player.play();
    };
    /** @type {import('../take.js').Screen} */
    const screen = (picture) => {
      if (!take.player.playing) return flashes.forget(); // a person moves it
      ink.drawImage(picture, 0, 0, CELLS.width, CELLS.height);
      const { data } = ink.getImageData(0, 0, CELLS.width, CELLS.height);
      if (!flashes.add(luminance(data), performance.now())) return;
      flashes.forget();
      take.player.pause();
      const offer = { label: 'Play on', act: playOn };
      state.notice.value = { kind: 'note', text: 'This flashes quickly, so it is paused: it can hurt some people.', offer };
    };
    take.screens.add(screen);
    return () => void take.screens.delete(screen);
  }, [state.take.value]);
}

/** What hides the picture, and why. @returns {{title: string, text: string} | null} */
function veil() {
  const [line, status, view] = [state.line.value, state.status.value, state.playback.value];
  const kept = current?.tree.chunks.size ?? 0;
  if (line?.name === 'refused') return { title: 'This take cannot be opened', text: line.message ?? '' };
  if (line?.name === 'lost' && (!view?.playing || view.starved || view.frame < 0)) {
    return { title: 'Reconnecting…', text: `Your video is safe (${kept} ${kept === 1 ? 'chunk' : 'chunks'} kept).` };
  }
  if (status?.state === 'queued') {
    const wait = status.wait_s === null ? '' : ` About ${Math.ceil(status.wait_s)} s.`;
    return { title: 'Waiting for a place', text: `You are number ${status.position ?? 1} in the queue.${wait}` };
  }
  if (!view || view.frame < 0) return { title: 'Rolling…', text: 'The first frames are being imagined.' };
  return null;
}

/** Told beside a picture that stands still. */
function whyStill() {
  const [status, view, line] = [state.status.value, state.playback.value, state.line.value];
  if (!view?.playing) return view?.live && status?.state === 'ended' ? 'The end' : '';
  if (line?.name === 'lost') return 'Reconnecting…';
  if (!view.starved || status?.state === 'ended') return '';
  if (status?.state === 'paused') return 'Making is paused';
  if (status?.state === 'waiting_for_input') return 'Waiting for pictures of the source';
  if (status?.state === 'rebuilding') return `Rebuilding the take, ${share(status.rebuilt ?? 0)}`;
  return 'Imagining what comes next…';
}

function Corner() {
  const [view, status] = [state.playback.value, state.status.value];
  if (!view || view.frame < 0) return null;
  const still = whyStill();
  const kind = view.live && status?.state !== 'ended' ? 'LIVE' : 'REPLAY';
  return html`<div class="corner">
    <span class="tag ${kind.toLowerCase()}"><i class="dot"></i>${kind}</span>
    ${!view.playing && html`<span class="tag">Paused</span>`}
    ${still && html`<span class="tag">${still}</span>`}
    ${view.behind > 0 && view.live === false && html`<span class="tag faint">${view.behind} frames behind</span>`}
  </div>`;
}

/** The path that this one is compared with, frame by frame. */
function Beside() {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const tip = state.beside.value;
  useEffect(() => {
    const take = current;
    if (!take || tip === null) return undefined;
    const other = take.newPlayer((picture) => canvas.current && pen(canvas.current).drawImage(picture, 0, 0));
    other.follow(tip);
    /** @type {import('../take.js').Screen} */
    const screen = (_, frame) => other.seek(frame);
    take.screens.add(screen);
    other.seek(Math.max(0, take.player.position().frame));
    return () => {
      take.screens.delete(screen);
      other.close();
    };
  }, [tip]);
  const { opened, branches } = /** @type {import('../tree.js').Tree} */ (current?.tree);
  const branch = [...branches.values()].find((one) => one.tip === tip);
  return html`<figure class="screen">
    <canvas ref=${canvas} width=${opened?.width} height=${opened?.height} role="img"
      aria-label="The other branch"></canvas>
    <figcaption class="tag">Branch ${(branch?.branch ?? 0) + 1}</figcaption>
  </figure>`;
}

export function Stage() {
  useFlashGuard();
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    const take = current;
    /** @type {import('../take.js').Screen} */
    const screen = (picture) => {
      if (canvas.current) pen(canvas.current).drawImage(picture, 0, 0);
    };
    take?.screens.add(screen);
    return () => void take?.screens.delete(screen);
  }, [state.take.value]);
  const [view, hidden] = [state.playback.value, veil()];
  const opened = current?.tree.opened;
  const chunk = view?.chunk === null || !view ? undefined : current?.tree.chunks.get(view.chunk);
  const label = chunk ? `${chunk.prompt}, at ${timecode((view?.frame ?? 0) / (opened?.fps ?? 16))}` : 'No picture yet';
  const two = state.beside.value !== null;
  return html`<section class="stage ${two ? 'two' : ''}" aria-label="Stage">
    <${Glow} />
    <figure class="screen">
      <canvas ref=${canvas} id="screen" width=${opened?.width} height=${opened?.height} role="img"
        aria-label=${label}></canvas>
      ${two && html`<figcaption class="tag">Branch ${(chunk?.branch ?? 0) + 1}</figcaption>`}
    </figure>
    ${two && html`<${Beside} />`}
    <${Corner} />
    ${hidden && html`<div class="veil"><div><b>${hidden.title}</b><p>${hidden.text}</p></div></div>`}
  </section>`;
}
