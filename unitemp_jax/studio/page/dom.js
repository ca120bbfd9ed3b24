// Small helpers: elements, addresses, keyed lists, requests.

export const $ = (id) => document.getElementById(id);

/** An element with properties (`data-...` and `aria-...` as attributes). */
export function make(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name.includes('-') || name === 'for') made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Keeps one child per item, so that focus and pictures stay. */
export function listed(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((one) => [one.dataset.key, one]));
  items.forEach((item, index) => {
    const name = String(key(item, index));
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = create(item, index);
      child.dataset.key = name;
    }
    if (parent.children[index] !== child) {
      parent.insertBefore(child, parent.children[index] ?? null);
    }
    update?.(child, item, index);
  });
  for (const child of old.values()) child.remove();
}

/** Puts an element over frames low..high of a timeline of so many. */
export function place(element, low, high, frames) {
  element.style.left = `${100 * low / frames}%`;
  element.style.width = `${100 * (high - low + 1) / frames}%`;
}

/** The whole number of a field, within its limits. */
export function whole({ value, min, max }) {
  const low = Number(min || 0);
  return Math.min(Math.max(Math.round(Number(value)) || 0, low), Number(max || 1e5));
}

export function say(sentence) {
  $('toast').textContent = sentence;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $('toast').textContent = ''; }, 9000);
}

/** Asks the server; throws its sentence if it refuses. */
export async function ask(path, body, raw = false) {
  const about = body === undefined ? {} : {
    method: 'POST',
    body: raw ? body : JSON.stringify(body),
    // So that a page that is left has saved; browsers allow 64 KiB of it.
    keepalive: typeof body === 'string' && body.length < 3e4,
  };
  const answer = await fetch(path, about);
  const found = await answer.json().catch(() => ({ error: 'The server is busy; try again.' }));
  if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
  return found;
}
