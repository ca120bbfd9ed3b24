// The tracks of the timeline: what is given, prompts, the plan, the video.

import { $, listed, place } from './dom.js';

export const STEP = 4; // frames of a latent: what is given begins at a multiple

/** The colour of the k-th of n blocks, from blue to orange. */
const colour = (k, n) =>
  `hsl(${(216 + 162 * k / Math.max(n - 1, 1)) % 360} 55% 41%)`;

export class Tracks {
  /**
   * @param page has line, state, source(name), edit(change), seek(frame),
   *   choose(low, high).
   */
  constructor(page) {
    this.page = page;
    this.movable($('pieces'), (...what) => this.movePiece(...what));
    this.movable($('spans'), (...what) => this.moveSpan(...what));
    $('spans').onclick = ({ target }) => {
      const index = [...$('spans').children].indexOf(target);
      document.querySelectorAll('#prompts .words')[index]?.focus();
    };
    $('ruler').onpointerdown = (event) => page.seek(this.frameAt(event));
    $('film').onpointerdown = (event) => {
      $('film').setPointerCapture(event.pointerId);
      this.from = this.frameAt(event);
      page.seek(this.from);
    };
    $('film').onpointermove = (event) => {
      const [from, to] = [this.from, this.frameAt(event)];
      if (!$('film').hasPointerCapture(event.pointerId)) return;
      if (Math.abs(to - from) > 1) {
        page.choose(Math.min(from, to), Math.max(from, to));
      }
    };
  }

  frameAt(event) {
    const { left, width } = $('tracks').getBoundingClientRect();
    const frame = Math.floor(this.frames * (event.clientX - left) / width);
    return Math.max(0, Math.min(frame, this.frames - 1));
  }

  get frames() { return this.page.line.length; }

  /**
   * Moves the children of a track by mouse and arrow keys:
   * `change(index, part, frames)` moves all, the first or the last of one, and
   * says if it did.
   */
  movable(track, change) {
    const indexOf = ({ target }) =>
      [...track.children].indexOf(target.closest('button'));
    track.onkeydown = (event) => {
      const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
      const part = event.shiftKey ? 'last' : event.altKey ? 'first' : 'at';
      if (by) event.preventDefault();
      if (by) change(indexOf(event), part, by);
      const removes = event.key === 'Delete' || event.key === 'Backspace';
      if (!removes || track.id !== 'pieces') return;
      event.preventDefault();
      this.page.edit((line) => line.pieces.splice(indexOf(event), 1));
    };
    track.onpointerdown = (event) => {
      const [index, button] = [indexOf(event), event.target.closest('button')];
      if (!button) return;
      const { left, right, width } = button.getBoundingClientRect();
      let [part, x] = ['at', event.clientX];
      if (width > 25 && right - x < 9) part = 'last';
      if (width > 25 && x - left < 9) part = 'first';
      button.setPointerCapture(event.pointerId);
      button.onpointermove = (move) => {
        const wide = $('tracks').clientWidth / this.frames * STEP;
        const steps = Math.trunc((move.clientX - x) / wide);
        if (steps && change(index, part, steps * STEP)) x += steps * wide;
      };
      button.onlostpointercapture = () => { button.onpointermove = null; };
    };
  }

  /** Moves the start of a prompt, but not of the first one. */
  moveSpan(index, part, by) {
    const { prompts } = this.page.line;
    const next = prompts[index].at + by;
    const after = prompts[index + 1]?.at ?? this.frames;
    if (!index || next <= prompts[index - 1].at || next >= after) return false;
    this.page.edit(() => { prompts[index].at = next; }, `prompt ${index}`);
    return true;
  }

  /** Moves a piece, or trims its first or last frames; within what there is. */
  movePiece(index, part, by) {
    const piece = this.page.line.pieces[index];
    const next = { ...piece };
    if (piece.first === piece.last && part !== 'at') return false;
    next[part] += by;
    if (part === 'first') next.at += by;
    const end = next.at + next.last - next.first;
    const most = this.page.source(piece.source).frames - 1;
    const fits = next.at >= 0 && next.first >= 0 && end < this.frames;
    if (!fits || next.last > most || next.last < next.first) return false;
    this.page.edit(() => Object.assign(piece, next), `${piece.source} ${part}`);
    return true;
  }

  draw() {
    const { line, state } = this.page;
    $('tracks').style.width = `max(100%, ${3 * line.length}px)`;
    let every = 1;
    const most = Math.min($('tracks').clientWidth / 90, 200);
    while (line.length / every > most) every *= 2;
    const marks = Array(Math.ceil(line.length / every)).keys();
    listed($('ruler'), [...marks], (k) => every * k, (mark, k) => {
      const frame = every * k;
      place(mark, frame, frame + every, line.length);
      mark.textContent = `${frame} · ${+(frame / state.fps).toFixed(2)} s`;
    });
    listed($('pieces'), line.pieces, (p, k) => `${k} ${p.source}`,
      (button, piece) => this.drawPiece(button, piece));
    listed($('spans'), line.prompts, (_, k) => k, (span, prompt, k) => {
      const end = (line.prompts[k + 1]?.at ?? line.length) - 1;
      const none = prompt.link ? 'transition' : 'say what is seen';
      span.textContent = prompt.text || none;
      span.classList.toggle('link', prompt.link);
      span.ariaLabel = `Prompt from frame ${prompt.at}: ${span.textContent}. `
        + (k ? 'Arrow keys move its start.' : '');
      place(span, prompt.at, end, line.length);
    });
  }

  drawPiece(button, piece) {
    const { name, strip } = this.page.source(piece.source);
    const end = piece.at + piece.last - piece.first;
    const one = piece.at === end;
    const where = one ? `frame ${end}` : `frames ${piece.at} to ${end}`;
    place(button, piece.at, end, this.frames);
    button.classList.toggle('one', one);
    button.firstChild.textContent = name;
    button.title = `${name}, ${where}`;
    button.ariaLabel = `${name}, given at ${where}. Arrow keys move it, with `
      + 'Shift or Alt they trim its end or start, Delete removes it.';
    button.style.backgroundImage = strip ? `url("${strip}")` : '';
  }

  /** Blocks `[low, high, given]` in the order of generation. */
  plan(blocks, frames) {
    const made = blocks.filter((block) => !block[2]);
    listed($('blocks'), blocks, String, (block, own) => {
      const [low, high, given] = own;
      const n = made.indexOf(own);
      place(block, low, high, frames);
      block.classList.toggle('kept', given);
      block.style.background = given ? 'none' : colour(n, made.length);
      block.textContent = given ? '' : n + 1;
      const what = given ? 'given' : `made ${n + 1}. of ${made.length}`;
      block.title = `${what}: frames ${low} to ${high}`;
    });
  }

  /** The video's own track: pictures `[first, count, address]` of it. */
  film(parts) {
    listed($('film'), parts, String, (image, [first, count, source]) => {
      if (!image.src) image.src = source;
      place(image, first, first + count - 1, this.frames);
    });
  }
}
