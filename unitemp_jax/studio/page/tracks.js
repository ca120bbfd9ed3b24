// The tracks of the timeline: what is given, prompts, the plan, the video.

import { $, listed, make, place } from './dom.js';

export const STEP = 4; // frames of a latent: what is given begins at a multiple

/** The colour of the k-th of n blocks, from blue to orange. */
export const colour = (k, n) => `hsl(${(216 + 162 * k / Math.max(n - 1, 1)) % 360} 55% 41%)`;

export class Tracks {
  /**
   * @param page has line, state, source(name), edit(change), seek(frame),
   *   choose(low, high).
   */
  constructor(page) {
    this.page = page;
    $('ruler').onpointerdown = (event) => this.page.seek(this.frameAt(event));
    const film = $('film');
    film.onpointerdown = (event) => {
      film.setPointerCapture(event.pointerId);
      this.from = this.frameAt(event);
      this.page.seek(this.from);
    };
    film.onpointermove = (event) => {
      if (this.from === undefined) return;
      const to = this.frameAt(event);
      if (Math.abs(to - this.from) > 1) {
        this.page.choose(Math.min(this.from, to), Math.max(this.from, to));
      }
    };
    film.onpointerup = () => { this.from = undefined; };
  }

  frameAt(event) {
    const box = $('tracks').getBoundingClientRect();
    const frame = Math.floor(this.frames * (event.clientX - box.left) / box.width);
    return Math.max(0, Math.min(frame, this.frames - 1));
  }

  get frames() { return this.page.line.length; }

  draw() {
    const { line, state } = this.page;
    $('tracks').style.width = `max(100%, ${3 * line.length}px)`;
    const fps = state.model.fps;
    const every = [1, 2, 4, 8, 12, 24, 48, 120, 240, 600, 1200, 6000, 24000].find((n) => line.length / n <= $('scroll').clientWidth / 90) ?? Math.ceil(line.length / 20);
    const marks = Array.from({ length: Math.ceil(line.length / every) }, (_, k) => k * every);
    listed($('ruler'), marks, (f) => `${f} ${fps}`, (f) => make('span', { textContent: `${f} · ${+(f / fps).toFixed(2)} s` }), (one, f) => place(one, f, f + every, line.length));
    listed($('pieces'), line.pieces, (p, k) => `${k} ${p.source}`, (_, k) => this.piece(k), (button, piece) => this.place(button, piece));
    const ends = line.prompts.map((p, k) => (line.prompts[k + 1]?.at ?? line.length) - 1);
    listed($('spans'), line.prompts, (_, k) => k, (_, k) => this.span(k), (one, prompt, k) => {
      one.textContent = prompt.text || (prompt.link ? 'transition' : 'say what is seen');
      one.classList.toggle('link', prompt.link);
      one.setAttribute('aria-label', `Prompt from frame ${prompt.at}: ${one.textContent}. ${k ? 'Arrow keys move its start.' : ''}`);
      place(one, prompt.at, ends[k], line.length);
    });
  }

  /** A prompt on its track; its start can be moved, but for the first one's. */
  span(index) {
    const button = make('button', { className: 'text' });
    const words = () => document.querySelectorAll('#prompts .words')[index]?.focus();
    this.moved(button, () => 'at', (_, by) => {
      const { prompts } = this.page.line;
      const [next, after] = [prompts[index].at + by, prompts[index + 1]?.at ?? this.frames];
      if (!index || next <= prompts[index - 1].at || next >= after) return false;
      this.page.edit((line) => { line.prompts[index].at = next; }, `prompt ${index}`);
      return true;
    }, words);
    return button;
  }

  /** Moves by mouse and arrow keys: `change(what, frames)` says if it did. */
  moved(button, what, change, clicked) {
    button.onkeydown = (event) => {
      const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
      if (!by) return;
      event.preventDefault();
      change(event.shiftKey ? 'last' : event.altKey ? 'first' : 'at', by);
    };
    let dragged = false;
    button.onpointerdown = (event) => {
      const part = what(event);
      let x = event.clientX;
      dragged = false;
      button.setPointerCapture(event.pointerId);
      button.onpointermove = (move) => {
        const wide = $('tracks').getBoundingClientRect().width / this.frames * STEP;
        const steps = Math.trunc((move.clientX - x) / wide);
        if (steps && change(part, steps * STEP)) { x += steps * wide; dragged = true; }
      };
      button.onpointerup = button.onpointercancel = () => { button.onpointermove = null; };
    };
    button.onclick = () => { if (!dragged) clicked?.(); };
  }

  piece(index) {
    const button = make('button', { className: 'piece' }, make('span'));
    const own = () => this.page.line.pieces[index];
    this.moved(button, (event) => {
      const box = button.getBoundingClientRect();
      const [left, right] = [event.clientX - box.left, box.right - event.clientX];
      if (own().last === own().first || box.width < 25) return 'at';
      return left < 9 ? 'first' : right < 9 ? 'last' : 'at';
    }, (what, by) => this.change(own(), what, by));
    const move = button.onkeydown;
    button.onkeydown = (event) => {
      move(event);
      if (event.key !== 'Delete' && event.key !== 'Backspace') return;
      event.preventDefault();
      this.page.edit((line) => line.pieces.splice(index, 1));
    };
    return button;
  }

  /** Moves a piece, or trims its first or last frames; within what there is. */
  change(piece, what, by) {
    const next = { ...piece };
    if (what === 'at') next.at += by;
    if (what === 'last') next.last += by;
    if (what === 'first') { next.first += by; next.at += by; }
    const most = this.page.source(piece.source).frames - 1;
    if (next.at < 0 || next.first < 0 || next.last > most || next.last < next.first) return false;
    if (next.at + next.last - next.first >= this.frames) return false;
    this.page.edit(() => Object.assign(piece, next), `${piece.source} ${what}`);
    return true;
  }

  place(button, piece) {
    const source = this.page.source(piece.source);
    const end = piece.at + piece.last - piece.first;
    place(button, piece.at, end, this.frames);
    const where = piece.at === end ? `frame ${end}` : `frames ${piece.at} to ${end}`;
    button.classList.toggle('one', piece.at === end);
    button.firstChild.textContent = source.name;
    button.title = `${source.name}, ${where}`;
    button.setAttribute('aria-label', `${source.name}, given at ${where}. Arrow keys move it, with Shift or Alt they trim its end or start, Delete removes it.`);
    button.style.backgroundImage = source.strip ? `url("${source.strip}")` : '';
  }

  /** Blocks `[low, high, given]` in the order of generation. */
  plan(blocks, frames) {
    const made = blocks.filter((block) => !block[2]).length;
    let k = 0;
    const numbered = blocks.map((block) => [...block, block[2] ? -1 : k++]);
    listed($('blocks'), numbered, (b) => b.join(' '), () => make('div', { className: 'block' }), (one, [low, high, given, n]) => {
      place(one, low, high, frames);
      one.classList.toggle('kept', given);
      one.style.background = given ? 'none' : colour(n, made);
      one.textContent = given ? '' : n + 1;
      one.title = given ? `given: frames ${low} to ${high}` : `made ${n + 1}. of ${made}: frames ${low} to ${high}`;
    });
  }

  /** The video's own track: a strip of it, or its blocks as they are made. */
  film(strip, shown, of, frames) {
    const parts = strip ? [[0, frames, strip]] : shown.map(([first, count], k) => [first, count, of(k)]);
    listed($('film'), parts, (part) => part.join(' '), ([, , src]) => make('img', { src, alt: '', draggable: false }), (one, [first, count]) => place(one, first, first + count - 1, this.frames));
  }
}
