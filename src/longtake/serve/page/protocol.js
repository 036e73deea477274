// The words on the wire, as docs/protocol.md tells them, and how bytes become words.

/**
 * @typedef {{index: number, frame: number, t: number}} Point the first frame of a chunk
 *
 * @typedef {{type: 'opened', n: number, model: string, prompt: string, seed: number, fps: number, width: number,
 *   height: number, codec: string, lead: number, source: 'frames' | 'video' | 'game' | null}} Opened
 * @typedef {{type: 'chunk', n: number, chunk: number, parent: number | null, branch: number, index: number,
 *   start_frame: number, num_frames: number, prompt: string, cues: number[], made_at: number,
 *   timings: Record<string, number>}} Chunk
 * @typedef {{type: 'frame', n: number, chunk: number, k: number, frame: number}} Frame
 * @typedef {{type: 'accepted', n: number, event_id: string | null, cue: number, words: string | null,
 *   accepted_at: Point, due_at: Point}} Accepted
 * @typedef {{type: 'applied', n: number, event_id: string | null, cue: number, chunk: number, at: Point}} Applied
 * @typedef {{type: 'cancelled', n: number, event_id: string | null, cue: number}} Cancelled
 * @typedef {{type: 'head', n: number, event_id: string | null, branch: number, chunk: number | null,
 *   prompt: string}} Head
 * @typedef {{type: 'ended', n: number, why: 'closed' | 'source' | 'failed' | 'length' | 'lost', message: string | null}} Ended
 * @typedef {{type: 'status', state: 'queued' | 'rebuilding' | 'running' | 'buffered' | 'paused' | 'waiting_for_input' | 'idle' |
 *   'ended', position: number | null, wait_s: number | null, rebuilt: number | null, viewers: number,
 *   dropped: number}} Status
 * @typedef {{type: 'done', event_id: string | null}} Done
 * @typedef {{type: 'refused', event_id: string | null, code: string, message: string}} Refused
 * @typedef {{type: 'credit', frames: number}} Credit
 *
 * @typedef {Opened | Chunk | Frame | Accepted | Applied | Cancelled | Head | Ended} Numbered
 * @typedef {Numbered | Status | Done | Refused | Credit} Event
 *
 * @typedef {'recache' | 'flush' | 'cut'} Transition
 * @typedef {{kind: 'frames'} | {kind: 'video', asset: string} | {kind: 'game', subject: string, place: string}} Source
 * @typedef {{type: 'open', prompt: string, seed?: number, image?: string, clip?: string, source?: Source,
 *   strength?: number}} Open
 * @typedef {'left' | 'right' | 'up' | 'down'} Key
 * @typedef {{type: 'cue', change?: string, prompt?: string, transition?: Transition, fade?: number, seed?: number,
 *   guidance?: number, image?: string}
 *   | {type: 'cancel', cue: number}
 *   | {type: 'rewind', to: number | null}
 *   | {type: 'retake', after: number | null, prompt?: string, change?: string, transition?: Transition,
 *      fade?: number, seed?: number, guidance?: number}
 *   | {type: 'pause'} | {type: 'resume'} | {type: 'close'}
 *   | {type: 'seen', chunk: number}
 *   | {type: 'keys', held: Key[]}} Command
 */

export const SUBPROTOCOL = 'longtake.v2';

const text = new TextDecoder();

/**
 * A binary message: the length of its JSON (32 bits, little-endian), the JSON, the bytes that follow.
 * @param {Uint8Array} message
 * @returns {{event: Event, bytes: Uint8Array}}
 */
export function unpack(message) {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  const end = 4 + view.getUint32(0, true);
  if (end > message.byteLength) throw new RangeError(`a message of ${message.byteLength} bytes claims ${end}`);
  return { event: JSON.parse(text.decode(message.subarray(4, end))), bytes: message.subarray(end) };
}

/** Records of `/events` and `.frames`, however the network cuts the bytes: each is a length and a binary message. */
export class RecordReader {
  #rest = new Uint8Array(0);

  /**
   * @param {Uint8Array} bytes
   * @returns {{event: Event, bytes: Uint8Array}[]} the records that are whole now
   */
  push(bytes) {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    const view = new DataView(all.buffer);
    const records = [];
    let at = 0;
    while (at + 4 <= all.length && at + 4 + view.getUint32(at, true) <= all.length) {
      const end = at + 4 + view.getUint32(at, true);
      records.push(unpack(all.subarray(at + 4, end)));
      at = end;
    }
    this.#rest = all.slice(at);
    return records;
  }
}

/**
 * What the browser offers of WebSockets is a list of names; a key goes as one of them.
 * @param {string | null} key
 * @returns {string[]}
 */
export function subprotocols(key) {
  if (!key) return [SUBPROTOCOL];
  const bytes = String.fromCharCode(...new TextEncoder().encode(key));
  const base64url = btoa(bytes).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  return [SUBPROTOCOL, `key.${base64url}`];
}
