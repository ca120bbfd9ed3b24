// The page: its state is the server's, its timeline everybody's.

import {
  $, address, ask, choices, complain, listed, place,
} from './dom.js';
import { listen } from './deeds.js';
import { Player } from './player.js';
import { Tracks } from './tracks.js';

const WAIT = 300; // ms between looks for what is new
const ALL = 10000; // ms until all is asked for, also what the server missed
const TOGETHER = 1500; // ms in which changes of a kind are undone together

const page = {
  project: new URLSearchParams(location.search).get('project'),
  state: null,
  line: null,
  edits: 0, // changes of the timeline here
  planned: -1, // of them, those in the plan that is shown
  unsaved: [], // timelines that the server does not have yet
  chosen: null, // name of the version that is shown
  other: '', // the one beside it
  at: 0, // frame of the timeline at which things are added

  get dirty() { return this.unsaved.length > 0; },

  /** What a piece is of: name, frames and a strip, given or a version. */
  source(name) {
    const given = this.state.given[name];
    const strip = given && address(this.project, 'given', name);
    if (given) return { ...given, strip };
    const frames = this.version(name)?.frames;
    return frames ? { name, frames, strip: this.file(name, 'strip') }
      : { name, frames: 1e9 };
  },

  version(name) { return this.state.versions.find((v) => v.name === name); },

  file(name, kind) { return address(this.project, 'versions', name, kind); },

  /** Changes the timeline; changes of one kind in a row are undone together. */
  edit(change, kind) {
    const before = JSON.stringify(this.line);
    change(this.line);
    this.line.prompts.sort((a, b) => a.at - b.at);
    if (JSON.stringify(this.line) === before) return;
    const line = structuredClone(this.line);
    const soon = Date.now() - this.last < TOGETHER;
    const same = Boolean(kind) && kind === this.kind && soon;
    if (same && this.dirty) this.unsaved.at(-1).line = line;
    else this.unsaved.push({ line, same });
    [this.kind, this.last] = [kind, Date.now()];
    this.edits += 1;
    draw();
  },

  /** Shows a frame; one that no video has yet is marked all the same. */
  seek(frame) {
    player.seek(frame);
    mark(Math.min(frame, this.line.length - 1));
  },

  /** Marks frames that are to be made anew. */
  choose(low, high) {
    $('span').hidden = false;
    this.span = [low, high];
    place($('span'), low, high, this.line.length);
    [$('low').value, $('high').value] = [low, high];
  },

  /** Undo or redo, after what is not saved yet. */
  step(way) {
    return inTurn(async () => {
      await save();
      this.kind = undefined;
      take((await ask(address(this.project, way), {})).timeline);
      await refresh();
    }).catch(fail);
  },

  draw,
  look,
};

const player = page.player = new Player((frame) => {
  $('head').value = frame;
  const seconds = (frame / player.fps).toFixed(2);
  $('where').textContent = `frame ${frame} of ${player.frames} · ${seconds} s`;
  $('now').hidden = player.frames < 2;
  move($('now'), (frame + 0.5) / player.frames);
  mark(frame);
});

function mark(frame) {
  page.at = frame;
  move($('needle'), (frame + 0.5) / (page.line?.length ?? 1));
}

function move(needle, part) {
  needle.style.transform = `translateX(${100 * part}%)`;
}

const tracks = new Tracks(page);

let turn = Promise.resolve();

/** Does one task after another, so that none meets another's half. */
function inTurn(task) {
  const mine = turn.then(task);
  turn = mine.catch(() => {});
  return mine;
}

/** Saves, sees what is new, and plans, now and again and again. */
function look() {
  return inTurn(async () => {
    await save();
    await refresh();
    if (page.planned !== page.edits) await plan();
  }).catch(fail).finally(() => {
    clearTimeout(look.timer);
    look.timer = setTimeout(look, WAIT);
  });
}

/** Says what went wrong; what nobody answered is asked again. */
function fail(error) {
  if (error.status !== 503) complain(error);
  if (error.status < 500) return;
  page.away = true;
  page.fits = false;
  page.planned = -1;
  if (page.line) draw();
}

/** Saves the timelines for all pages. */
async function save() {
  while (page.dirty) {
    const next = page.unsaved.shift();
    const path = address(page.project, 'timeline') + (next.same ? '?same' : '');
    await ask(path, next.line).catch((error) => {
      if (error.status >= 500) page.unsaved.unshift(next);
      throw error;
    });
  }
}

/** Asks what the timeline would make. */
async function plan() {
  const { edits } = page;
  const path = address(page.project, 'plan');
  const found = await ask(path, page.line).catch((error) => {
    if (error.status !== 422) throw error;
    return { error: error.message };
  });
  page.planned = edits;
  page.fits = !found.error;
  const open = page.line.prompts.some((p) => !p.text.trim() && !p.link);
  const first = !found.error ? '' : open ? 'hint' : 'wrong';
  const said = found.said ?? [found.error];
  // Anew, since what moves would be a shift of the layout.
  const key = (_, k) => `${k} ${said}`;
  listed($('verdict'), said, key, (one, sentence, k) => {
    one.textContent = sentence;
    one.className = k ? 'hint' : first;
  });
  tracks.plan(found.blocks ?? [], found.frames);
  const drawing = encodeURIComponent(found.svg ?? '');
  $('plan').querySelector('img').src = `data:image/svg+xml,${drawing}`;
  draw();
}

/** Shows a timeline that the server has. */
function take(line) {
  page.line = line;
  page.edits += 1;
}

/** Takes the server's state; the timeline too, unless it is being changed. */
async function refresh() {
  const { edits, state } = page;
  const fresh = state && Date.now() - page.asked < ALL;
  const seen = fresh && !page.away ? `?seen=${state.revision}` : '';
  const found = await ask(address(page.project, 'state') + seen);
  if (!found.revision) return;
  page.asked = Date.now();
  page.away = false;
  page.state = found;
  const finished = (one) =>
    one?.versions.filter((v) => v.state === 'done').length;
  if (finished(state) !== finished(found)) page.planned = -1; // Its time.
  const there = JSON.stringify(found.timeline);
  const untouched = !page.dirty && edits === page.edits;
  if (!page.line || (untouched && there !== JSON.stringify(page.line))) {
    take(found.timeline);
  }
  const { run, block } = found;
  if (!state) {
    [$('after').value, $('low').value] = [block, block + 1];
    $('high').value = 2 * block;
  }
  const mine = run?.project === page.project;
  if (mine && run.version !== state?.run?.version
      && (page.follow || !page.chosen)) {
    page.chosen = run.version;
  }
  if (!page.version(page.chosen)) {
    page.chosen = found.versions.at(-1)?.name ?? null;
  }
  draw();
}

function draw() {
  const { state, line } = page;
  document.body.classList.remove('loading');
  choices($('project'), state.projects, page.project);
  $('undo').disabled = !state.steps[0] && !page.dirty;
  $('redo').disabled = !state.steps[1];
  $('generate').disabled = $('four').disabled = !page.fits;
  const typed = document.activeElement.type === 'number'
    && document.activeElement;
  for (const id of ['length', 'order', 'sinks', 'decode', 'seed']) {
    if ($(id) !== typed) $(id).value = line[id];
  }
  const end = (p) => p.at + p.last - p.first === line.length - 1;
  const given = line.pieces.some((p) => p.at === 0 || end(p));
  $('ends').value = line.loop ? 'joined' : given ? 'closed' : 'open';
  tracks.draw();
  if (page.span) place($('span'), ...page.span, line.length);
  drawPrompts(typed);
  drawVersions();
  drawStage();
  drawActions();
  const { run, versions } = state;
  const waiting = versions.filter((v) => v.state === 'queued').length;
  const where = run && run.project !== page.project ? `${run.project} ` : '';
  const said = [];
  if (run) said.push(`${where}${run.version}: ${run.said}`);
  if (waiting) said.push(`${waiting} waiting`);
  $('said').textContent = page.away
    ? 'The server does not answer; waiting for it.' : said.join(' · ');
}

function drawPrompts(typed) {
  listed($('prompts'), page.line.prompts, (_, k) => k, (row, prompt, k) => {
    const [at, words, link] = row.querySelectorAll('input');
    const remove = row.querySelector('button');
    if (at !== typed) at.value = prompt.at;
    if (words.value !== prompt.text) words.value = prompt.text;
    at.disabled = remove.hidden = k === 0;
    link.checked = prompt.link;
    link.parentNode.hidden = page.line.order !== 'scenes';
    at.ariaLabel = `Prompt ${k + 1} from frame`;
    words.ariaLabel = `Prompt ${k + 1}`;
    remove.ariaLabel = `Remove prompt ${k + 1}`;
  });
}

function drawVersions() {
  listed($('versions'), page.state.versions, (v) => v.name, (item, one) => {
    const button = item.firstElementChild;
    const [picture, name, words] = button.children;
    const { state, timeline } = one;
    const done = state === 'done';
    const what = done ? `seed ${one.seed}` : state;
    button.ariaPressed = one.name === page.chosen;
    name.textContent = `${one.name} · ${what}`;
    words.textContent = one.prompt ?? timeline?.prompts[0]?.text ?? '';
    const poster = `url("${page.file(one.name, 'poster')}")`;
    if (done) picture.style.backgroundImage = poster;
  });
}

/** What the screen says while there is nothing to see. */
function nothing(one) {
  if (!one) return 'Describe the video, and generate it.';
  if (one.state === 'queued') return 'This version waits for its turn.';
  if (one.state === 'cancelled') return 'Cancelled; what is finished is kept.';
  return one.problem || '';
}

function drawStage() {
  const { state } = page;
  const [one, run] = [page.version(page.chosen), state.run];
  const [screen] = player.screens;
  const live = run?.project === page.project && run.version === one?.name;
  const done = one?.state === 'done';
  const about = { fps: state.fps, ...one };
  let parts = [];
  if (live) {
    const pictures = address(page.project, 'shown', one.name);
    const of = (k) => `${pictures}/${k}?${run.began}`;
    const { length } = one.timeline;
    screen.blocks(run.shown, of, length, state.fps, run.said);
    parts = run.shown.map(([first, count], k) => [first, count, of(k)]);
    const seen = `${run.began} ${parts.length}`;
    if (parts.length && page.seen !== seen && !player.playing) {
      player.seek(parts.at(-1)[0]);
    }
    page.seen = seen;
  } else if (done || one?.partial) {
    screen.file(page.file(one.name, 'mp4'), about);
    if (done) parts = [[0, one.frames, page.file(one.name, 'strip')]];
  } else {
    screen.clear(nothing(one));
  }
  tracks.film(parts);
  const other = done && page.version(page.other);
  const names = other ? `s ${one.name} and ${other.name}` : ` ${one?.name}`;
  const prompt = one?.prompt ? `: ${one.prompt}` : '';
  $('stage-title').textContent =
    one ? `Version${names}${prompt}` : 'Nothing shown yet';
  player.beside(other && page.file(other.name, 'mp4'), other);
  $('head').max = player.frames - 1;
  const drawn = `${page.chosen} ${one?.state}`;
  if (drawn === page.drawn) return;
  page.drawn = drawn;
  player.chart(one?.frame_difference, one?.boundary_frames);
  player.seek(Math.min(player.frame, player.frames - 1));
  const strip = $('versions');
  const pressed = strip.querySelector('[aria-pressed=true]');
  strip.scrollLeft = (pressed?.offsetLeft ?? 0) - strip.offsetLeft - 140;
}

function drawActions() {
  const one = page.version(page.chosen);
  const done = one?.state === 'done';
  $('go-title').textContent = one ? `Go on from ${one.name}` : 'Go on';
  $('facts').textContent = facts(one);
  $('parts').disabled = !done;
  for (const part of $('actions').querySelectorAll('[data-needs]')) {
    part.disabled = !one?.[part.dataset.needs];
  }
  for (const part of $('actions').querySelectorAll('[data-when]')) {
    part.hidden = !part.dataset.when.split(' ').includes(one?.state);
  }
  for (const link of $('actions').querySelectorAll('a')) {
    link.toggleAttribute('href', done);
    if (done) link.href = `${page.file(one.name, link.dataset.kind)}?save`;
  }
  const others = page.state.versions.filter(
    (v) => v.state === 'done' && v !== one).map((v) => v.name);
  if (!others.includes(page.other)) page.other = '';
  choices($('other'), ['', ...others], page.other, 'none');
}

function facts(one) {
  if (!one) return 'From a version, once there is one.';
  if (!one.frames) return one.problem || `It is ${one.state}.`;
  const { 'first block': first, generation } = one.timings ?? {};
  const times = first === undefined ? '' : ` First block after `
    + `${first.toFixed(1)} s, made in ${generation.toFixed(1)} s.`;
  return `${one.frames} frames, ${one.order}, seed ${one.seed}.${times}`;
}

listen(page, tracks);
look();
document.onvisibilitychange = () => { if (!document.hidden) look(); };
window.onresize = () => { if (page.line) tracks.draw(); };
window.onpagehide = () => {
  const last = page.unsaved.at(-1);
  const path = address(page.project, 'timeline');
  if (last) navigator.sendBeacon(path, JSON.stringify(last.line));
};
window.studio = page;
