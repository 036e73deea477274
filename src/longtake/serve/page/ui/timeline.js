// The film under the stage: a picture for each chunk, the words they were made under, and what is still to come.

import * as state from '../state.js';
import { current } from '../take.js';
import { useEffect, useRef, useState } from '../vendor/hooks.js';
import { computed } from '../vendor/signals.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { Playhead, PX, Scrub } from './scrub.js';
import { Thumb } from './thumb.js';
import { hue, timecode } from './words.js';

/** @import { Chunk } from '../protocol.js' */

const MARGIN = 400; // beyond what is visible
const ROOM = 160; // after the last chunk, for what is due
const PENDING_FRAMES = 24; // drawn of a cue that waits

/** @type {number[]} */
const NONE = [];
const path = computed(() => state.playback.value?.path ?? NONE);

/** @param {Chunk | undefined} chunk */
const end = (chunk) => (chunk ? chunk.start_frame + chunk.num_frames : 0);

/**
 * Where frames lie on the film.
 * @param {number} start
 * @param {number} frames
 */
const place = (start, frames) => ({ left: `${start * PX}px`, width: `${frames * PX}px` });

/** @param {{from: number, to: number}} props visible pixels */
function Film({ from, to }) {
  state.growth.value;
  const { tree, store, id } = /** @type {import('../take.js').Take} */ (current);
  const chunks = path.value.map((chunk) => /** @type {Chunk} */ (tree.chunks.get(chunk)));
  const visible = chunks.filter((chunk) => end(chunk) * PX > from - MARGIN && chunk.start_frame * PX < to + MARGIN);
  return visible.map(
    (chunk) =>
      html`<span key=${chunk.chunk} class="cell" style=${place(chunk.start_frame, chunk.num_frames)}>
        <${Thumb} take=${id} chunk=${chunk.chunk} whole=${!store.arriving(chunk.chunk)} />
      </span>`,
  );
}

/** Cues that wait, where they will show. */
function Pending() {
  state.growth.value;
  const { tree } = /** @type {import('../take.js').Take} */ (current);
  if (path.value.at(-1) !== tree.head) return null;
  const last = tree.chunks.get(tree.head ?? -1);
  const size = last?.num_frames ?? 12;
  return tree.pending.map((cue) => {
    const start = end(last) + Math.max(0, cue.due - (last?.index ?? -1) - 1) * size;
    const words = cue.words ?? 'a picture';
    return html`<span key=${cue.cue} class="span pending" style=${place(start, PENDING_FRAMES)}>
      <span class="label"><${Icon} name="clock" />${words}<span class="hidden"> (accepted, not shown yet)</span></span>
    </span>`;
  });
}

/**
 * The left edge of a span, to be dragged: its words from there on, on a branch.
 * @param {{from: number, prompt: string}} props
 */
function Edge({ from, prompt }) {
  const [to, setTo] = useState(/** @type {number | null} */ (null));
  const { tree } = /** @type {import('../take.js').Take} */ (current);
  const starts = path.value.map((id) => /** @type {Chunk} */ (tree.chunks.get(id)).start_frame);
  /** @param {PointerEvent} event */
  const nearest = (event) => {
    const track = /** @type {HTMLElement} */ (/** @type {HTMLElement} */ (event.currentTarget).closest('.track'));
    const frame = (event.clientX - track.getBoundingClientRect().left) / PX;
    const distances = starts.map((start) => Math.abs(start - frame));
    return Math.max(1, distances.indexOf(Math.min(...distances))); // before the first chunk nothing is shared
  };
  /** @param {PointerEvent} event */
  const take = (event) => {
    /** @type {HTMLElement} */ (event.currentTarget).setPointerCapture(event.pointerId);
    setTo(from);
  };
  const drop = () => {
    if (to !== null && to !== from) current?.branch({ prompt }, path.value[to - 1]).catch(state.complain);
    setTo(null);
  };
  return html`<i class="edge" title="Drag: the same words from an earlier or a later point, on a branch"
      style=${{ left: `${starts[from] * PX}px` }}
      onPointerDown=${take}
      onPointerMove=${(/** @type {PointerEvent} */ event) => to !== null && setTo(nearest(event))}
      onPointerUp=${drop}
      onPointerCancel=${() => setTo(null)}></i>
    ${to !== null && html`<i class="branch-mark" style=${{ left: `${starts[to] * PX}px` }}><${Icon} name="branch" /></i>`}`;
}

/** @param {{onseek: () => void, onedit: (prompt: string) => void}} props */
function Track({ onseek, onedit }) {
  state.growth.value;
  const { tree, player } = /** @type {import('../take.js').Take} */ (current);
  const prompts = tree.prompts;
  return tree.spans(path.value).map(({ prompt, from, to }) => {
    const first = /** @type {Chunk} */ (tree.chunks.get(path.value[from]));
    const left = first.start_frame * PX;
    const width = end(tree.chunks.get(path.value[to - 1])) * PX - left;
    const seek = () => {
      onseek();
      player.pause();
      player.seek(first.start_frame);
    };
    const button = html`<button
      key=${from}
      class="span ${hue(prompts, prompt)}"
      style=${{ left: `${left}px`, width: `${width}px` }}
      title="${prompt} (double click: change it from here)"
      onClick=${seek}
      onDblClick=${() => onedit(prompt)}
    >
      <span class="label">${prompt}</span>
    </button>`;
    if (from === 0 || tree.ended) return button;
    return [button, html`<${Edge} key="edge ${from}" from=${from} prompt=${prompt} />`];
  });
}

/** Where a branch would begin. */
function BranchMark() {
  state.playback.value; // it moves
  if (!current || !(state.scrubbed.value || state.over.value)) return null;
  const { frame } = current.branchPoint();
  return html`<i class="branch-mark" style=${{ left: `${frame * PX}px` }}><${Icon} name="branch" /></i>`;
}

function Ruler() {
  const fps = current?.tree.opened?.fps ?? 16;
  state.growth.value;
  const seconds = Math.ceil(end(current?.tree.chunks.get(path.value.at(-1) ?? -1)) / fps);
  const marks = Array.from({ length: Math.floor(seconds / 2) + 1 }, (_, place) => place * 2);
  return marks.map(
    (second) =>
      html`<span key=${second} class="mark-s" style=${{ left: `${second * fps * PX}px` }}>
        ${timecode(second).slice(0, 5)}
      </span>`,
  );
}

/** @param {{onedit: (prompt: string) => void}} props */
export function Timeline({ onedit }) {
  const scroller = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [window, setWindow] = useState({ from: 0, to: 1600 });
  const [following, setFollowing] = useState(true);
  state.growth.value;
  const last = current?.tree.chunks.get(path.value.at(-1) ?? -1);
  const width = end(last) * PX + ROOM;

  const look = () => {
    const box = scroller.current;
    if (box) setWindow({ from: box.scrollLeft, to: box.scrollLeft + box.clientWidth });
  };
  useEffect(() => {
    look();
    addEventListener('resize', look);
    return () => removeEventListener('resize', look);
  }, []);

  const follow = () => setFollowing(true);
  const stray = () => setFollowing(false);
  return html`<section class="timeline" aria-label="Timeline">
    <div class="scroller" ref=${scroller} onScroll=${look} onWheel=${stray} onTouchMove=${stray}>
      <div class="reel" style=${{ width: `${width}px` }}>
        <div class="ruler" aria-hidden="true"><${Ruler} /></div>
        <div class="film"><${Film} ...${window} /><${Scrub} onseek=${follow} /></div>
        <div class="track" role="group" aria-label="Prompts">
          <${Track} onseek=${follow} onedit=${onedit} /><${Pending} />
        </div>
        <${BranchMark} />
        <${Playhead} scroller=${scroller} following=${following} />
      </div>
    </div>
    ${!following && html`<button class="quiet back" onClick=${follow}>Back to the playhead</button>`}
  </section>`;
}
