"""What users made with earlier versions loads and goes on.

tests/fixtures/old was written at commit 69b1d65 by these commands, the model
being that of tests/helpers/model_fixture.py with random weights:

  unitemp train --config=configs/tiny_vae.py:test --workdir=workdir \
    --config.num_steps=2
  unitemp evaluate generate --suite=plain --manifest=prompts.txt \
    --order=forward,backward --frames=9 --model=model --out=set
  unitemp generate --prompt='a red seven falls' --orders=backward --length=9 \
    --model=model --out=clips
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from einops import reduce

import unitemp_jax
from unitemp_jax.cli import main as cli
from unitemp_jax.video.read import read_video

ROOT = Path(__file__).parents[1]
OLD = ROOT / 'tests/fixtures/old'
# Of steps 3 and 4, by the code that wrote the workdir.
LOSSES = [1.2273483276367188, 1.1801129579544067]
CRCS = [3079687932, 1743705234]

GENERATE_SET = [
  *('evaluate', 'generate', '--suite=plain', '--manifest=prompts.txt'),
  *('--order=forward,backward', '--frames=9', '--model=model', '--out=set'),
]
GENERATE_CLIP = [
  *('generate', '--prompt=a red seven falls', '--orders=backward'),
  *('--length=9', '--model=model', '--out=clips'),
]


@pytest.fixture
def old(tmp_path, monkeypatch):
  """A copy of the folders, which is also the working folder."""
  shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
  with tarfile.open(tmp_path / 'workdir.tar.xz') as archive:
    archive.extractall(tmp_path, filter='data')
  monkeypatch.chdir(tmp_path)
  return tmp_path


def levels_apart(one, two):
  """Mean difference of the model's pixels, in levels of 255.

  Files show each as a square of 16, which encoders lose in ways of their own.
  """
  one, two = (
    reduce(
      read_video(path)[0].astype(float),
      't (h p) (w q) c -> t h w c',
      'mean',
      p=16,
      q=16,
    )
    for path in (one, two)
  )
  return np.abs(one - two).mean()


def test_an_old_model_folder_loads(old):
  model = unitemp_jax.load(old / 'model')
  assert model.card.frames == 33
  assert model.card.timesteps == (1000, 750, 500, 250)
  assert set(model.card.provenance) >= {'vae', 'student'}


def test_an_old_set_is_whole_and_goes_on(old, capsys):
  assert cli.main(['evaluate', 'verify', 'set']) == 0
  videos = sorted(old.glob('set/videos/*/*.mp4'))
  kept, lost = videos
  before = kept.read_bytes(), kept.stat().st_mtime_ns
  lost.unlink()
  assert cli.main(['evaluate', 'verify', 'set']) != 0  # Control.
  assert cli.main(GENERATE_SET) == 0
  assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
  # The old model makes the clip that it made then.
  then = OLD / lost.relative_to(old)
  assert levels_apart(lost, then) < 1
  assert levels_apart(lost, kept) > 10  # Control.
  assert cli.main(['evaluate', 'verify', 'set']) == 0


def test_old_clips_count_as_made_and_are_reported(old):
  (clip,) = old.glob('clips/*/*.mp4')
  before = clip.read_bytes(), clip.stat().st_mtime_ns
  assert cli.main(GENERATE_CLIP) == 0
  assert (clip.read_bytes(), clip.stat().st_mtime_ns) == before
  (old / 'clips/index.html').unlink(missing_ok=True)
  assert cli.main(['report', 'clips']) == 0
  assert clip.name in (old / 'clips/index.html').read_text()


def test_an_old_training_goes_on(old):
  """Parameters, optimizer, keys and place in the data are those it had."""
  command = [
    *('train', f'--config={ROOT}/configs/tiny_vae.py:test'),
    *('--workdir=workdir', '--config.num_steps=4', '--config.log_every=1'),
    # As the config file had them.
    *('--config.data.hop_share=0.2', '--config.data.turn_share=0.15'),
  ]
  assert cli.main(command) == 0
  lines = (old / 'workdir/metrics.jsonl').read_text().splitlines()
  lines = [json.loads(line) for line in lines]
  assert [line['step'] for line in lines] == [2, 3, 4]
  assert [line['data_crc'] for line in lines[1:]] == CRCS
  np.testing.assert_allclose(
    [line['loss'] for line in lines[1:]], LOSSES, rtol=1e-3
  )
