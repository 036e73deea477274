import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './fakes.mjs';

const { keepMarks, marked, readMarks } = await load('marks.js');

function storage() {
  const kept = new Map();
  return {
    kept,
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => kept.set(key, value),
    removeItem: (key) => kept.delete(key),
  };
}

test('what is noted of a branch is kept for its take, and nothing of one that says nothing', () => {
  const place = storage();
  const marks = marked(marked({}, 2, { starred: true }), 2, { name: 'the good one' });
  assert.deepEqual(marks, { 2: { starred: true, name: 'the good one' } });
  keepMarks('one', marks, place);
  assert.deepEqual(readMarks('one', place), marks);
  assert.deepEqual(readMarks('other', place), {});
  const none = marked(marked(marks, 2, { starred: false }), 2, { name: '' });
  assert.deepEqual(none, {});
  keepMarks('one', none, place);
  assert.equal(place.kept.size, 0);
});

test('a browser that keeps nothing, or something else, is no fault', () => {
  const closed = () => {
    throw new Error('denied');
  };
  assert.deepEqual(readMarks('one', { getItem: closed }), {});
  assert.deepEqual(readMarks('one', { getItem: () => '{not json' }), {});
  assert.doesNotThrow(() => keepMarks('one', { 0: { starred: true } }, { setItem: closed, removeItem: closed }));
});
