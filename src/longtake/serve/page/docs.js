// openapi.json as a page: a row a route, with what it takes and what it answers.

/** @typedef {Record<string, any>} Json what openapi.json holds */
/** @typedef {Record<string, {schema?: Json, example?: Json}>} Content schemas by media type */

const GROUPS = [
  ['Live takes', '/api/takes'],
  ['Uploads', '/api/assets'],
  ['Videos of a length, as OpenAI’s clients speak', '/v1/'],
  ['About the server', '/'],
];
const routes = /** @type {HTMLElement} */ (document.getElementById('routes'));

/** @param {string} name @param {string} [text] @param {...(Node | string)} children */
function element(name, text = '', ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

/** A schema with its references filled in, three levels deep: enough to read, and never endless.
 * @param {any} schema @param {Json} spec @param {number} depth @returns {any} */
function whole(schema, spec, depth = 3) {
  if (!schema || typeof schema !== 'object') return schema;
  if (Array.isArray(schema)) return schema.map((one) => whole(one, spec, depth));
  if (schema.$ref) {
    const name = schema.$ref.split('/').pop();
    return depth ? whole(spec.components.schemas[name], spec, depth - 1) : name;
  }
  return Object.fromEntries(Object.entries(schema).filter(([key]) => key !== 'title').map(([key, value]) => [key, whole(value, spec, depth)]));
}

/** @param {string} label @param {Content | undefined} content @param {Json} spec */
function schemas(label, content, spec) {
  return Object.entries(content ?? {})
    .filter(([, { schema }]) => schema && Object.keys(schema).length)
    .flatMap(([type, { schema, example = schema?.examples?.[0] }]) => [
      ...(example ? [element('p', 'For example'), element('pre', JSON.stringify(example, null, 1))] : []),
      element('p', `${label}, ${type}`),
      element('pre', JSON.stringify(whole(schema, spec), null, 1)),
    ]);
}

/** @param {string} path @param {string} method @param {Json} about @param {Json} spec */
function route(path, method, about, spec) {
  const summary = element('summary');
  const way = element('code', method.toUpperCase());
  way.className = 'method';
  const what = element('span', (about.description ?? about.summary ?? '').split('\n')[0]);
  what.className = 'what';
  summary.append(way, element('code', path), what);
  const details = element('details', '', summary);
  const parameters = about.parameters ?? [];
  if (parameters.length) {
    const list = element('dl');
    for (const one of parameters) {
      const kind = one.schema?.type ?? (one.schema?.enum ?? one.schema?.anyOf ?? []).map((/** @type {any} */ s) => s.type ?? s).join(' or ');
      list.append(element('dt', '', element('code', one.name)), element('dd', `${one.in}${one.required ? ', needed' : ''} ${kind}`));
    }
    details.append(list);
  }
  details.append(...schemas('Takes', about.requestBody?.content, spec));
  for (const [status, answer] of Object.entries(about.responses ?? {})) {
    if (status !== '422') details.append(...schemas(`Answers ${status}`, answer.content, spec));
  }
  return details;
}

/** @param {Json} spec */
function show(spec) {
  const left = Object.entries(spec.paths);
  const sections = GROUPS.map(([title, prefix]) => {
    const mine = left.filter(([path]) => path.startsWith(prefix));
    for (const one of mine) left.splice(left.indexOf(one), 1);
    const rows = mine.flatMap(([path, methods]) => Object.entries(methods).map(([method, about]) => route(path, method, about, spec)));
    return rows.length ? element('section', '', element('h2', title), ...rows) : '';
  });
  routes.replaceChildren(...sections);
}

export {}; // a module

fetch('openapi.json')
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`the server says ${answer.status}`))))
  .then(show)
  .catch((error) => (routes.textContent = `openapi.json cannot be read: ${error.message}`));
