import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { bytesOf, chunk, FakeDecoder, framesOf, load, NUM_FRAMES, opened, turn } from './fakes.mjs';

const { FrameStore } = await load('store.js');
const { Player } = await load('player.js');
const { Tree } = await load('tree.js');

const FRAME_MS = 100;

let clock;
let tree;
let store;
let player;
let decoder;
let drawn;
let seen;
let fetched;

beforeEach(() => {
  [clock, drawn, seen, fetched] = [0, [], [], []];
  tree = new Tree();
  tree.add(opened);
  store = new FrameStore({
    fetch: async (id) => {
      fetched.push(id);
      return framesOf(id);
    },
    keep: 1000,
  });
  player = newPlayer();
});

function newPlayer() {
  return new Player({
    tree,
    store,
    decoder: (sink) => (decoder = new FakeDecoder(sink)),
    draw: ({ id, k }, frame) => drawn.push({ id, k, frame }),
    onseen: (id) => seen.push(id),
    now: () => clock,
  });
}

/** A chunk is announced, and some of its frames come. */
async function arrive(id, parent, index, { frames = NUM_FRAMES, ...more } = {}) {
  const event = chunk(id, parent, index, more);
  tree.add(event);
  store.expect(id, NUM_FRAMES);
  player.grew();
  for (let k = 0; k < frames; k += 1) store.put(id, k, bytesOf(id, k));
  await turn();
}

/** Time goes by, in the steps of a screen. */
async function pass(ms) {
  for (let step = 0; step < ms; step += 20) {
    clock += 20;
    player.tick();
    await turn();
  }
}

const frames = () => drawn.map(({ frame }) => frame);
const upTo = (stop) => Array.from({ length: stop }, (_, frame) => frame);

async function threeChunks() {
  await arrive(0, null, 0);
  await arrive(1, 0, 1);
  await arrive(2, 1, 2);
}

test('every frame is drawn once, in order, at its time', async () => {
  await threeChunks();
  await pass(11 * FRAME_MS);
  assert.deepEqual(frames(), upTo(drawn.length));
  assert.ok(Math.abs(drawn.length - 11) <= 1, `${drawn.length} frames in eleven times a frame`);
});

test('it never runs ahead of what has come, and goes on when more comes', async () => {
  await arrive(0, null, 0, { frames: 2 });
  await pass(1000);
  assert.deepEqual(frames(), [0]); // one frame is no reserve
  store.put(0, 2, bytesOf(0, 2));
  store.put(0, 3, bytesOf(0, 3));
  await pass(1000);
  assert.deepEqual(frames(), upTo(4));
  assert.equal(player.view().starved, true);
  await arrive(1, 0, 1);
  await pass(1000);
  assert.deepEqual(frames(), upTo(8));
});

test('a chunk is reported once when it comes on the screen', async () => {
  await arrive(0, null, 0);
  await pass(200);
  await arrive(1, 0, 1);
  await pass(1000);
  assert.deepEqual(seen, [0, 1]);
});

test('a seek shows exactly that frame and leaves live', async () => {
  await threeChunks();
  for (const frame of [7, 2, 11, 0, 5, 5, 8]) {
    player.pause();
    player.seek(frame);
    await pass(20);
    assert.equal(drawn.at(-1).frame, frame);
    assert.deepEqual(player.position(), { chunk: Math.floor(frame / NUM_FRAMES), frame, live: false, playing: false });
  }
});

test('steps go one frame, over the borders of chunks, and stop at both ends', async () => {
  await threeChunks();
  player.seek(3);
  player.step(1);
  await pass(20);
  assert.equal(player.position().frame, 4);
  player.step(-1);
  await pass(20);
  assert.equal(player.position().frame, 3);
  player.step(-10);
  await pass(20);
  assert.equal(player.position().frame, 0);
  player.step(100);
  await pass(20);
  assert.equal(player.position().frame, 11);
});

test('a rewound take is shown from where the new branch begins', async () => {
  await threeChunks();
  player.goLive();
  await pass(100);
  tree.add({ type: 'head', branch: 1, chunk: 0, prompt: 'b' });
  player.grew();
  await arrive(3, 0, 1, { branch: 1 });
  await pass(2000);
  assert.deepEqual(player.path, [0, 3]);
  assert.equal(player.position().chunk, 3);
});

test('whoever looks at the past keeps their path when another branch grows', async () => {
  await threeChunks();
  player.pause();
  player.seek(1);
  tree.add({ type: 'head', branch: 1, chunk: 0, prompt: 'b' });
  await arrive(3, 0, 1, { branch: 1 });
  assert.deepEqual(player.path, [0, 1, 2]);
  player.goLive();
  await pass(2000);
  assert.deepEqual(player.path, [0, 3]);
});

test('another branch is shown at the same time of the take', async () => {
  await threeChunks();
  await arrive(3, 0, 1, { branch: 1 });
  player.pause();
  player.follow(2);
  player.seek(6);
  await pass(20);
  assert.deepEqual(drawn.at(-1), { id: 1, k: 2, frame: 6 });
  player.follow(3);
  await pass(20);
  assert.deepEqual(drawn.at(-1), { id: 3, k: 2, frame: 6 });
});

test('replay becomes live when it has caught up, and stops at the end of a branch that ended', async () => {
  await threeChunks();
  player.seek(0);
  await pass(2000);
  assert.equal(player.position().live, true);
  await arrive(3, 0, 1, { branch: 1 });
  player.follow(2);
  player.seek(8);
  player.play();
  await pass(2000);
  assert.deepEqual(player.position(), { chunk: 2, frame: 11, live: false, playing: false });
});

test('a loop plays its frames again and again', async () => {
  await threeChunks();
  player.pause();
  player.seek(3);
  await pass(20);
  player.loop(3, 5);
  drawn.length = 0;
  player.play();
  await pass(900);
  assert.deepEqual(frames().slice(0, 6), [4, 5, 3, 4, 5, 3]);
});

test('what was dropped is fetched again when it is wanted', async () => {
  store = new FrameStore({ fetch: store_fetch, keep: 4 * NUM_FRAMES });
  player = newPlayer();
  for (let id = 0; id < 10; id += 1) await arrive(id, id ? id - 1 : null, id);
  await pass(100);
  assert.ok(store.size <= 6 * NUM_FRAMES, `${store.size} frames are kept`);
  assert.deepEqual(store.frames(2), []);
  player.pause();
  player.seek(2 * NUM_FRAMES + 1);
  await pass(40);
  assert.ok(fetched.includes(2));
  assert.deepEqual(drawn.at(-1), { id: 2, k: 1, frame: 9 });
});

async function store_fetch(id) {
  fetched.push(id);
  return framesOf(id);
}

test('pictures that are no longer near are closed', async () => {
  for (let id = 0; id < 8; id += 1) await arrive(id, id ? id - 1 : null, id);
  for (let frame = 0; frame < 32; frame += 5) {
    player.seek(frame);
    await pass(40);
  }
  assert.ok(decoder.open <= 4 * NUM_FRAMES, `${decoder.open} pictures are open`);
  player.close();
  assert.equal(decoder.open, 0);
});

test('frames that still come are decoded from the first after a look elsewhere', async () => {
  await arrive(0, null, 0);
  await arrive(1, 0, 1);
  await arrive(2, 1, 2, { frames: 2 });
  player.goLive();
  await pass(100);
  player.seek(0);
  await pass(40);
  store.put(2, 2, bytesOf(2, 2));
  store.put(2, 3, bytesOf(2, 3));
  player.pause();
  player.seek(11);
  await pass(40);
  assert.deepEqual(drawn.at(-1), { id: 2, k: 3, frame: 11 });
});

test('a take that there is already can be watched from its beginning', async () => {
  for (let id = 0; id < 3; id += 1) tree.add(chunk(id, id ? id - 1 : null, id));
  player = newPlayer();
  player.seek(0);
  await pass(600);
  assert.deepEqual(frames(), upTo(drawn.length));
  assert.ok(drawn.length > 3 && fetched.includes(0));
});
