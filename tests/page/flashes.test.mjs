import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './fakes.mjs';

const { Flashes, luminance } = await load('flashes.js');
const CELLS = 144;
const FRAME_MS = 1000 / 16;

/** A picture of which a share is lighter than the rest. */
const picture = (value, share = 1) => Float32Array.from({ length: CELLS }, (_, i) => (i < share * CELLS ? value : 0.2));

/** Whether two seconds at 16 frames a second are said to flash. */
function flashes(frame) {
  const guard = new Flashes();
  return Array.from({ length: 32 }, (_, i) => guard.add(frame(i), i * FRAME_MS)).some(Boolean);
}

test('light and dark in turn, four times a second, flash; three times do not', () => {
  assert.equal(flashes((i) => picture(i % 4 < 2 ? 0.2 : 0.5)), true);
  assert.equal(flashes((i) => picture(i % 6 < 3 ? 0.2 : 0.5)), false);
});

test('small changes, small places, changes among bright ones and slow ones do not flash', () => {
  assert.equal(flashes((i) => picture(i % 2 ? 0.2 : 0.28)), false);
  assert.equal(flashes((i) => picture(i % 2 ? 0.2 : 0.9, 0.2)), false);
  assert.equal(flashes((i) => picture(i % 2 ? 0.82 : 0.98)), false);
  assert.equal(flashes((i) => picture(i / 32)), false);
});

test('after a leap nothing is compared with what was before it', () => {
  const guard = new Flashes();
  const said = Array.from({ length: 32 }, (_, i) => {
    guard.forget();
    return guard.add(picture(i % 2 ? 0.2 : 0.9), i * FRAME_MS);
  });
  assert.equal(said.some(Boolean), false);
});

test('white is as light as can be, and green lighter than blue', () => {
  const [white, green, blue, black] = luminance([255, 255, 255, 255, 0, 255, 0, 255, 0, 0, 255, 255, 0, 0, 0, 255]);
  assert.ok(Math.abs(white - 1) < 1e-6);
  assert.ok(green > 0.7 && blue < 0.1 && black === 0);
});
