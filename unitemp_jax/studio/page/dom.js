// Small helpers: elements, keyed lists, requests.

export const $ = (id) => document.getElementById(id);

/**
 * Keeps one child per item, so that focus and pictures stay. New ones are
 * copies of what is in the parent's template.
 */
export function listed(parent, items, key, update) {
  const template = parent.querySelector('template');
  const old = new Map([...parent.children].map((c) => [c.dataset.key, c]));
  items.forEach((item, index) => {
    const name = String(key(item, index));
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = template.content.firstElementChild.cloneNode(true);
      child.dataset.key = name;
    }
    const there = parent.children[index];
    if (there !== child) parent.insertBefore(child, there);
    update(child, item, index);
  });
  for (const child of old.values()) if (child !== template) child.remove();
}

/** The options of a select, '' being called `none`. */
export function choices(select, names, chosen, none) {
  listed(select, names, (name) => name, (option, name) => {
    option.value = name;
    option.textContent = name || none;
  });
  select.value = chosen;
}

/** Puts an element over frames low..high of a timeline of so many. */
export function place(element, low, high, frames) {
  element.style.left = `${100 * low / frames}%`;
  element.style.width = `${100 * (high - low + 1) / frames}%`;
}

/** The whole number of a field, within its limits; shown there too. */
export function whole(field) {
  const { min, max } = field;
  const number = Math.round(Number(field.value)) || 0;
  field.value = Math.min(Math.max(number, min || 0), max || 1e5);
  return Number(field.value);
}

export function say(sentence) {
  $('toast').textContent = sentence;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $('toast').textContent = ''; }, 9000);
}

/** Says what a server has refused; all else is a fault of the page. */
export function complain(error) {
  if (!error.status) throw error;
  say(error.message);
}

export const address =
  (...parts) => ['api', ...parts].map(encodeURIComponent).join('/');

/** Asks the server; throws its sentence, and its status or 503. */
export async function ask(path, body) {
  const raw = body instanceof Blob || body === undefined;
  const about = raw ? { body } : { body: JSON.stringify(body) };
  if (body !== undefined) about.method = 'POST';
  // So that a page that is left has saved; browsers allow 64 KiB of it.
  about.keepalive = !raw && about.body.length < 3e4;
  const answer = await fetch(path, about).catch(() => ({ status: 503 }));
  const none = answer.statusText || 'The server does not answer.';
  const busy = () => ({ error: none });
  const found = answer.json ? await answer.json().catch(busy) : busy();
  if (answer.ok) return found;
  throw Object.assign(new Error(found.error), { status: answer.status });
}
