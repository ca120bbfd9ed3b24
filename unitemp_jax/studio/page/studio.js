// The page: its state is the server's, its timeline everybody's.

import { $, ask, listed, make, place, say, whole } from './dom.js';
import { Player } from './player.js';
import { STEP, Tracks } from './tracks.js';

const address = (...parts) => ['api', ...parts].map(encodeURIComponent).join('/');
const WAIT = 200; // ms after a change until it is saved
const AGAIN = 2000; // ms until what failed is tried again

const page = {
  project: new URLSearchParams(location.search).get('project'),
  state: null,
  line: null,
  edits: 0, // changes of the timeline here
  under_way: Promise.resolve(), // what is being saved
  chosen: null, // name of the version that is shown
  other: '', // the one beside it
  at: 0, // frame of the timeline at which things are added
  span: null, // frames that are marked, [low, high]

  /** What a piece is of: name, frames and a strip, given or a version. */
  source(name) {
    const given = this.state.given[name];
    if (given) return { ...given, strip: address(this.project, 'given', name) };
    const version = this.version(name);
    return { name, frames: version?.frames ?? 1e9, strip: version ? file(name, 'strip') : '' };
  },

  version(name) { return this.state.versions.find((one) => one.name === name); },

  /** Changes the timeline; changes of one kind in a row are undone together. */
  edit(change, kind) {
    const before = JSON.stringify(this.line);
    change(this.line);
    this.line.prompts.sort((a, b) => a.at - b.at);
    if (JSON.stringify(this.line) === before) return;
    const step = !kind || kind !== this.kind || Date.now() - this.last > 1500;
    if (step && this.dirty) save(JSON.parse(before));
    this.step ||= step;
    this.kind = kind;
    this.last = Date.now();
    this.edits += 1;
    this.dirty = true;
    draw();
    clearTimeout(this.saving);
    this.saving = setTimeout(() => { save(); plan(); }, WAIT);
  },

  /** Shows a frame; one that no video has yet is marked all the same. */
  seek(frame) {
    player.seek(frame);
    mark(Math.min(frame, this.line.length - 1));
  },

  choose(low, high) {
    this.span = [low, high];
    drawSpan();
    [$('low').value, $('high').value] = this.span;
  },
};

const file = (name, kind) => address(page.project, 'versions', name, kind);
const complain = (error) => say(error instanceof TypeError ? 'The server does not answer.' : error.message);
const player = new Player((frame) => {
  $('head').value = frame;
  const fps = player.fps;
  $('where').textContent = `frame ${frame} of ${player.frames} · ${(frame / fps).toFixed(2)} s`;
  mark(frame);
  player.needle();
});

function mark(frame) {
  page.at = frame;
  $('needle').style.transform = `translateX(${100 * (frame + 0.5) / (page.line?.length ?? 1)}%)`;
}

const tracks = new Tracks(page);

/** Whether asking once more has the same answer. */
const refused = (error) => error.status >= 400 && error.status < 500;

/** Saves the timeline for all pages, after what is being saved. */
function save(line = page.line) {
  const [body, about] = [JSON.stringify(line), page.step ? '' : '?same'];
  page.step = page.dirty = false;
  page.under_way = page.under_way
    .then(() => ask(address(page.project, 'timeline') + about, body, true))
    .catch((error) => {
      page.dirty = page.step = true;
      complain(error);
      if (refused(error)) return;
      clearTimeout(page.saving);
      page.saving = setTimeout(() => { if (page.dirty) save(); }, AGAIN);
    });
  return page.under_way;
}

/** Asks what the timeline would make. */
async function plan() {
  const [number, edits] = [plan.number = (plan.number ?? 0) + 1, page.edits];
  let found;
  try {
    found = await ask(address(page.project, 'plan'), page.line);
  } catch (error) {
    found = { error: error instanceof TypeError ? 'The server does not answer.' : error.message };
    if (!refused(error)) setTimeout(() => { if (number === plan.number) plan(); }, AGAIN);
  }
  if (number !== plan.number) return;
  page.planned = edits;
  verdict(found);
}

function verdict(found) {
  const box = $('verdict');
  page.fits = !found.error;
  $('generate').disabled = $('four').disabled = !page.fits;
  if (found.error) {
    const empty = page.line.prompts.some((one) => !one.text.trim() && !one.link);
    box.replaceChildren(make('p', { className: empty ? 'hint' : 'wrong', textContent: found.error }));
    tracks.plan([], 1);
    return;
  }
  const blocks = found.blocks.filter((block) => !block[2]).length;
  const { weights, cache, frames } = found.memory;
  const mib = (n) => `${(n / 2 ** 20).toFixed(n < 2 ** 23 ? 1 : 0)} MiB`;
  const time = found.seconds === null ? 'time known after the first video' : `about ${found.seconds.toFixed(found.seconds < 10 ? 1 : 0)} s, more where programs are compiled`;
  const own = ['window', 'size'].filter((name) => page.line[name]).map((name) => `${name} ${page.line[name]}`);
  if (page.line.anchors >= 0) own.push(`anchors ${page.line.anchors}`);
  const hint = (textContent) => make('p', { className: 'hint', textContent });
  box.replaceChildren(
    make('p', { textContent: `${found.frames} frames of ${found.width}×${found.height}, ${(found.frames / page.state.model.fps).toFixed(2)} s: ${blocks} block${blocks === 1 ? '' : 's'}, ${time}.` }),
    hint(`Memory: ${mib(weights + cache)} (model ${mib(weights)}, cache ${mib(cache)}), frames ${mib(frames)}.`),
    ...own.length ? [hint(`The storyboard's: ${own.join(', ')}.`)] : [],
    ...found.remarks.map((remark) => hint(`Note: ${remark}.`)),
  );
  tracks.plan(found.blocks, found.frames);
  $('plan').querySelector('img').src = `data:image/svg+xml,${encodeURIComponent(found.svg)}`;
}

/** Shows a timeline that the server has. */
function take(line) {
  page.line = line;
  page.edits += 1;
  plan();
}

const finished = () => page.state?.versions.filter((one) => one.state === 'done').length;

/** Takes the server's state; the timeline too, unless it is being changed. */
async function refresh() {
  if (refresh.busy) { refresh.again = true; return; }
  refresh.busy = true;
  try {
    page.project ??= (await ask('api/projects')).projects[0];
    const [before, made, edits] = [page.state?.run?.version, finished(), page.edits];
    await page.under_way;
    page.state = await ask(address(page.project, 'state'));
    const { run, timeline } = page.state;
    const { block } = page.state.model;
    if (!page.line) [$('after').value, $('low').value, $('high').value] = [block, block + 1, 2 * block];
    const fresh = !page.line || (!page.dirty && edits === page.edits);
    if (fresh && JSON.stringify(timeline) !== JSON.stringify(page.line)) take(timeline);
    else if (made !== finished()) plan(); // Its time is known better.
    const mine = run?.project === page.project;
    if (mine && run.version !== before && (!page.chosen || page.follow)) page.chosen = run.version;
    if (!page.version(page.chosen)) page.chosen = page.state.versions.at(-1)?.name ?? null;
    draw();
  } finally {
    refresh.busy = false;
    if (refresh.again) { refresh.again = false; refresh().catch(complain); }
  }
}

function draw() {
  const { state, line } = page;
  document.body.classList.remove('loading');
  listed($('project'), state.projects, (n) => n, (n) => make('option', { value: n, textContent: n }));
  $('project').value = page.project;
  $('undo').disabled = !state.steps[0] && !page.dirty;
  $('redo').disabled = !state.steps[1];
  const set = (id, value) => { if (document.activeElement !== $(id) || $(id).type === 'select-one') $(id).value = value; };
  for (const id of ['length', 'order', 'sinks', 'decode', 'seed']) set(id, line[id]);
  set('ends', ends());
  tracks.draw();
  drawPrompts();
  drawVersions();
  drawStage();
  drawActions();
  drawSpan();
  const { run } = state;
  const waiting = state.versions.filter((one) => one.state === 'queued').length;
  $('said').textContent = [run ? `${run.project === page.project ? '' : `${run.project} `}${run.version}: ${run.said}` : '', waiting ? `${waiting} waiting` : ''].filter(Boolean).join(' · ');
}

function ends() {
  const { line } = page;
  if (line.loop) return 'joined';
  const last = (p) => p.at + p.last - p.first === line.length - 1;
  return line.pieces.some((p) => p.at === 0 || last(p)) ? 'closed' : 'open';
}

function drawPrompts() {
  const scenes = page.line.order === 'scenes';
  listed($('prompts'), page.line.prompts, (_, k) => k, (_, k) => {
    const own = () => page.line.prompts[k];
    const at = make('input', { type: 'number', className: 'at', min: 0, 'aria-label': `Prompt ${k + 1} from frame` });
    at.onchange = () => {
      page.edit(() => { own().at = Math.max(1, Math.min(whole(at), page.line.length - 1)); });
      at.value = own().at;
    };
    const words = make('input', { className: 'words', maxLength: 5000, 'aria-label': `Prompt ${k + 1}`, placeholder: 'what is seen, such as: a red seven falls' });
    words.oninput = () => page.edit(() => { own().text = words.value; }, `words ${k}`);
    const link = make('input', { type: 'checkbox' });
    link.onchange = () => page.edit(() => { own().link = link.checked; });
    const remove = make('button', { textContent: 'Remove', 'aria-label': `Remove prompt ${k + 1}`, onclick: () => page.edit((line) => line.prompts.splice(k, 1)) });
    return make('li', {}, make('label', {}, 'from ', at), words, make('label', { className: 'check' }, link, 'transition'), remove);
  }, (row, prompt, k) => {
    const [at, words, link] = row.querySelectorAll('input');
    if (document.activeElement !== at) at.value = prompt.at;
    if (words.value !== prompt.text) words.value = prompt.text;
    at.disabled = k === 0;
    link.checked = prompt.link;
    link.parentNode.hidden = !scenes;
    row.lastChild.hidden = k === 0;
  });
}

function drawVersions() {
  listed($('versions'), page.state.versions, (one) => one.name, (one) => {
    const button = make('button', {}, make('span', { className: 'picture' }), make('b'), make('span', { className: 'words' }));
    button.onclick = () => { page.chosen = one.name; page.follow = false; draw(); };
    return make('li', {}, button);
  }, (item, one) => {
    const button = item.firstChild;
    const [picture, name, words] = button.children;
    button.setAttribute('aria-pressed', one.name === page.chosen);
    const seed = one.seed ?? one.timeline?.seed;
    name.textContent = `${one.name} · ${one.state === 'done' ? `seed ${seed}` : one.state}`;
    words.textContent = one.prompt ?? one.timeline?.prompts[0]?.text ?? '';
    if (one.state === 'done') picture.style.backgroundImage = `url("${file(one.name, 'poster')}")`;
  });
}

function drawStage() {
  const one = page.version(page.chosen);
  const run = page.state.run;
  const live = one && run?.project === page.project && run.version === one.name;
  const screen = player.screens[0];
  if (!one) {
    screen.clear('Describe the video, and generate it.');
    tracks.film('', [], null, 1);
  } else if (live) {
    const of = (k) => address(page.project, 'shown', one.name, k);
    screen.blocks(run.shown, of, one.timeline.length, page.state.model.fps, run.said);
    tracks.film('', run.shown, of, one.timeline.length);
    const latest = run.shown.at(-1);
    if (latest && page.seen !== `${one.name} ${run.shown.length}` && !player.playing) player.seek(latest[0]);
    page.seen = `${one.name} ${run.shown.length}`;
  } else if (one.state === 'done') {
    screen.file(file(one.name, 'mp4'), one);
    tracks.film(file(one.name, 'strip'), [], null, one.frames);
  } else {
    if (one.partial) screen.file(file(one.name, 'mp4'), { fps: page.state.model.fps, width: page.state.model.width });
    else screen.clear({ queued: 'This version waits for its turn.', cancelled: 'Cancelled; what is finished is kept.' }[one.state] ?? one.problem ?? '');
    tracks.film('', [], null, 1);
  }
  $('stage-title').textContent = one ? `Version ${one.name}${one.prompt ? `: ${one.prompt}` : ''}` : 'Nothing shown yet';
  const other = one?.state === 'done' && page.version(page.other);
  player.beside(Boolean(other));
  if (other) player.screens[1].file(file(other.name, 'mp4'), other);
  $('head').max = player.frames - 1;
  const drawn = `${page.chosen} ${one?.state}`;
  if (drawn !== page.drawn) {
    page.drawn = drawn;
    const strip = $('versions');
    strip.scrollLeft = (strip.querySelector('[aria-pressed=true]')?.offsetLeft ?? 0) - strip.offsetLeft - 140;
    player.chart(one?.frame_difference, one?.boundary_frames);
    player.seek(Math.min(player.frame, player.frames - 1));
  }
}

function drawSpan() {
  $('span').hidden = !page.span;
  if (page.span) place($('span'), ...page.span, page.line.length);
}

/** Puts the chosen version, or parts of it, on the timeline as what is given. */
function from(version, change) {
  page.edit((line) => {
    const told = version.timeline ?? { prompts: [{ at: 0, text: version.prompt }] };
    Object.assign(line, structuredClone(told), { loop: false, order: 'auto', sinks: '', length: version.frames });
    line.prompts = line.prompts.filter((prompt) => prompt.text.trim());
    line.prompts.forEach((prompt) => { prompt.link = false; });
    line.pieces = [];
    const part = (first, last, at = first) => { if (last >= first) line.pieces.push({ source: version.name, at, first, last }); };
    change(line, part);
    line.prompts = line.prompts.filter((prompt, k) => k === 0 || prompt.at < line.length);
  });
  say('It is on the timeline: look at the plan, then generate.');
}

const number = (id) => { $(id).value = whole($(id)); return Number($(id).value); };
const act = (name) => async (v) => ask(address(page.project, 'versions', v.name, name), {});
const DEEDS = {
  extend: (v) => from(v, (line, part) => {
    const [before, after] = [number('before'), number('after')];
    line.length += before + after;
    part(0, v.frames - 1, before);
    line.prompts.forEach((prompt, k) => { if (k) prompt.at += before; });
  }),
  anew: (v) => {
    const [low, high] = [number('low'), number('high')];
    if (low > high || high >= v.frames) throw new Error(`Make anew: frames ${low} to ${high} are no part of 0 to ${v.frames - 1}.`);
    from(v, (line, part) => {
      part(0, STEP * Math.floor((low - 1) / STEP));
      part(STEP * Math.ceil((high + 1) / STEP), v.frames - 1);
    });
  },
  keyframe: (v) => pick((source, frames) => from(v, (line, part) => {
    const [at, block] = [STEP * Math.round(player.frame / STEP), page.state.model.block];
    part(0, at - block);
    line.pieces.push({ source, at, first: 0, last: frames - 1 });
    part(at + STEP * Math.ceil((frames - 1) / STEP) + block, v.frames - 1);
  })),
  prompt: (v) => {
    const keep = STEP * Math.floor(player.frame / STEP);
    from(v, (line, part) => {
      part(0, keep);
      line.prompts = line.prompts.filter((prompt) => prompt.at <= keep);
      line.prompts.push({ at: keep + 1, text: '', link: false });
    });
    [...document.querySelectorAll('#prompts .words')].at(-1).focus();
  },
  close: (v) => from(v, (line, part) => {
    part(0, v.frames - 1);
    line.length += 2 * page.state.model.block;
    line.loop = true;
  }),
  restore: (v) => page.edit((line) => Object.assign(line, structuredClone(v.timeline))),
  cancel: act('cancel'),
  resume: act('resume'),
  command: (v) => copy(v.command, 'The command'),
  python: async (v) => copy((await act('python')(v)).text, 'The script'),
};

async function copy(text, what) {
  page.copied = text;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // Pages of other machines have no clipboard without TLS.
    const area = make('textarea', { value: text, readOnly: true, rows: 12, cols: 70, 'aria-label': what });
    const box = make('dialog', { onclose: () => box.remove() }, area, make('button', { textContent: 'Close', onclick: () => box.close() }));
    document.body.append(box);
    box.showModal();
    area.select();
    if (!document.execCommand('copy')) return; // It is there to be copied by hand.
    box.close();
  }
  say(`${what} is copied; it makes the same frames.`);
}

function drawActions() {
  const one = page.version(page.chosen);
  $('go-title').textContent = one ? `Go on from ${one.name}` : 'Go on';
  const times = one?.timings ? ` First block after ${one.timings['first block'].toFixed(1)} s, made in ${one.timings.generation.toFixed(1)} s.` : '';
  if (one) $('facts').textContent = one.frames ? `${one.frames} frames, ${one.order}, seed ${one.seed}.${times}` : one.problem ?? `It is ${one.state}.`;
  const done = one?.state === 'done';
  for (const button of $('actions').querySelectorAll('[data-needs]')) button.disabled = !one?.[button.dataset.needs];
  for (const button of $('actions').querySelectorAll('[data-when]')) button.hidden = !button.dataset.when.split(' ').includes(one?.state);
  for (const link of $('actions').querySelectorAll('a')) {
    if (done) link.href = `${file(one.name, link.dataset.kind)}?save`;
    else link.removeAttribute('href');
  }
  $('parts').disabled = !done;
  const others = page.state.versions.filter((v) => v.state === 'done' && v !== one).map((v) => v.name);
  listed($('other'), ['', ...others], (n) => n, (value) => make('option', { value, textContent: value || 'none' }));
  $('other').value = page.other = others.includes(page.other) ? page.other : '';
}

/** Uploads files and says what became of each. */
async function give(files) {
  const given = [];
  for (const one of files) {
    try {
      if (one.size > page.state.upload_limit) throw new Error(`${one.name} is too large: use at most ${page.state.upload_limit / 2 ** 20} MiB.`);
      const path = `${address(page.project, 'given')}?name=${encodeURIComponent(one.name)}`;
      given.push((await ask(path, one, true)).source);
    } catch (error) {
      complain(error);
    }
  }
  // A refresh under way may have asked before the files were there.
  do {
    await refresh();
    await new Promise((done) => { setTimeout(done, 30); });
  } while (!given.every((source) => page.state.given[source]));
  return given.map((source) => [source, 1 + STEP * Math.floor((page.state.given[source].frames - 1) / STEP)]);
}

/** Lets a person choose a file, and gives it. */
function pick(then) {
  $('file').onchange = async () => {
    for (const [source, frames] of await give([...$('file').files])) then(source, frames);
    $('file').value = '';
  };
  $('file').oncancel = draw;
  $('file').click();
}

/** Puts a piece where there is room, from a frame on. */
function add(frame) {
  return (source, frames) => page.edit((line) => {
    let at = Math.min(STEP * Math.round(frame / STEP), line.length - 1);
    if (at + frames > line.length) at = Math.max(0, STEP * Math.floor((line.length - frames) / STEP));
    if (at + frames > line.length) line.length = frames + 3 * page.state.model.block;
    line.pieces.push({ source, at, first: 0, last: frames - 1 });
  });
}

function listen() {
  for (const button of document.querySelectorAll('[data-deed]')) {
    button.onclick = () => Promise.resolve(page.version(page.chosen)).then(DEEDS[button.dataset.deed]).catch(complain);
  }
  $('other').onchange = () => {
    page.other = $('other').value;
    draw();
    player.seek(player.frame);
  };
  const value = (id, read) => { $(id).onchange = () => page.edit((line) => { line[id] = read($(id).value); }); };
  for (const id of ['order', 'sinks', 'decode']) value(id, String);
  for (const id of ['length', 'seed']) value(id, () => $(id).value = whole($(id)));
  $('ends').onchange = () => {
    const chosen = $('ends').value;
    if (chosen === 'closed') pick(add(page.line.length - 1));
    else page.edit((line) => { line.loop = chosen === 'joined'; if (chosen === 'open') line.pieces = line.pieces.filter((p) => p.at > 0 && p.at + p.last - p.first < line.length - 1); });
  };
  const generate = async (seeds) => {
    if (generate.busy) return;
    generate.busy = true;
    try {
      page.follow = true;
      for (let k = 0; k < seeds; k += 1) {
        const { version } = await ask(address(page.project, 'generate'), { ...page.line, seed: page.line.seed + k });
        if (!page.state.run && !k) page.chosen = version;
      }
    } catch (error) { complain(error); }
    generate.busy = false;
  };
  $('settings').onsubmit = (event) => { event.preventDefault(); generate(1); };
  // A double click is one.
  $('generate').onclick = (event) => { if (event.detail > 1) event.preventDefault(); };
  $('four').onclick = (event) => { if (event.detail < 2) generate(4); };
  for (const way of ['undo', 'redo']) {
    $(way).onclick = async () => {
      try {
        clearTimeout(page.saving);
        await (page.dirty ? save() : page.under_way);
        page.kind = undefined;
        if (page.dirty && way === 'redo') return;
        const unsaved = page.dirty; // Then that is the step that is undone.
        page.dirty = false;
        take(unsaved ? structuredClone(page.state.timeline) : (await ask(address(page.project, way), {})).timeline);
        draw();
      } catch (error) { complain(error); }
    };
  }
  $('add-file').onclick = () => pick(add(page.at));
  $('add-prompt').onclick = () => {
    const at = Math.max(1, Math.min(STEP * Math.floor(page.at / STEP) + 1, page.line.length - STEP));
    if (!page.line.prompts.some((p) => p.at === at)) page.edit((line) => line.prompts.push({ at, text: '', link: line.order === 'scenes' }));
    document.querySelectorAll('#prompts .words')[page.line.prompts.findIndex((p) => p.at === at)]?.focus();
  };
  $('project').onchange = () => { location.search = `?project=${encodeURIComponent($('project').value)}`; };
  $('new-project').onclick = async () => {
    const name = prompt('Name of the new project');
    if (name) ask('api/projects', name).then((made) => { location.search = `?project=${made.project}`; }, complain);
  };
  $('open-board').onclick = () => $('board-file').click();
  $('board-file').onchange = async () => {
    try {
      const { timeline } = await ask(address(page.project, 'storyboard'), $('board-file').files[0], true);
      page.edit((line) => Object.assign(line, timeline));
    } catch (error) { complain(error); }
    $('board-file').value = '';
  };
  $('save-board').onclick = async () => {
    try {
      const { text } = await ask(address(page.project, 'save'), page.line);
      const link = make('a', { href: URL.createObjectURL(new Blob([text])), download: `${page.project}.yaml` });
      link.click();
    } catch (error) { complain(error); }
  };
  const line = $('line');
  line.ondragover = (event) => { event.preventDefault(); line.classList.add('dropping'); };
  line.ondragleave = () => line.classList.remove('dropping');
  line.ondrop = async (event) => {
    event.preventDefault();
    line.classList.remove('dropping');
    const frame = tracks.frameAt(event);
    for (const [source, frames] of await give([...event.dataTransfer.files])) add(frame)(source, frames);
  };
  document.onkeydown = (event) => {
    if (event.key.toLowerCase() === 'z' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      $(event.shiftKey ? 'redo' : 'undo').click();
      return;
    }
    if (event.target.closest('input:not([type=range], [type=checkbox]), select, textarea')) return;
    if (event.key === ' ' && event.target.closest('input, button, a, summary')) return;
    const press = { ' ': 'play', ',': 'back', '.': 'on' }[event.key];
    if (press) { event.preventDefault(); $(press).click(); }
  };
}

/** Listens for changes while it is seen: browsers allow few streams a server. */
function connect() {
  clearTimeout(connect.again);
  connect.events?.close();
  if (document.hidden) return;
  const events = connect.events = new EventSource('api/events');
  events.onmessage = () => refresh().catch(fail);
  events.onopen = () => {
    if (page.dirty) save();
    if (page.line && !page.fits) plan();
  };
  events.onerror = () => {
    $('said').textContent = 'The server does not answer; waiting for it.';
    if (events.readyState === EventSource.CLOSED) connect.again = setTimeout(connect, AGAIN);
  };
}

/** Says what went wrong; without any state, lets another project be chosen. */
async function fail(error) {
  complain(error);
  if (page.state) return;
  clearTimeout(say.timer); // There is nothing else to be seen.
  document.body.classList.add('lost');
  const { projects } = await ask('api/projects').catch(() => ({ projects: [] }));
  listed($('project'), ['', ...projects], (n) => n, (n) => make('option', { value: n, textContent: n || 'choose one' }));
  $('project').value = '';
}

listen();
connect();
document.onvisibilitychange = () => {
  if (document.hidden && page.dirty) save();
  connect();
};
window.onresize = () => { if (page.line) tracks.draw(); };
window.onpagehide = () => { if (page.dirty) save(); };
window.studio = page;
