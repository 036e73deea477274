import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chunk, load, opened } from './fakes.mjs';

const { Tree } = await load('tree.js');
const point = (index) => ({ index, frame: index * 4, t: 0 });

function grown(...events) {
  const tree = new Tree();
  for (const event of [opened, ...events]) tree.add(event);
  return tree;
}

test('a branch shares the path before it', () => {
  const tree = grown(chunk(0, null, 0), chunk(1, 0, 1), chunk(2, 0, 1, { branch: 1 }), chunk(3, 2, 2, { branch: 1 }));
  assert.deepEqual(tree.path(1), [0, 1]);
  assert.deepEqual(tree.path(3), [0, 2, 3]);
  assert.equal(tree.newestAfter(0), 3);
  assert.equal(tree.newestAfter(1), 1);
  assert.deepEqual(
    [...tree.branches.values()].map(({ parent, tip, length }) => [parent, tip, length]),
    [
      [null, 1, 2],
      [0, 3, 2],
    ],
  );
});

test('chunks under the same words are one span', () => {
  const tree = grown(chunk(0, null, 0), chunk(1, 0, 1), chunk(2, 1, 2, { prompt: 'a, night falls' }));
  assert.deepEqual(tree.spans(tree.path(2)), [
    { prompt: 'a', from: 0, to: 2 },
    { prompt: 'a, night falls', from: 2, to: 3 },
  ]);
  assert.deepEqual(tree.prompts, ['a', 'a, night falls']);
});

test('a cue waits until it is applied or taken back', () => {
  const accepted = (cue) => ({
    type: 'accepted',
    n: 9,
    event_id: `e${cue}`,
    cue,
    words: 'night falls',
    accepted_at: point(1),
    due_at: point(3),
  });
  const tree = grown(chunk(0, null, 0), accepted(1), accepted(2), accepted(3));
  assert.deepEqual(
    tree.pending.map(({ cue, due }) => [cue, due]),
    [
      [1, 3],
      [2, 3],
      [3, 3],
    ],
  );
  tree.add({ type: 'applied', n: 10, event_id: 'e1', cue: 1, chunk: 3, at: point(3) });
  tree.add({ type: 'cancelled', n: 11, event_id: 'e2', cue: 2 });
  assert.deepEqual(
    tree.pending.map(({ cue }) => cue),
    [3],
  );
  assert.equal(tree.cues.get(1).chunk, 3);
});

test('the cues of a branch that was left do not wait on the new one', () => {
  const tree = grown(chunk(0, null, 0));
  tree.add({ type: 'accepted', n: 2, event_id: null, cue: 1, words: 'x', accepted_at: point(0), due_at: point(2) });
  tree.add({ type: 'head', n: 3, event_id: null, branch: 1, chunk: 0, prompt: 'b' });
  assert.deepEqual(tree.pending, []);
});
