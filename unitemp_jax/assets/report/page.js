'use strict';

// A video is a link until it comes near the view; then a player is put into
// the link, and taken out when it leaves. It plays while it is pointed at, or
// after a tap.
(() => {
  const start = (player) => {
    player.classList.add('playing');
    // A pause before the first frame is no error.
    arrive(player).play().catch(() => {});
  };
  const stop = (player) => {
    player.classList.remove('playing');
    player.firstElementChild?.pause();
  };
  const isHeld = (player) => player.dataset.held === 'yes';
  const hold = (player, held) => {
    player.dataset.held = held ? 'yes' : 'no';
    (held ? start : stop)(player);
  };

  const arrive = (player) => {
    if (player.firstElementChild) return player.firstElementChild;
    const video = document.createElement('video');
    Object.assign(video, {muted: true, loop: true, playsInline: true});
    video.preload = player.dataset.poster ? 'none' : 'metadata';
    if (player.dataset.poster) video.poster = player.dataset.poster;
    video.src = player.href;
    player.append(video);
    return video;
  };
  const leave = (player) => {
    const video = player.firstElementChild;
    if (!video) return;
    hold(player, false);
    // Gives the decoder back at once.
    video.removeAttribute('src');
    video.load();
    video.remove();
    const button = player.closest('.row')?.querySelector('.play');
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
  const watch = (place) => {
    for (const player of place.querySelectorAll('.player')) {
      observer.observe(player);
    }
  };
  watch(document);

  const pointed = (act) => (event) => {
    const player = event.target.closest?.('.player');
    if (player && event.pointerType === 'mouse') act(player);
  };
  document.addEventListener('pointerover', pointed(start));
  document.addEventListener('pointerout', pointed((player) => {
    if (!isHeld(player)) stop(player);
  }));
  document.addEventListener('click', (event) => {
    const player = event.target.closest('.player');
    if (player) {
      event.preventDefault();
      hold(player, !isHeld(player));
      return;
    }
    const button = event.target.closest('button.play');
    if (!button) return;
    const playing = button.getAttribute('aria-pressed') !== 'true';
    label(button, playing);
    for (const shown of button.closest('.row').querySelectorAll('.clips .player')) {
      if (playing) arrive(shown).currentTime = 0;
      hold(shown, playing);
    }
  });
  for (const button of document.querySelectorAll('button.play')) {
    label(button, false);
  }

  // How a clip was made is text until somebody wants to see it.
  document.addEventListener('toggle', (event) => {
    const made = event.target.querySelector?.('.made');
    if (!made || !event.target.open || made.childElementCount) return;
    made.innerHTML = event.target.querySelector('script').textContent;
    watch(made);
  }, true);

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
