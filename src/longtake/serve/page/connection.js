// The line to the server: tails the log of a take, every entry exactly once, through any number of cuts.

import { RecordReader, subprotocols, unpack } from './protocol.js';

/** @import { Command, Event } from './protocol.js' */

/**
 * @typedef {{name: 'connecting' | 'open' | 'lost' | 'refused' | 'closed', way: 'socket' | 'http',
 *   retryAt: number | null, message: string | null}} State `message` says why it was refused
 *
 * @typedef {object} Options
 * @property {string} path of the take: "/api/takes/..."
 * @property {URL} base
 * @property {string | null} key
 * @property {'h264' | 'jpeg'} frames
 * @property {number} after the number of the last entry that is known already; -1: none
 * @property {(event: Event, bytes: Uint8Array) => void} onevent
 * @property {(state: State) => void} onstate
 * @property {typeof WebSocket} [WebSocket]
 * @property {typeof fetch} [fetch]
 */

export const FIRST_WAIT_MS = 250;
export const LONGEST_WAIT_MS = 4000;
export const TRIES_BEFORE_HTTP = 2;
const REFUSED_CODES = 4400; // and above: close codes that mean what HTTP's mean
const SILENCE_MS = 8000; // after which the server is asked whether it is there, and again, after which it is not

export class Refusal extends Error {}

export class Connection {
  /** @type {State} */
  state = { name: 'connecting', way: 'socket', retryAt: null, message: null };
  #options;
  #after;
  #failures = 0; // attempts in a row that never opened
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {AbortController | null} */
  #stream = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watchdog;
  /** @type {Map<string, {resolve: (event: Event) => void, reject: (reason: Error) => void}>} */
  #waiting = new Map();
  #orders = 0;
  #name = Math.random().toString(36).slice(2, 8);
  #lastSeen = -1;
  #ended = false;

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.#after = options.after;
  }

  /** The number of the last entry that was handed on. */
  get after() {
    return this.#after;
  }

  open() {
    clearTimeout(this.#retry);
    const way = this.#failures % (TRIES_BEFORE_HTTP + 1) === TRIES_BEFORE_HTTP ? 'http' : 'socket';
    if (this.state.name !== 'lost') this.#become({ name: 'connecting', way });
    else this.#become({ name: 'lost', way });
    if (way === 'socket') this.#openSocket();
    else void this.#openStream();
  }

  close() {
    this.#become({ name: 'closed' });
    this.#waiting.clear(); // nobody is there to be told
    this.#drop();
  }

  /**
   * Send a command and wait for its answer.
   * @param {Command} command
   * @returns {Promise<Event>}
   */
  async send(command) {
    const event_id = `${this.#name}-${++this.#orders}`;
    const order = { ...command, event_id };
    if (!this.#socketOpen()) return this.#post(order);
    return new Promise((resolve, reject) => {
      this.#waiting.set(event_id, { resolve, reject });
      this.#socket?.send(JSON.stringify(order));
    });
  }

  /**
   * Send a command whose answer does not matter. While the line is cut it is dropped.
   * @param {Command} command
   */
  tell(command) {
    if (command.type === 'seen') this.#lastSeen = command.chunk;
    if (this.#socketOpen()) this.#socket?.send(JSON.stringify(command));
    else if (this.state.name === 'open') this.#post(command).catch(() => this.#cut());
  }

  /**
   * Send a picture of a live source.
   * @param {Blob} picture
   * @returns {boolean} whether it went: only a socket takes pictures
   */
  sendPicture(picture) {
    if (!this.#socketOpen()) return false;
    this.#socket?.send(picture);
    return true;
  }

  #socketOpen() {
    return this.state.name === 'open' && this.#socket !== null;
  }

  #openSocket() {
    const { base, path, frames, key } = this.#options;
    const url = below(base, `${path}/live?after=${this.#after}&frames=${frames}`);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new (this.#options.WebSocket ?? WebSocket)(url.href, subprotocols(key));
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    this.#listen(); // a handshake may hang as well
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      if (typeof data === 'string') this.#take(JSON.parse(data), new Uint8Array(0));
      else {
        const { event, bytes } = unpack(new Uint8Array(data));
        this.#take(event, bytes);
      }
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      if (code >= REFUSED_CODES) this.#refuse(new Refusal(reason || `The server refused the connection (${code}).`));
      else this.#cut();
    };
  }

  async #openStream() {
    const { path, frames } = this.#options;
    const stream = new AbortController();
    this.#stream = stream;
    try {
      const answer = await this.#fetch(`${path}/events?after=${this.#after}&frames=${frames}`, {
        signal: stream.signal,
      });
      if (answer.status >= 400 && answer.status < 500) return this.#refuse(await refusalOf(answer));
      if (!answer.ok) return this.#cut();
      this.#opened();
      const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
      const records = new RecordReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        for (const { event, bytes } of records.push(value)) this.#take(event, bytes);
      }
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof DOMException)) throw error; // others are not the network's
    }
    if (stream === this.#stream && !this.#ended) this.#cut();
  }

  #opened() {
    this.#failures = 0;
    this.#become({ name: 'open', way: this.#socket ? 'socket' : 'http' });
    this.#listen();
    if (this.#lastSeen >= 0) this.tell({ type: 'seen', chunk: this.#lastSeen });
  }

  /**
   * @param {Event} event
   * @param {Uint8Array} bytes
   */
  #take(event, bytes) {
    this.#listen();
    if ('n' in event) {
      if (event.n <= this.#after) return;
      if (event.n > this.#after + 1) return this.#cut(); // something is missing: ask for it again
      this.#after = event.n;
      if (event.type === 'ended') this.#ended = true;
    }
    if ('event_id' in event && event.event_id !== null) this.#answer(event.event_id, event);
    this.#options.onevent(event, bytes);
  }

  /**
   * @param {string} id
   * @param {Event} event
   */
  #answer(id, event) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (event.type === 'refused') waiting?.reject(new Refusal(event.message));
    else waiting?.resolve(event);
  }

  #listen() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#ask(), SILENCE_MS);
  }

  #ask() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#cut(), SILENCE_MS);
    if (this.state.name !== 'open') return this.#cut(); // it never opened
    const question = { type: /** @type {const} */ ('seen'), chunk: this.#lastSeen, event_id: `${this.#name}-there` };
    if (this.#lastSeen < 0)
      this.#listen(); // nothing to ask with before the first chunk was seen
    else if (this.#socketOpen()) this.#socket?.send(JSON.stringify(question));
    else
      this.#post(question).then(
        () => this.#listen(),
        () => this.#cut(),
      );
  }

  #cut() {
    if (this.state.name === 'closed' || this.state.name === 'refused') return;
    this.#drop();
    if (this.state.name !== 'open') this.#failures += 1;
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures);
    this.#become({ name: 'lost', retryAt: Date.now() + wait });
    this.#retry = setTimeout(() => this.open(), wait);
  }

  /** @param {Refusal} refusal */
  #refuse(refusal) {
    this.#drop();
    this.#become({ name: 'refused', message: refusal.message });
  }

  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#watchdog);
    const [socket, stream] = [this.#socket, this.#stream];
    this.#socket = this.#stream = null;
    socket?.close();
    stream?.abort();
    for (const { reject } of this.#waiting.values())
      reject(new Refusal('The connection was cut before the answer came.'));
    this.#waiting.clear();
  }

  /** @param {object} order */
  async #post(order) {
    const answer = await this.#fetch(`${this.#options.path}/commands`, { method: 'POST', body: JSON.stringify(order) });
    if (!answer.ok) throw await refusalOf(answer);
    const event = await answer.json();
    if (event.type === 'refused') throw new Refusal(event.message);
    return event;
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   */
  #fetch(path, init) {
    const { key, base } = this.#options;
    /** @type {Record<string, string>} */
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (init.body) headers['Content-Type'] = 'application/json';
    return (this.#options.fetch ?? fetch)(below(base, path).href, { ...init, headers });
  }

  /** @param {Partial<State>} change */
  #become(change) {
    this.state = { ...this.state, retryAt: null, message: null, ...change };
    this.#options.onstate(this.state);
  }
}

/**
 * The address of one of the server's paths, "/api/about" say.
 * @param {URL | string} base address of the server, with a slash at its end
 * @param {string} path
 * @returns {URL}
 */
export function below(base, path) {
  return new URL(path.replace(/^\//, ''), base);
}

/**
 * What a refused request says.
 * @param {Response} answer
 * @returns {Promise<Refusal>}
 */
export async function refusalOf(answer) {
  const fallback = `The server answered ${answer.status}.`;
  if (!answer.headers.get('content-type')?.includes('json')) return new Refusal(fallback);
  const body = await answer.json();
  return new Refusal(body.error?.message ?? fallback);
}
