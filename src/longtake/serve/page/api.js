// Requests to the server, with the key if one is needed.

import { below, Refusal, refusalOf } from './connection.js';
import { RecordReader } from './protocol.js';

export const base = new URL('..', import.meta.url); // this script is base + "page/api.js"

/**
 * `#key=...` in the address; it is kept for this tab and taken out of the address.
 * @returns {string | null}
 */
function keyOfPage() {
  const given = new URLSearchParams(location.hash.slice(1)).get('key');
  if (given) {
    sessionStorage.setItem('longtake.key', given);
    history.replaceState(null, '', location.pathname + location.search);
  }
  return sessionStorage.getItem('longtake.key');
}

export const key = keyOfPage();

/**
 * @param {string} path
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 * @throws {Refusal} with what the server said
 */
export async function request(path, init = {}) {
  const headers = new Headers(init.headers);
  if (key) headers.set('Authorization', `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(below(base, path), { ...init, headers });
  } catch (error) {
    throw new Refusal('The server cannot be reached.', { cause: error });
  }
  if (!answer.ok) throw await refusalOf(answer);
  return answer;
}

/** @param {string} path */
export async function getJson(path) {
  return (await request(path)).json();
}

/**
 * @param {string} path
 * @param {object} body
 */
export async function postJson(path, body) {
  const headers = { 'Content-Type': 'application/json' };
  return (await request(path, { method: 'POST', headers, body: JSON.stringify(body) })).json();
}

/**
 * @param {Blob} file
 * @returns {Promise<{id: string, kind: 'image' | 'video'}>}
 */
export async function upload(file) {
  const headers = { 'Content-Type': file.type || 'application/octet-stream' };
  return (await request('/api/assets', { method: 'POST', headers, body: file })).json();
}

/**
 * The frames of a chunk.
 * @param {string} take
 * @param {number} chunk
 * @param {'h264' | 'jpeg'} frames
 */
export async function framesOf(take, chunk, frames) {
  const answer = await request(`/api/takes/${take}/chunks/${chunk}.frames?frames=${frames}`);
  return new RecordReader().push(new Uint8Array(await answer.arrayBuffer())).map(({ bytes }) => bytes);
}

const KEPT_PICTURES = 400;
/** @type {Map<string, Promise<string>>} */
const pictures = new Map();

/**
 * The address of a picture that an `img` can show: its own requests would carry no key.
 * @param {string} path
 * @returns {Promise<string>}
 */
export function picture(path) {
  const known = pictures.get(path) ?? request(path).then(async (answer) => URL.createObjectURL(await answer.blob()));
  pictures.delete(path);
  pictures.set(path, known);
  known.catch(() => pictures.delete(path));
  for (const [oldest, url] of pictures) {
    if (pictures.size <= KEPT_PICTURES) break;
    pictures.delete(oldest);
    url.then(URL.revokeObjectURL, () => {});
  }
  return known;
}

/**
 * Fetch a file and hand it to the person.
 * @param {string} path
 * @param {string} name
 */
export async function download(path, name) {
  save(await (await request(path)).blob(), name);
}

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
