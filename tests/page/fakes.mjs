// What stands in for the browser and the server in these tests.

const page = new URL('../../src/longtake/serve/page/', import.meta.url);

/** A module of the page. */
export const load = (name) => import(new URL(name, page).href);

/** A binary message as the server makes it. */
export function pack(event, bytes = new Uint8Array(0)) {
  const json = new TextEncoder().encode(JSON.stringify(event));
  const message = new Uint8Array(4 + json.length + bytes.length);
  new DataView(message.buffer).setUint32(0, json.length, true);
  message.set(json, 4);
  message.set(bytes, 4 + json.length);
  return message;
}

/** A record of `/events` and `.frames`. */
export function record(event, bytes) {
  const message = pack(event, bytes);
  const framed = new Uint8Array(4 + message.length);
  new DataView(framed.buffer).setUint32(0, message.length, true);
  framed.set(message, 4);
  return framed;
}

export const opened = {
  type: 'opened',
  n: 0,
  fps: 10,
  width: 160,
  height: 96,
  codec: 'avc1',
  lead: 3,
  prompt: 'a',
  model: 'm',
};
export const NUM_FRAMES = 4;

/** A chunk of the log; the frames of all chunks are numbered through on their path. */
export const chunk = (id, parent, index, more = {}) => ({
  type: 'chunk',
  n: id,
  chunk: id,
  parent,
  branch: 0,
  index,
  start_frame: index * NUM_FRAMES,
  num_frames: NUM_FRAMES,
  prompt: 'a',
  cues: [],
  made_at: 0,
  timings: {},
  ...more,
});

export const bytesOf = (id, k) => new Uint8Array([id, k]);
export const framesOf = (id) => Array.from({ length: NUM_FRAMES }, (_, k) => bytesOf(id, k));

/** Lets everything that waits for nothing but a turn go on. */
export const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A decoder that checks what a real one insists on: a chunk begins with its first frame and has no gaps. */
export class FakeDecoder {
  /** Pictures that were not closed. */
  open = 0;
  #last = null;

  constructor(sink) {
    this.sink = sink;
  }

  decode(id, k, bytes) {
    const follows = this.#last?.id === id && this.#last.k + 1 === k;
    if (k !== 0 && !follows) throw new Error(`frame ${k} of chunk ${id} came after ${JSON.stringify(this.#last)}`);
    if (bytes[0] !== id || bytes[1] !== k) throw new Error('those are the bytes of another frame');
    this.#last = { id, k };
    this.open += 1;
    queueMicrotask(() => this.sink.onpicture(id, k, { id, k, close: () => (this.open -= 1) }));
  }

  reset() {
    this.#last = null;
  }

  close() {}
}

/** Sockets that the test opens, feeds and cuts. */
export class FakeSocket {
  static all = [];
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.all.push(this);
  }

  static get last() {
    return FakeSocket.all.at(-1);
  }

  send(data) {
    this.sent.push(typeof data === 'string' ? JSON.parse(data) : data);
  }

  say(event) {
    this.onmessage({ data: JSON.stringify(event) });
  }

  cut(code = 1006) {
    this.onclose({ code, reason: '' });
  }

  close() {}
}
