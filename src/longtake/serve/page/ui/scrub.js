// The film as a slider, and the line that shows where it stands.

import * as state from '../state.js';
import { current } from '../take.js';
import { useEffect, useRef } from '../vendor/hooks.js';
import { html } from './html.js';

export const PX = 6; // of the film, a frame
const reduced = matchMedia('(prefers-reduced-motion: reduce)');
const SIGHT = 0.66; // of the visible film, where a moving playhead stays

/** @param {{onseek: () => void}} props */
export function Scrub({ onseek }) {
  const dragging = useRef(false);
  const view = state.playback.value;
  if (!view || !current) return null;
  const fps = current.tree.opened?.fps ?? 16;
  const chunk = view.chunk === null ? undefined : current.tree.chunks.get(view.chunk);
  const frame = Math.max(0, view.frame);

  /** @param {PointerEvent} event */
  const seek = (event) => {
    const { left } = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
    onseek();
    current?.player.pause();
    current?.player.seek(Math.floor((event.clientX - left) / PX));
  };
  /** @param {PointerEvent} event */
  const press = (event) => {
    if (event.pointerType === 'touch') return; // a swipe moves the film, a tap seeks
    dragging.current = true;
    /** @type {HTMLElement} */ (event.currentTarget).setPointerCapture(event.pointerId);
    seek(event);
  };
  return html`<div
    class="scrub"
    role="slider"
    tabindex="0"
    aria-label="Film"
    aria-valuemin="0"
    aria-valuemax=${Math.max(0, view.frames - 1)}
    aria-valuenow=${frame}
    aria-valuetext="frame ${frame}, ${(frame / fps).toFixed(1)} seconds, prompt: ${chunk?.prompt ?? ''}"
    onPointerDown=${press}
    onPointerMove=${(/** @type {PointerEvent} */ event) => dragging.current && seek(event)}
    onPointerUp=${() => (dragging.current = false)}
    onClick=${(/** @type {PointerEvent} */ event) => event.pointerType === 'touch' && seek(event)}
  ></div>`;
}

/** @param {{scroller: {current: HTMLDivElement | null}, following: boolean}} props */
export function Playhead({ scroller, following }) {
  const view = state.playback.value;
  const x = (Math.max(0, view?.frame ?? 0) + 0.5) * PX;
  useEffect(() => {
    const box = scroller.current;
    if (!box || !following) return;
    const [from, wide] = [box.scrollLeft, box.clientWidth];
    const inside = x > from + 20 && x < from + wide * SIGHT;
    if (inside) return;
    if (x >= from + wide * SIGHT && !reduced.matches) box.scrollLeft = x - wide * SIGHT;
    else if (x < from + 20 || x > from + wide - 20) box.scrollLeft = x - wide * 0.2;
  }, [x, following]);
  return html`<i class="playhead" style=${{ transform: `translateX(${x}px)` }}></i>`;
}
