"""One clip row by row: interrupted, continued, exact where it was given."""

import dataclasses
import errno
import json
import os
import pathlib

import numpy as np
import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.generate import clip_file, clips, workflows
from unitemp_jax.video.read import fit, read_video
from unitemp_jax.video.write import write_video

RNG = np.random.default_rng(0)


def quiet(line):
  pass


@pytest.fixture(scope='module')
def clip(pipeline):
  """A clip of smooth noise at the model's own size."""
  shape = (33, pipeline.card.height // 8, pipeline.card.width // 8, 3)
  coarse = RNG.integers(0, 256, shape, np.uint8)
  return coarse.repeat(8, 1).repeat(8, 2)


def new_job(pipeline, folder, clip, **fields):
  """A span of a clip made anew: one block, between two given parts."""
  request = workflows.regenerate(
    pipeline.card, clip, (9, 19), 'a red one', window=3
  )
  return clips.Job(folder / 'regenerate' / 'x.mp4', request, **fields)


def long_job(pipeline, folder, **fields):
  """Four blocks, made from the last to the first."""
  request = workflows.text_to_video(
    pipeline.card, 'a red one', 45, order='backward', seed=3
  )
  return clips.Job(folder / 'backward' / 'x.mp4', request, **fields)


def files(folder):
  """All files by name, but the seconds that a clip took."""
  found = {}
  for path in sorted(p for p in folder.rglob('*') if p.is_file()):
    content = path.read_bytes()
    if path.suffix == '.json' and path.name != 'key.json':
      content = json.loads(content)
      del content['timings']
    found[path.relative_to(folder).as_posix()] = content
  return found


def interrupt_after(monkeypatch, count):
  """Ctrl-C when so many rows have been kept in all."""
  save, saved = clips.RowFolder.save, []

  def stop(self, made):
    save(self, made)
    saved.append(made.row)
    if len(saved) == count:
      raise KeyboardInterrupt

  monkeypatch.setattr(clips.RowFolder, 'save', stop)


def test_everything_outside_a_span_is_bit_identical(pipeline, clip, tmp_path):
  job = new_job(pipeline, tmp_path, clip, output=clip_file.Output(('mkv',)))
  lines = []
  assert clips.run(pipeline, [job], None, lines.append) == 1
  made, fps = read_video(job.path.with_suffix('.mkv'))
  assert fps == pipeline.card.fps
  np.testing.assert_array_equal(made[:9], clip[:9])
  np.testing.assert_array_equal(made[20:], clip[20:])
  for frame in range(9, 20):  # and every frame inside is new
    assert np.abs(made[frame].astype(int) - clip[frame]).max() > 0
  about = json.loads(job.beside('.json').read_text())
  assert [(g['frame'], g['frames']) for g in about['given']] == [
    (0, 9),
    (20, 13),
  ]
  assert all(0 < given['psnr'] < 60 for given in about['given'])
  assert about['generation_order'][-1] == [3, 4, 5]
  assert about['boundary_frames'] == [8, 20]
  assert any(line.startswith('first block, frames 9..20') for line in lines)
  assert about['timings']['first block'] > 0
  # An mp4 cannot say so: colours are converted.
  lossy, _ = read_video(job.path)
  assert not np.array_equal(fit(lossy, *clip.shape[1:3])[:9], clip[:9])


def test_psnr_tells_how_near_decoded_latents_come(pipeline, clip):
  request = new_job(pipeline, pathlib.Path(), clip).request
  watch = clip_file.Watch(request)
  off = clip.astype(int) + 1 - 2 * (clip > 127)  # by one, everywhere
  for first in range(0, 33, 7):
    shown = watch.add(off[first : first + 7].astype(np.uint8))
    np.testing.assert_array_equal(
      shown, request.paste(first, off[first : first + 7].astype(np.uint8))
    )
  wanted = round(20 * np.log10(255), 2)
  assert [row['psnr'] for row in watch.facts()['given']] == [wanted, wanted]


@pytest.mark.parametrize('decode', ['joint', 'lag'])
def test_interrupted_clips_end_with_the_same_files(
  pipeline, tmp_path, monkeypatch, decode
):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  fields = {'decode': decode, 'output': clip_file.Output(('mkv',))}
  clips.run(pipeline, [long_job(pipeline, whole, **fields)], None, quiet)
  assert sorted(files(whole)) == [
    f'backward/x{ending}'
    for ending in ('.json', '.mkv', '.mp4', '.png', '.strip.png')
  ]
  job, lines = long_job(pipeline, broken, **fields), []
  for kept in (1, 2):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
      interrupt_after(patch, kept)
      clips.run(pipeline, [job], None, lines.append)
    assert lines[-1].startswith(f'interrupted: {2 * kept - 1} of 4 blocks')
    assert not job.path.exists() and not job.beside('.json').exists()
    # What is finished can be watched: the end of the video, so far.
    shown, _ = read_video(job.beside('.partial.mp4'))
    assert len(shown) == 12 * (2 * kept - 1)
  # A row that was half written by something else is made again.
  rows = sorted(job.beside('.rows').glob('row*.npz'))
  assert len(rows) == 3
  rows[-1].write_bytes(rows[-1].read_bytes()[:100])
  clips.run(pipeline, [job], None, lines.append)
  assert '2 of 4 blocks were there' in lines
  assert files(broken) == files(whole)


def test_a_disk_that_fills_up_keeps_what_is_finished(
  pipeline, tmp_path, monkeypatch
):
  """Where a block is written, then where the clip is; then it is resumed."""
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  clips.run(pipeline, [long_job(pipeline, whole)], None, quiet)
  job, save, sync, lines = long_job(pipeline, broken), np.savez, os.fsync, []

  def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  def second_is_full(file, **arrays):
    full() if list(broken.rglob('row*.npz')) else save(file, **arrays)

  def clip_is_full(descriptor):
    place = os.readlink(f'/proc/self/fd/{descriptor}')
    sync(descriptor) if '.rows' in place else full()

  def stops():
    with pytest.raises(UserError, match='No space left on device'):
      clips.run(pipeline, [job], None, lines.append)

  with monkeypatch.context() as patch:
    patch.setattr(np, 'savez', second_is_full)
    stops()
  kept = files(broken)
  assert sorted(map(os.path.basename, kept)) == ['key.json', 'row000000.npz']
  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', clip_is_full)
    stops()
  assert kept.items() < files(broken).items()
  clips.run(pipeline, [job], None, lines.append)
  assert '1 of 4 blocks were there' in lines
  assert '4 of 4 blocks were there' in lines
  assert files(broken) == files(whole)


def test_another_seed_is_another_clip(pipeline, tmp_path):
  """The control of the comparison above."""
  for seed in (3, 4):
    job = long_job(pipeline, tmp_path / str(seed))
    request = dataclasses.replace(job.request, seed=seed)
    job = dataclasses.replace(job, request=request)
    clips.run(pipeline, [job], None, quiet)
  one, other = files(tmp_path / '3'), files(tmp_path / '4')
  assert one['backward/x.mp4'] != other['backward/x.mp4']


def test_rows_of_another_clip_are_refused_and_kept(pipeline, tmp_path):
  job = long_job(pipeline, tmp_path)
  row = clips.MadeRow(0, np.zeros((1, 3, 2, 2, 4)), np.zeros(1), 0.0, True)
  clips.RowFolder(job.beside('.rows'), 'another key').save(row)
  before = sorted(p for p in tmp_path.rglob('*'))
  with pytest.raises(UserError, match='left by a command with other settings'):
    clips.run(pipeline, [job], None, quiet)
  assert sorted(p for p in tmp_path.rglob('*')) == before


@pytest.mark.parametrize('damage', ['nan', 'shape', 'cut'])
def test_a_damaged_block_is_said_and_made_again(pipeline, tmp_path, damage):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  clips.run(pipeline, [long_job(pipeline, whole)], None, quiet)
  job, lines = long_job(pipeline, broken), []
  with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
    interrupt_after(patch, 2)
    clips.run(pipeline, [job], None, quiet)
  path = sorted(job.beside('.rows').glob('row*.npz'))[1]
  with np.load(path) as held:
    arrays = {name: held[name] for name in held.files}
  if damage == 'nan':
    arrays['latents'].flat[0] = np.nan
  elif damage == 'shape':
    arrays['latents'] = arrays['latents'][:, 1:]
  np.savez(path, **arrays)
  if damage == 'cut':
    path.write_bytes(path.read_bytes()[:100])
  clips.run(pipeline, [job], None, lines.append)
  assert f'{path} is damaged; its block is made again' in lines
  assert files(broken) == files(whole)


def test_leftovers_of_a_finished_clip_are_swept(pipeline, tmp_path):
  job = long_job(pipeline, tmp_path)
  clips.run(pipeline, [job], None, quiet)
  before = files(tmp_path)
  row = clips.MadeRow(0, np.zeros((1, 3, 2, 2, 4)), np.zeros(1), 0.0, True)
  clips.RowFolder(job.beside('.rows'), job.key(pipeline.hash)).save(row)
  assert clips.run(pipeline, [job], None, quiet) == 0
  assert files(tmp_path) == before and not job.beside('.rows').exists()


def test_what_a_user_has_beside_kept_blocks_is_kept(pipeline, tmp_path):
  job = long_job(pipeline, tmp_path)
  rows = clips.RowFolder(job.beside('.rows'), job.key(pipeline.hash))
  rows.save(clips.MadeRow(0, np.zeros((1, 3, 2, 2, 4)), np.zeros(1), 0, True))
  notes = job.beside('.rows') / 'row-notes.npz'
  notes.write_text('mine')
  write_video(job.beside('.partial.mp4'), np.zeros((2, 16, 16, 3), np.uint8), 9)
  with pytest.raises(UserError, match=r'partial.mp4 .* not made by this'):
    clips.run(pipeline, [job], None, quiet)
  job.beside('.partial.mp4').unlink()
  rows.remove()
  assert [*job.beside('.rows').iterdir()] == [notes]


def test_two_clips_are_told_apart_in_the_progress(pipeline, tmp_path):
  first, lines = long_job(pipeline, tmp_path), []
  other = dataclasses.replace(first, path=first.path.with_name('y.mp4'))
  assert clips.run(pipeline, [first, other], None, lines.append) == 2
  assert [line[:11] for line in lines if line.startswith('clip')] == [
    'clip 1 of 2',
    'clip 2 of 2',
  ]
