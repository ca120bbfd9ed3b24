'use strict';

// A video loads nothing until it is near the view, plays while it is pointed
// at or after a tap, and gives its decoder back when it leaves the view.
(() => {
  const start = (video) => {
    video.classList.add('playing');
    video.play().catch(() => {});  // A pause before the first frame is no error.
  };
  const stop = (video) => {
    video.classList.remove('playing');
    video.pause();
  };
  const isHeld = (video) => video.dataset.held === 'yes';
  const hold = (video, held) => {
    video.dataset.held = held ? 'yes' : 'no';
    (held ? start : stop)(video);
  };

  const arrive = (video) => {
    if (video.dataset.poster) {
      video.poster = video.dataset.poster;
    } else {
      video.preload = 'metadata';
    }
  };
  const leave = (video) => {
    if (video.preload === 'none' && video.readyState === 0) return;
    hold(video, false);
    // load() alone would fetch again: it overrides preload="none".
    const source = video.getAttribute('src');
    video.preload = 'none';
    video.removeAttribute('src');
    video.load();
    video.setAttribute('src', source);
    const button = video.closest('.row')?.querySelector('.play');
    if (button) label(button, false);
  };

  const label = (button, playing) => {
    button.setAttribute('aria-pressed', String(playing));
    button.textContent = playing ? 'Pause row' : 'Play row';
  };

  const observer = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      (isIntersecting ? arrive : leave)(target);
    }
  }, {rootMargin: '300px'});

  const care = (video) => {
    observer.observe(video);
    video.addEventListener('pointerenter', (event) => {
      if (event.pointerType === 'mouse') start(video);
    });
    video.addEventListener('pointerleave', (event) => {
      if (event.pointerType === 'mouse' && !isHeld(video)) stop(video);
    });
    video.addEventListener('click', () => hold(video, !isHeld(video)));
    video.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      hold(video, !isHeld(video));
    });
  };
  document.querySelectorAll('video').forEach(care);

  for (const button of document.querySelectorAll('button.play')) {
    label(button, false);
    button.addEventListener('click', () => {
      const playing = button.getAttribute('aria-pressed') !== 'true';
      label(button, playing);
      for (const video of button.closest('.row').querySelectorAll('.clips video')) {
        if (playing) video.currentTime = 0;
        hold(video, playing);
      }
    });
  }

  // How a clip was made is text until somebody wants to see it.
  for (const details of document.querySelectorAll('.row details')) {
    details.addEventListener('toggle', () => {
      const made = details.querySelector('.made');
      if (!details.open || made.childElementCount) return;
      made.innerHTML = details.querySelector('script').textContent;
      made.querySelectorAll('video').forEach(care);
    });
  }

  const finder = document.querySelector('.finder');
  if (!finder) return;
  const rows = [...document.querySelectorAll('.row')].map((row) => [
    row, row.querySelector('header').textContent.toLowerCase(),
  ]);
  const output = finder.querySelector('output');
  const search = () => {
    const words = finder.querySelector('input').value.toLowerCase().split(/\s+/);
    let left = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) left += 1;
    }
    const all = rows.length.toLocaleString('en');
    output.textContent = left === rows.length ?
        `${all} rows` : `${left.toLocaleString('en')} of ${all} rows`;
  };
  let waiting = 0;
  finder.querySelector('input').addEventListener('input', () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 120);
  });
  for (const button of finder.querySelectorAll('.switch')) {
    button.addEventListener('click', () => {
      const shown = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', String(shown));
      for (const figure of document.querySelectorAll('.row figure')) {
        if (figure.dataset.group === button.dataset.group) figure.hidden = !shown;
      }
    });
  }
})();
