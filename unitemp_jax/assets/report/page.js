'use strict';

// A video loads nothing until it is near the view, plays while it is pointed
// at or after a tap, and gives its decoder back when it leaves the view.
(() => {
  const videos = [...document.querySelectorAll('video')];

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

  for (const video of videos) {
    video.controls = false;
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
  }

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
})();
