import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';
import { FakeSocket, load, record, turn } from './fakes.mjs';

const { Connection, Refusal } = await load('connection.js');

let events;
let states;
let requests;
let answer;

function connect(more = {}) {
  const connection = new Connection({
    path: '/api/takes/t',
    base: new URL('http://studio.test/'),
    key: null,
    frames: 'h264',
    after: -1,
    onevent: (event) => events.push(event.n ?? event.type),
    onstate: ({ name }) => states.push(name),
    WebSocket: FakeSocket,
    fetch: async (url, init) => {
      requests.push({ url, ...init });
      return answer(url, init);
    },
    ...more,
  });
  connection.open();
  return connection;
}

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout', 'Date'] });
  FakeSocket.all = [];
  [events, states, requests] = [[], [], []];
  answer = () => {
    throw new TypeError('no network');
  };
});

test('entries come in order, and each once', () => {
  connect();
  FakeSocket.last.onopen();
  for (const n of [0, 1, 1, 0, 2]) FakeSocket.last.say({ type: 'chunk', n });
  assert.deepEqual(events, [0, 1, 2]);
});

test('after a cut it asks for what is missing and for nothing else', () => {
  const connection = connect();
  FakeSocket.last.onopen();
  for (const n of [0, 1]) FakeSocket.last.say({ type: 'chunk', n });
  FakeSocket.last.cut();
  assert.equal(connection.state.name, 'lost');
  mock.timers.tick(250);
  assert.match(FakeSocket.last.url, /^ws:\/\/studio\.test\/api\/takes\/t\/live\?after=1&/);
  FakeSocket.last.onopen();
  for (const n of [1, 2, 3]) FakeSocket.last.say({ type: 'chunk', n });
  assert.deepEqual(events, [0, 1, 2, 3]);
});

test('a gap in the numbers is a cut', () => {
  const connection = connect();
  FakeSocket.last.onopen();
  FakeSocket.last.say({ type: 'chunk', n: 0 });
  FakeSocket.last.say({ type: 'chunk', n: 2 });
  assert.equal(connection.state.name, 'lost');
  assert.deepEqual(events, [0]);
});

test('what a cut socket still says is not heard', () => {
  connect();
  const socket = FakeSocket.last;
  socket.onopen();
  socket.say({ type: 'chunk', n: 0 });
  socket.cut();
  socket.say({ type: 'chunk', n: 1 });
  assert.deepEqual(events, [0]);
});

test('the waits between attempts double up to four seconds', async () => {
  const connection = connect();
  FakeSocket.last.onopen();
  const waits = [];
  for (let attempt = 0; attempt < 7; attempt += 1) {
    if (connection.state.retryAt === null) FakeSocket.last.cut();
    waits.push(connection.state.retryAt - Date.now());
    mock.timers.tick(waits.at(-1));
    await turn();
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 4000, 4000]);
});

test('when the socket fails to open twice the events come over HTTP', async () => {
  answer = () => new Response(record({ type: 'chunk', n: 0 }));
  const connection = connect({ key: 'k' });
  FakeSocket.last.cut();
  mock.timers.tick(500);
  FakeSocket.last.cut();
  mock.timers.tick(1000);
  await turn();
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(requests[0].url, 'http://studio.test/api/takes/t/events?after=-1&frames=h264');
  assert.equal(requests[0].headers.Authorization, 'Bearer k');
  assert.deepEqual(events, [0]);
  assert.deepEqual(states, ['connecting', 'lost', 'lost', 'lost', 'lost', 'open', 'lost']);
  assert.equal(connection.state.way, 'http');
});

test('an answer goes to whoever gave the command', async () => {
  const connection = connect();
  FakeSocket.last.onopen();
  const first = connection.send({ type: 'pause' });
  const second = connection.send({ type: 'cue', change: 'x' });
  const [pause, cue] = FakeSocket.last.sent;
  FakeSocket.last.say({ type: 'refused', event_id: cue.event_id, code: 'input', message: 'too many' });
  FakeSocket.last.say({ type: 'done', event_id: pause.event_id });
  assert.equal((await first).type, 'done');
  await assert.rejects(second, new Refusal('too many'));
});

test('a command that a cut left without an answer is told so', async () => {
  const connection = connect();
  FakeSocket.last.onopen();
  const answered = connection.send({ type: 'pause' });
  FakeSocket.last.cut();
  await assert.rejects(answered, Refusal);
});

test('after a cut the server hears again what is on the screen', () => {
  const connection = connect();
  FakeSocket.last.onopen();
  connection.tell({ type: 'seen', chunk: 5 });
  FakeSocket.last.cut();
  mock.timers.tick(250);
  FakeSocket.last.onopen();
  assert.deepEqual(FakeSocket.last.sent, [{ type: 'seen', chunk: 5 }]);
});

test('a line that is silent and does not answer is cut', () => {
  const connection = connect();
  FakeSocket.last.onopen();
  connection.tell({ type: 'seen', chunk: 0 });
  mock.timers.tick(8000);
  const question = FakeSocket.last.sent.at(-1);
  assert.equal(question.type, 'seen');
  FakeSocket.last.say({ type: 'done', event_id: question.event_id });
  mock.timers.tick(8000);
  assert.equal(connection.state.name, 'open');
  mock.timers.tick(8000);
  assert.equal(connection.state.name, 'lost');
});

test('a take that is not there is refused, not tried for ever', () => {
  const connection = connect();
  FakeSocket.last.onopen();
  FakeSocket.last.cut(4404);
  mock.timers.tick(60_000);
  assert.equal(connection.state.name, 'refused');
  assert.equal(FakeSocket.all.length, 1);
});
