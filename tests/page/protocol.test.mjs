import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load, pack, record } from './fakes.mjs';

const { RecordReader, subprotocols, unpack } = await load('protocol.js');
const frame = { type: 'frame', n: 7, chunk: 1, k: 0, frame: 4 };

test('a binary message is its event and its bytes', () => {
  const { event, bytes } = unpack(pack(frame, new Uint8Array([1, 2, 3])));
  assert.deepEqual(event, frame);
  assert.deepEqual([...bytes], [1, 2, 3]);
});

test('a message that is shorter than it says is refused', () => {
  assert.throws(() => unpack(pack(frame).subarray(0, 9)), RangeError);
});

test('records are whole however the network cuts them', () => {
  const all = [record(frame, new Uint8Array([9])), record({ type: 'ended', n: 8 }), record({ ...frame, n: 9 })];
  const stream = Uint8Array.from(all.flatMap((one) => [...one]));
  for (let size = 1; size < stream.length; size += 7) {
    const reader = new RecordReader();
    const events = [];
    for (let at = 0; at < stream.length; at += size) events.push(...reader.push(stream.subarray(at, at + size)));
    assert.deepEqual(
      events.map(({ event, bytes }) => [event.n, bytes.length]),
      [
        [7, 1],
        [8, 0],
        [9, 0],
      ],
    );
  }
});

test('a key travels as a name that sockets allow', () => {
  assert.deepEqual(subprotocols(null), ['longtake.v2']);
  const [version, key] = subprotocols('sécret?>');
  assert.equal(version, 'longtake.v2');
  assert.match(key, /^key\.[A-Za-z0-9_-]+$/);
  assert.equal(Buffer.from(key.slice(4), 'base64url').toString(), 'sécret?>');
});
