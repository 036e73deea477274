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

/** Those there are, known when one has been allowed. @type {Signal<MediaDeviceInfo[]>} */
export const cameras = signal([]);

/** The id of the one that is on. */
export const chosenCamera = signal('');

/**
 * Ask for a camera and show it, in the place of the one before.
 * @param {string} [id] of one; any, if not given
 */
export async function openCamera(id) {
  const { mediaDevices } = navigator;
  try {
    const wanted = id ? { deviceId: { exact: id } } : {};
    const stream = await mediaDevices.getUserMedia({ video: { width: 640, height: 480, ...wanted } });
    const video = camera.value ?? Object.assign(document.createElement('video'), { muted: true, playsInline: true });
    stop(video);
    video.srcObject = stream;
    await video.play();
    camera.value = video;
    chosenCamera.value = stream.getVideoTracks()[0].getSettings().deviceId ?? '';
    cameras.value = (await mediaDevices.enumerateDevices()).filter(({ kind }) => kind === 'videoinput');
  } catch (error) {
    const name = error instanceof DOMException ? error.name : '';
    const words = name === 'NotAllowedError' ? 'The browser was told not to share the camera.' : 'No camera was found.';
    state.complain(words);
  }
}

export function closeCamera() {
  stop(camera.value);
  camera.value = null;
}

/** @param {HTMLVideoElement | null} video */
function stop(video) {
  if (video?.srcObject instanceof MediaStream) for (const track of video.srcObject.getTracks()) track.stop();
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
