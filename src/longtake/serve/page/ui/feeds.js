// The live sources of this page: the camera, and a board to draw on.

import * as state from '../state.js';
import { signal } from '../vendor/signals.js';

/** @import { Signal } from '../vendor/signals.js' */

/** @type {Signal<HTMLVideoElement | null>} */
export const camera = signal(null);

/** Why there can be no camera here; empty if there can. */
export const noCamera = navigator.mediaDevices
  ? ''
  : 'Browsers give a page the camera only over https or on localhost. An SSH tunnel to this machine does it.';

/** Ask for the camera and show it. */
export async function openCamera() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    const video = Object.assign(document.createElement('video'), { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    camera.value = video;
  } catch (error) {
    const name = error instanceof DOMException ? error.name : '';
    const words = name === 'NotAllowedError' ? 'The browser was told not to share the camera.' : 'No camera was found.';
    state.complain(words);
  }
}

export function closeCamera() {
  const stream = camera.value?.srcObject;
  if (stream instanceof MediaStream) for (const track of stream.getTracks()) track.stop();
  camera.value = null;
}

export const COLOURS = ['#7db7e8', '#5f9e57', '#c9a36a', '#8a8f98', '#f2efe6', '#e07a3f', '#c8433a', '#2b2d33'];
const BRUSH = 26;

/** What is drawn: sky above, ground below, to begin with. */
export const board = Object.assign(document.createElement('canvas'), { width: 480, height: 288, className: 'board' });
board.setAttribute('aria-label', 'Drawing board');
board.setAttribute('role', 'img');
export const colour = signal(COLOURS[5]);

const context = /** @type {CanvasRenderingContext2D} */ (board.getContext('2d'));

export function clearBoard() {
  context.fillStyle = COLOURS[0];
  context.fillRect(0, 0, board.width, board.height);
  context.fillStyle = COLOURS[1];
  context.fillRect(0, board.height * 0.64, board.width, board.height);
}

/** @param {PointerEvent} event */
function draw(event) {
  if (!event.buttons) return;
  const { left, top, width, height } = board.getBoundingClientRect();
  const [scaleX, scaleY] = [board.width / width, board.height / height];
  const [x, y] = [(event.clientX - left) * scaleX, (event.clientY - top) * scaleY];
  context.strokeStyle = colour.value;
  context.lineWidth = BRUSH;
  context.lineCap = 'round';
  context.beginPath();
  context.moveTo(x - event.movementX * scaleX, y - event.movementY * scaleY);
  context.lineTo(x, y);
  context.stroke();
}

clearBoard();
board.addEventListener('pointermove', draw);
board.addEventListener('pointerdown', (event) => {
  board.setPointerCapture(event.pointerId);
  draw(event);
});
