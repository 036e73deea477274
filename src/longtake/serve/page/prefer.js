// Two films, an answer, the next two. Films begin together, and an answer counts once.

/** @typedef {{of: number, done: number, pair: number | null, prompt: string}} Question */
/** @typedef {'left' | 'right' | 'tie'} Choice */

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const progress = /** @type {HTMLProgressElement} */ (byId('progress'));
const sides = /** @type {const} */ (['left', 'right']);
const films = sides.map((side) => /** @type {HTMLVideoElement} */ (byId(side).querySelector('video')));
/** @type {Record<string, Choice>} */
const KEYS = { ArrowLeft: 'left', ArrowRight: 'right', ArrowDown: 'tie' };

/** @type {Question | null} */
let question = null; // the pair that is shown
let sending = false;

/** @param {string} path @param {object} [body] @returns {Promise<Question>} */
async function ask(path, body) {
  const options = body && { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  const answer = await fetch(path, options || {});
  if (!answer.ok) throw new Error((await answer.json()).error?.message ?? `the server says ${answer.status}`);
  return answer.json();
}

/** @param {Question} next */
function show(next) {
  question = next;
  progress.max = next.of;
  progress.value = next.done;
  byId('count').textContent = `${next.done} of ${next.of}`;
  const over = next.pair === null;
  for (const id of ['films', 'tie', 'again']) byId(id).hidden = over;
  byId('prompt').textContent = over ? '' : next.prompt;
  byId('message').textContent = over ? 'All pairs have an answer. Thank you. You can close this page.' : '';
  if (over) return;
  sides.forEach((side, i) => (films[i].src = `/films/${next.pair}/${side}`));
  Promise.all(films.map((film) => new Promise((ready) => film.addEventListener('canplaythrough', ready, { once: true })))).then(again);
}

function again() {
  for (const film of films) {
    film.currentTime = 0;
    film.play();
  }
}

/** @param {Choice} choice */
async function answer(choice) {
  if (sending || question === null || question.pair === null) return;
  sending = true;
  try {
    show(await ask('/vote', { pair: question.pair, choice }));
  } catch (error) {
    byId('message').textContent = `The answer was not saved: ${/** @type {Error} */ (error).message}. Answer once more.`;
  } finally {
    sending = false;
  }
}

for (const side of sides) byId(side).addEventListener('click', () => answer(side));
byId('tie').addEventListener('click', () => answer('tie'));
byId('again').addEventListener('click', again);
addEventListener('keydown', (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (KEYS[event.key]) {
    event.preventDefault();
    answer(KEYS[event.key]);
  } else if (event.key.toLowerCase() === 'r') again();
});

export {}; // a module

ask('/next').then(show, (error) => (byId('message').textContent = error.message));
