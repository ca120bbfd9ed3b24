'use strict';

// One pair of videos after another. Votes are kept in the browser as they are
// given, so that a closed page loses none.
(() => {
  const $ = (id) => document.getElementById(id);
  const {study, trials} = JSON.parse($('data').textContent);
  const videos = [...document.querySelectorAll('.sides video')];
  const place = `unitemp blind ${study}`;
  let state = {rater: '', votes: {}};
  let number = 0;
  let shown = 0;

  const keep = () => {
    try {
      localStorage.setItem(place, JSON.stringify(state));
    } catch {
      // A page opened from disk may have no storage; the votes stay in memory.
    }
  };
  const recall = () => {
    try {
      state = JSON.parse(localStorage.getItem(place)) ?? state;
    } catch {
      // As above.
    }
  };

  const replay = () => {
    for (const video of videos) {
      video.currentTime = 0;
      video.play().catch(() => {});
    }
  };

  const show = () => {
    const over = number >= trials.length;
    $('start').hidden = true;
    $('trial').hidden = over;
    $('done').hidden = !over;
    for (const video of videos) video.pause();
    if (over) return;
    const trial = trials[number];
    const vote = state.votes[trial.id];
    $('prompt').textContent = trial.prompt;
    $('place').textContent = `${number + 1} of ${trials.length}`;
    document.querySelector('.progress i').style.width =
        `${100 * number / trials.length}%`;
    videos[0].src = trial.left;
    videos[1].src = trial.right;
    for (const button of document.querySelectorAll('[data-choice]')) {
      const chosen = vote?.choice === button.dataset.choice;
      button.setAttribute('aria-pressed', String(chosen));
    }
    shown = performance.now();
    replay();
    const next = trials[number + 1];
    for (const side of next ? ['left', 'right'] : []) {
      const ahead = document.createElement('video');
      Object.assign(ahead, {preload: 'auto', muted: true, src: next[side]});
    }
  };

  const choose = (choice) => {
    const seconds = Math.round((performance.now() - shown) / 100) / 10;
    state.votes[trials[number].id] = {choice, seconds};
    keep();
    number += 1;
    show();
  };

  const begin = () => {
    const rater = $('rater').value.trim();
    if (!rater) {
      $('rater').focus();
      return;
    }
    if (rater !== state.rater) state = {rater, votes: {}};
    keep();
    number = trials.findIndex((trial) => !(trial.id in state.votes));
    if (number < 0) number = trials.length;
    show();
  };

  const save = () => {
    const votes = trials.filter((trial) => trial.id in state.votes)
        .map((trial) => ({trial: trial.id, ...state.votes[trial.id]}));
    const text = JSON.stringify(
        {format: 'unitemp votes 1', study, rater: state.rater, votes}, null, 1);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text + '\n'],
        {type: 'application/json'}));
    const name = state.rater.replace(/[^\p{L}\p{N}]+/gu, '-')
        .replace(/^-|-$/g, '') || 'rater';
    link.download = `votes-${name}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  };

  const back = () => {
    number = Math.max(0, number - 1);
    show();
  };

  recall();
  $('rater').value = state.rater;
  $('begin').addEventListener('click', begin);
  $('rater').addEventListener('keydown', (event) => {
    if (event.key === 'Enter') begin();
  });
  $('replay').addEventListener('click', replay);
  $('back').addEventListener('click', back);
  $('save').addEventListener('click', save);
  $('early').addEventListener('click', save);
  for (const button of document.querySelectorAll('[data-choice]')) {
    button.addEventListener('click', () => choose(button.dataset.choice));
  }
  const keys = {ArrowLeft: 'left', ArrowRight: 'right', ArrowDown: 'tie'};
  document.addEventListener('keydown', (event) => {
    if ($('trial').hidden || event.repeat) return;
    if (event.key in keys) {
      event.preventDefault();
      choose(keys[event.key]);
    } else if (event.key === 'Backspace') {
      event.preventDefault();
      back();
    } else if (event.key.toLowerCase() === 'r') {
      replay();
    }
  });
})();
