// What is shown above the timeline: one version or two in step, or the blocks
// of one that is being made.

import { $, make } from './dom.js';

class Screen {
  constructor(box) {
    this.box = box;
    this.video = box.querySelector('video');
    this.canvas = box.querySelector('canvas');
    this.note = box.querySelector('.none');
    this.pictures = new Map(); // address -> image
    this.video.addEventListener('loadedmetadata', () => {
      if (this.frames === 1) this.frames = Math.max(1, Math.round(this.video.duration * this.fps));
      if (box === document.querySelector('.screen')) $('head').max = this.frames - 1;
    });
    this.video.addEventListener('error', () => this.tell('this clip cannot be played'));
  }

  tell(sentence) {
    this.note.textContent = sentence;
  }

  /** Shows a file; `about` has fps, width and, if they are known, frames. */
  file(address, about) {
    const here = this.video.dataset.address === address;
    if (about.frames || !here) this.frames = about.frames ?? 1;
    this.fps = about.fps;
    this.shown = null;
    this.canvas.hidden = true;
    this.video.hidden = false;
    this.box.classList.toggle('small', about.width < 256);
    this.tell('');
    if (!here) {
      this.video.dataset.address = address;
      this.video.src = address;
    }
  }

  /** Shows blocks `[first, count, refines]`; `of` gives the address of each. */
  blocks(shown, of, frames, fps, empty) {
    Object.assign(this, { shown, of, frames, fps });
    this.video.pause();
    this.video.removeAttribute('src');
    delete this.video.dataset.address;
    this.video.hidden = true;
    this.canvas.hidden = !shown.length;
    this.tell(shown.length ? '' : empty);
    shown.forEach((_, index) => this.picture(index));
  }

  picture(index) {
    const address = this.of(index);
    if (!this.pictures.has(address)) {
      if (this.pictures.size > 500) this.pictures.clear();
      const picture = make('img', { src: address });
      picture.onload = () => this.seek(this.at ?? 0);
      this.pictures.set(address, picture);
    }
    return this.pictures.get(address);
  }

  seek(frame) {
    this.at = frame;
    if (!this.shown) {
      if (this.frames) this.video.currentTime = (frame + 0.5) / this.fps;
      return;
    }
    for (let index = this.shown.length - 1; index >= 0; index -= 1) {
      const [first, count] = this.shown[index];
      const picture = this.picture(index);
      if (frame < first || frame >= first + count || !picture.naturalWidth) continue;
      const width = picture.naturalWidth / count;
      this.canvas.width = width;
      this.canvas.height = picture.naturalHeight;
      this.box.classList.toggle('small', width < 256);
      this.canvas.getContext('2d').drawImage(picture, -(frame - first) * width, 0);
      return;
    }
  }

  clear(sentence) {
    this.blocks([], null, 0, 1, sentence);
    this.at = 0;
  }
}

export class Player {
  constructor(moved) {
    this.moved = moved;
    this.screens = [...document.querySelectorAll('.screen')].map((box) => new Screen(box));
    this.frame = 0;
    this.playing = false;
    $('play').onclick = () => this.toggle();
    $('back').onclick = () => this.step(-1);
    $('on').onclick = () => this.step(1);
    $('head').oninput = () => this.seek(Number($('head').value));
    $('difference').querySelector('svg').onclick = (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      this.seek(Math.floor(this.frames * (event.clientX - box.left) / box.width));
    };
    requestAnimationFrame((now) => this.tick(now));
  }

  get frames() { return this.screens[0].frames || 1; }
  get fps() { return this.screens[0].fps || 1; }

  /** A second screen beside the first, or none. */
  beside(show) {
    this.screens[1].box.hidden = !show;
    if (!show) this.screens[1].clear('');
  }

  toggle() {
    this.playing = !this.playing;
    if (this.playing && this.frame >= this.frames - 1) this.frame = 0;
    this.began = performance.now() - 1000 * this.frame / this.fps;
    for (const { video, shown } of this.screens) {
      if (!this.playing || shown || !video.src) video.pause();
      else video.play().catch(() => {});
    }
    if (this.playing) this.screens.forEach((screen) => screen.seek(this.frame));
    $('play').textContent = this.playing ? '❚❚' : '▶';
    $('play').setAttribute('aria-label', this.playing ? 'Stop' : 'Play');
  }

  step(by) {
    if (this.playing) this.toggle();
    this.seek(this.frame + by);
  }

  seek(frame) {
    this.frame = Math.max(0, Math.min(frame, this.frames - 1));
    this.began = performance.now() - 1000 * this.frame / this.fps;
    this.screens.forEach((screen) => {
      if (screen.frames) screen.seek(Math.min(this.frame, screen.frames - 1));
    });
    this.moved(this.frame);
  }

  tick(now) {
    requestAnimationFrame((next) => this.tick(next));
    if (!this.playing) return;
    const { shown, video } = this.screens[0];
    const time = shown ? (now - this.began) / 1000 : video.currentTime;
    const frame = Math.floor(time * this.fps + 0.01);
    if (frame >= this.frames || (!shown && video.ended)) {
      if ($('repeat').checked) {
        this.seek(0);
        this.screens.forEach((one) => { if (!one.shown && one.video.src) one.video.play().catch(() => {}); });
      } else {
        this.toggle();
      }
      return;
    }
    if (frame === this.frame) return;
    this.frame = frame;
    if (shown) this.screens[0].seek(frame);
    const other = this.screens[1];
    if (other.frames && !other.shown && Math.abs(other.video.currentTime - time) > 1 / this.fps) {
      other.video.currentTime = time;
    }
    this.moved(frame);
  }

  /** Frame difference as a line, with block boundaries and the frame shown. */
  chart(values = [], boundaries = []) {
    const svg = $('difference').querySelector('svg');
    const top = Math.max(...values, 1e-6);
    const x = (transition) => 1000 * (transition + 1) / (values.length + 1);
    const draw = (name, about) => {
      const made = document.createElementNS('http://www.w3.org/2000/svg', name);
      for (const [key, value] of Object.entries(about)) made.setAttribute(key, value);
      return made;
    };
    const points = values.map((v, j) => `${x(j).toFixed(1)},${(98 - 94 * v / top).toFixed(1)}`);
    svg.replaceChildren(
      ...boundaries.map((j) => draw('path', { class: 'edge', d: `M${x(j)} 0V100` })),
      draw('polyline', { points: points.join(' ') }),
      draw('path', { class: 'now', d: '' }),
    );
    this.needle();
  }

  needle() {
    const at = 1000 * (this.frame + 0.5) / this.frames;
    document.querySelector('#difference .now')?.setAttribute('d', `M${at} 0V100`);
  }
}
