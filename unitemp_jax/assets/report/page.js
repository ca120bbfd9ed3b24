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
    for (const button of place.querySelectorAll('button.play')) {
      label(button, false);
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
  // How a clip was made is text until somebody wants to see it.
  document.addEventListener('toggle', (event) => {
    const made = event.target.querySelector?.('.made');
    if (!made || !event.target.open || made.childElementCount) return;
    made.innerHTML = event.target.querySelector('script').textContent;
    watch(made);
  }, true);

  // A page shows one part of its rows at a time. The others, and the words of
  // all, are files beside it: scripts, as a page on disk may read nothing else.
  const gallery = document.querySelector('.gallery');
  if (!gallery) return;
  const load = (file) => new Promise((done, fail) => {
    const script = document.createElement('script');
    script.src = file;
    script.onload = () => {
      script.remove();
      done(window.unitempPart);
    };
    script.onerror = () => fail(new Error(`${file} is missing beside the page`));
    document.head.append(script);
  });
  const parts = JSON.parse(gallery.dataset.parts);
  const kept = new Map();
  const take = async (part) => {
    if (part === 0) return first;
    if (!kept.has(part)) {
      if (kept.size > 5) kept.delete(kept.keys().next().value);
      kept.set(part, await load(parts[part - 1]));
    }
    return kept.get(part);
  };
  const first = [...gallery.children].map((row) => row.outerHTML);
  const words = (row) => row.querySelector('header').textContent;
  let texts = parts.length ? null : [[...gallery.children].map(words)];
  // Takes what was left out, as a heading that is that of the row before it.
  const whole = (lists) => lists.map((list) => {
    let heading = '';
    return list.map(([own, more]) => `${heading = own ?? heading} ${more}`);
  });

  const FOUND = 100;  // rows that are shown at a time of those that were found
  const pager = document.querySelector('.pager');
  const finder = document.querySelector('.finder');
  const output = finder?.querySelector('output');
  const hidden = new Set();
  const all = output?.textContent;
  let found = null;
  let place = 0;
  let turns = 0;

  const hide = () => {
    for (const figure of gallery.querySelectorAll('figure')) {
      figure.hidden = hidden.has(figure.dataset.group);
    }
  };
  const pages = () =>
      found ? Math.max(1, Math.ceil(found.length / FOUND)) : parts.length + 1;
  const show = async (number) => {
    const turn = ++turns;
    const rows = [];
    if (found) {
      const wanted = found.slice(number * FOUND, (number + 1) * FOUND);
      for (const [part, row] of wanted) rows.push((await take(part))[row]);
    } else {
      rows.push(...await take(number));
    }
    if (turn !== turns) return;
    for (const player of gallery.querySelectorAll('.player')) leave(player);
    observer.disconnect();
    gallery.innerHTML = rows.join('');
    hide();
    watch(document);
    place = number;
    if (!pager) return;
    pager.querySelector('b').textContent = pages().toLocaleString('en');
    const input = pager.querySelector('input');
    input.value = place + 1;
    input.max = pages();
    for (const button of pager.querySelectorAll('button')) {
      const next = place + Number(button.dataset.turn);
      button.disabled = next < 0 || next >= pages();
    }
  };
  const tell = (error) => {
    if (output) output.textContent = error.message;
  };
  const turnTo = (number) => {
    const fits = Math.min(Math.max(number || 0, 0), pages() - 1);
    show(fits).then(() => gallery.scrollIntoView()).catch(tell);
  };
  if (pager) {
    pager.querySelector('button').disabled = true;
    pager.addEventListener('click', (event) => {
      const turn = event.target.dataset.turn;
      if (turn) turnTo(place + Number(turn));
    });
    pager.querySelector('input').addEventListener('change', (event) => {
      turnTo(Number(event.target.value) - 1);
    });
  }

  if (!finder) return;
  const search = async () => {
    const asked = finder.querySelector('input').value.toLowerCase().split(/\s+/);
    texts ??= whole(await load(gallery.dataset.texts));
    found = asked.some((word) => word) ? [] : null;
    texts.forEach((list, part) => list.forEach((text, row) => {
      const low = text.toLowerCase();
      if (found && asked.every((word) => low.includes(word))) {
        found.push([part, row]);
      }
    }));
    await show(0);
    output.textContent =
        found ? `${found.length.toLocaleString('en')} of ${all}` : all;
  };
  let waiting = 0;
  finder.querySelector('input').addEventListener('input', () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search().catch(tell), 120);
  });
  for (const button of finder.querySelectorAll('.switch')) {
    button.addEventListener('click', () => {
      const shown = button.getAttribute('aria-pressed') !== 'true';
      button.setAttribute('aria-pressed', String(shown));
      hidden[shown ? 'delete' : 'add'](button.dataset.group);
      hide();
    });
  }
})();
