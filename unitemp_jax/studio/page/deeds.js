// What a person does: with the timeline, with versions, with files.

import { $, address, ask, complain, say, whole } from './dom.js';
import { STEP } from './tracks.js';

const down = (frame) => STEP * Math.floor(frame / STEP);
const up = (frame) => STEP * Math.ceil(frame / STEP);
let page; // see studio.js

/**
 * Puts a version on the timeline, of which `parts` [first, last, at] stay;
 * `change` is given the timeline.
 */
function goOn(version, parts, change) {
  page.edit((line) => {
    const told = version.timeline
      ?? { prompts: [{ at: 0, text: version.prompt }] };
    const own = { loop: false, order: 'auto', sinks: '', pieces: [] };
    Object.assign(line, structuredClone(told), own);
    line.length = version.frames;
    line.prompts = line.prompts.filter((prompt) => prompt.text.trim());
    for (const prompt of line.prompts) prompt.link = false;
    for (const [first, last, at = first] of parts) {
      const piece = { source: version.name, at, first, last };
      if (last >= first) line.pieces.push(piece);
    }
    change?.(line);
    line.prompts = line.prompts.filter((p, k) => !k || p.at < line.length);
  });
  say('It is on the timeline: look at the plan, then generate.');
}

const control = (name) =>
  (version) => ask(page.file(version.name, name), {}).then(page.look);

const DEEDS = {
  extend(version) {
    const [before, after] = [whole($('before')), whole($('after'))];
    goOn(version, [[0, version.frames - 1, before]], (line) => {
      line.length += before + after;
      line.prompts.slice(1).forEach((prompt) => { prompt.at += before; });
    });
  },
  anew(version) {
    const [low, high] = [whole($('low')), whole($('high'))];
    const last = version.frames - 1;
    if (low > high || high > last) {
      say(`Make anew: frames ${low} to ${high} are no part of 0 to ${last}.`);
      return;
    }
    goOn(version, [[0, down(low - 1)], [up(high + 1), last]]);
  },
  keyframe(version) {
    pick((source, frames) => {
      const { block } = page.state;
      const at = STEP * Math.round(page.player.frame / STEP);
      const [low, high] = [at - block, at + up(frames - 1) + block];
      const piece = { source, at, first: 0, last: frames - 1 };
      goOn(version, [[0, low], [high, version.frames - 1]],
        (line) => line.pieces.push(piece));
    });
  },
  prompt(version) {
    const keep = down(page.player.frame);
    goOn(version, [[0, keep]], (line) => {
      line.prompts = line.prompts.filter((prompt) => prompt.at <= keep);
      line.prompts.push({ at: keep + 1, text: '', link: false });
    });
    $('prompts').querySelector('li:last-of-type .words').focus();
  },
  close(version) {
    goOn(version, [[0, version.frames - 1]], (line) => {
      line.length += 2 * page.state.block;
      line.loop = true;
    });
  },
  restore(version) {
    page.edit((line) => Object.assign(line, structuredClone(version.timeline)));
  },
  four: () => generate(4),
  undo: () => page.step('undo'),
  redo: () => page.step('redo'),
  play: () => page.player.toggle(),
  back: () => page.player.step(-1),
  on: () => page.player.step(1),
  addFile: () => pick(add(page.at)),
  addPrompt() {
    const { line } = page;
    const at = Math.max(1, Math.min(down(page.at) + 1, line.length - STEP));
    if (!line.prompts.some((prompt) => prompt.at === at)) {
      const link = line.order === 'scenes';
      page.edit(() => line.prompts.push({ at, text: '', link }));
    }
    const index = line.prompts.findIndex((prompt) => prompt.at === at);
    document.querySelectorAll('#prompts .words')[index]?.focus();
  },
  openBoard: () => $('board-file').click(),
  async saveBoard() {
    const { text } = await ask(address(page.project, 'save'), page.line);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text]));
    link.download = `${page.project}.yaml`;
    link.click();
  },
  async newProject() {
    const name = prompt('Name of the new project');
    if (name) openProject((await ask('api/projects', name)).project);
  },
  cancel: control('cancel'),
  resume: control('resume'),
  command: (version) => copy(version.command, 'The command'),
  async python(version) {
    const { text } = await ask(page.file(version.name, 'python'), {});
    await copy(text, 'The script');
  },
};

async function copy(text, what) {
  page.copied = text;
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} is copied; it makes the same frames.`);
  } catch { // Pages of other machines have no clipboard without TLS.
    $('copy').querySelector('textarea').value = text;
    $('copy').showModal();
    $('copy').querySelector('textarea').select();
  }
}

/** Uploads files, says what became of each; `then` is given what is there. */
async function give(files, then) {
  for (const one of files) {
    const most = page.state.upload_limit;
    const name = encodeURIComponent(one.name);
    if (one.size > most) {
      say(`${one.name} is too large: use at most ${most / 2 ** 20} MiB.`);
      continue;
    }
    try {
      const path = `${address(page.project, 'given')}?name=${name}`;
      const { source } = await ask(path, one);
      await page.look();
      const { frames } = page.state.given[source];
      then(source, 1 + down(frames - 1));
    } catch (error) { complain(error); }
  }
}

/** Lets a person choose files, and gives them. */
function pick(then) {
  $('file').onchange = async () => {
    await give([...$('file').files], then);
    $('file').value = '';
  };
  $('file').oncancel = () => page.draw();
  $('file').click();
}

/** Puts a piece where there is room, from a frame on. */
const add = (frame) => (source, frames) => page.edit((line) => {
  let at = Math.min(STEP * Math.round(frame / STEP), line.length - 1);
  if (at + frames > line.length) at = Math.max(0, down(line.length - frames));
  const { block } = page.state;
  if (at + frames > line.length) line.length = frames + 3 * block;
  line.pieces.push({ source, at, first: 0, last: frames - 1 });
});

async function generate(seeds) {
  if (generate.busy) return;
  generate.busy = true;
  page.follow = true;
  try {
    for (let k = 0; k < seeds; k += 1) {
      const line = { ...page.line, seed: page.line.seed + k };
      const path = address(page.project, 'generate');
      const { version } = await ask(path, line);
      if (!page.state.run && !k) page.chosen = version;
    }
    await page.look();
  } catch (error) { complain(error); }
  generate.busy = false;
}

const openProject = (name) => {
  location.search = `?project=${encodeURIComponent(name)}`;
};

function setEnds(chosen) {
  if (chosen === 'closed') {
    pick(add(page.line.length - 1));
    return;
  }
  page.edit((line) => {
    const inner = (p) => p.at && p.at + p.last - p.first < line.length - 1;
    line.loop = chosen === 'joined';
    if (chosen === 'open') line.pieces = line.pieces.filter(inner);
  });
}

/** What is typed or ticked in the row of a prompt, or removes it. */
function changePrompt({ target, type }) {
  const row = target.closest('li');
  const index = [...$('prompts').children].indexOf(row);
  const kind = type === 'input' ? `words ${index}` : undefined;
  page.edit(({ prompts, length }) => {
    const prompt = prompts[index];
    if (target.className === 'words') prompt.text = target.value;
    if (target.type === 'checkbox') prompt.link = target.checked;
    if (target.type === 'number' && !kind) {
      prompt.at = Math.max(1, Math.min(whole(target), length - 1));
      target.value = prompt.at;
    }
    if (target.localName === 'button') prompts.splice(index, 1);
  }, kind);
}

const CHANGES = {
  prompts: changePrompt,
  settings({ target }) {
    const { id, type, value } = target;
    if (id === 'ends') return setEnds(value);
    const found = type === 'number' ? whole(target) : value;
    return page.edit((line) => { line[id] = found; });
  },
  other() {
    page.other = $('other').value;
    page.draw();
    page.player.seek(page.player.frame);
  },
  project: () => openProject($('project').value),
  async 'board-file'({ target }) {
    const path = address(page.project, 'storyboard');
    const [file] = target.files;
    const sent = ask(path, file).finally(() => { target.value = ''; });
    const { timeline } = await sent;
    page.edit((line) => Object.assign(line, timeline));
  },
};

function press(event) {
  const { target, key } = event;
  if (key.toLowerCase() === 'z' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    page.step(event.shiftKey ? 'redo' : 'undo');
  }
  const typed = 'input:not([type=range], [type=checkbox]), select, textarea';
  const pressed = key === ' ' && target.closest('input, button, a, summary');
  const deed = { ' ': 'play', ',': 'back', '.': 'on' }[key];
  if (!deed || pressed || target.closest(typed)) return;
  event.preventDefault();
  DEEDS[deed]();
}

/** Lets a person do all this on a page. */
export function listen(own, tracks) {
  page = own;
  // What the server refuses is said, wherever it was asked.
  window.onunhandledrejection = (event) => {
    if (!event.reason.status) return;
    event.preventDefault();
    complain(event.reason);
  };
  document.onkeydown = press;
  document.onclick = (event) => {
    const { deed } = event.target.dataset;
    const again = event.detail > 1; // A double click is one.
    if (again && event.target.closest('#settings')) event.preventDefault();
    else DEEDS[deed]?.(page.version(page.chosen));
  };
  for (const [id, change] of Object.entries(CHANGES)) $(id).onchange = change;
  $('prompts').oninput = changePrompt;
  $('prompts').onclick = (event) => {
    if (event.target.localName === 'button') changePrompt(event);
  };
  $('versions').onclick = ({ target }) => {
    const item = target.closest('li');
    if (!item) return;
    [page.chosen, page.follow] = [item.dataset.key, false];
    page.draw();
  };
  $('settings').onsubmit = (event) => {
    event.preventDefault();
    generate(1);
  };
  const line = $('line');
  line.ondragover = (event) => {
    event.preventDefault();
    line.classList.add('dropping');
  };
  line.ondragleave = () => line.classList.remove('dropping');
  line.ondrop = (event) => {
    line.ondragleave(event.preventDefault());
    give([...event.dataTransfer.files], add(tracks.frameAt(event)));
  };
}
