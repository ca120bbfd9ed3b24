// What is shown above the timeline: one version or two in step, or the blocks
// of one that is being made.

import { $ } from './dom.js';

class Screen {
  constructor(box) {
    this.box = box;
    [this.live, this.video, this.note] = box.children;
    this.video.onerror = () => this.tell('this clip cannot be played');
  }

  tell(sentence) { this.note.textContent = sentence; }

  /** Shows a file; `about` has fps, width and, if they are known, frames. */
  file(source, about) {
    if (this.source !== source) this.video.src = this.source = source;
    this.show(null, about.frames ?? this.counted, about.fps, '');
    this.box.classList.toggle('small', about.width < 256);
  }

  /** Shows blocks `[first, count]`, or the file if there are none. */
  show(shown, frames, fps, sentence) {
    Object.assign(this, { shown, frames, fps });
    this.live.hidden = !shown;
    this.video.hidden = Boolean(shown);
    this.tell(sentence);
  }

  /** Frames of a file that only it tells. */
  get counted() { return Math.round(this.video.duration * this.fps) || 1; }

  /** Shows blocks `[first, count]`; `of` gives the address of each. */
  blocks(shown, of, frames, fps, empty) {
    Object.assign(this, { of, source: null });
    this.video.removeAttribute('src');
    this.show(shown, frames, fps, shown.length ? '' : empty);
    if (!shown.length) this.live.width = this.at = 0; // Nothing on it.
  }

  clear(sentence) { this.blocks([], null, 0, 1, sentence); }

  seek(frame) {
    if (!this.frames) return;
    if (!this.shown) {
      this.video.currentTime = (frame + 0.5) / this.fps;
      return;
    }
    // The latest block that has it: a refined one takes a preview's place.
    const index = this.shown.findLastIndex(
      ([first, count]) => frame >= first && frame < first + count);
    if (index < 0) return;
    const [first, count] = this.shown[index];
    const src = this.of(index);
    this.at = frame;
    if (this.picture?.alt !== src) {
      this.picture = Object.assign(new Image(), { src, alt: src });
    }
    const { picture, live } = this;
    picture.decode().then(() => {
      if (this.at !== frame) return;
      [live.width, live.height] = [picture.width / count, picture.height];
      const left = (first - frame) * live.width;
      live.getContext('2d').drawImage(picture, left, 0);
      this.box.classList.toggle('small', live.width < 256);
    }, () => {}); // It is not there any more.
  }

  play(on) {
    if (this.shown || !this.source || !on) this.video.pause();
    else this.video.play().catch(() => {});
  }
}

export class Player {
  constructor(moved) {
    this.moved = moved;
    const boxes = [...document.querySelectorAll('.screen')];
    this.screens = boxes.map((box) => new Screen(box));
    this.frame = 0;
    this.playing = false;
    const [first] = this.screens;
    first.video.onloadedmetadata = () => {
      if (first.frames === 1) first.frames = first.counted;
      $('head').max = first.frames - 1;
    };
    $('head').oninput = () => this.seek(Number($('head').value));
    $('chart').onclick = ({ offsetX }) => {
      this.seek(Math.floor(this.frames * offsetX / $('chart').clientWidth));
    };
  }

  get frames() { return this.screens[0].frames || 1; }
  get fps() { return this.screens[0].fps || 1; }

  /** A file on a second screen beside the first, or none. */
  beside(source, about) {
    this.screens[1].box.hidden = !source;
    if (source) this.screens[1].file(source, about);
    else this.screens[1].clear('');
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing && this.frame >= this.frames - 1) this.frame = 0;
    this.seek(this.frame);
    this.screens.forEach((screen) => screen.play(this.playing));
    $('play').textContent = this.playing ? '❚❚' : '▶';
    $('play').ariaLabel = this.playing ? 'Stop' : 'Play';
    if (this.playing) requestAnimationFrame((now) => this.tick(now));
  }

  step(by) {
    if (this.playing) this.toggle();
    this.seek(this.frame + by);
  }

  seek(frame) {
    this.frame = Math.max(0, Math.min(frame, this.frames - 1));
    this.began = performance.now() - 1000 * this.frame / this.fps;
    for (const screen of this.screens) {
      screen.seek(Math.min(this.frame, screen.frames - 1));
    }
    this.moved(this.frame);
  }

  tick(now) {
    if (!this.playing) return;
    requestAnimationFrame((next) => this.tick(next));
    const [{ shown, video }, other] = this.screens;
    const time = shown ? (now - this.began) / 1000 : video.currentTime;
    const frame = Math.floor(time * this.fps + 0.01);
    if (frame >= this.frames || video.ended) {
      this.toggle();
      if ($('repeat').checked) this.toggle();
    } else if (frame !== this.frame) {
      this.frame = frame;
      if (shown) this.screens[0].seek(frame);
      const off = Math.abs(other.video.currentTime - time);
      if (other.source && off > 1 / this.fps) other.video.currentTime = time;
      this.moved(frame);
    }
  }

  /** Frame difference as a line, with block boundaries. */
  chart(values = [], boundaries = []) {
    const top = Math.max(...values, 1e-6);
    const x = (transition) => 1000 * (transition + 1) / (values.length + 1);
    const points = values.map((v, j) => `${x(j)},${98 - 94 * v / top}`);
    const edges = boundaries.map(
      (j) => `<path class="edge" d="M${x(j)} 0V100"/>`);
    $('chart').querySelector('svg').innerHTML =
      `${edges.join('')}<polyline points="${points.join(' ')}"/>`;
  }
}
