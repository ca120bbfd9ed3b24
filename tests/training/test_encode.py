"""One's own videos to latents: in parts, after interruptions, in two dtypes."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from unitemp_jax.cli import encode as cli
from unitemp_jax.data import latents
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, weights
from unitemp_jax.training import encode
from unitemp_jax.training.build import build_loader, build_program
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders
from unitemp_jax.video.write import write_video

pytestmark = pytest.mark.devices(2)

ROOT = Path(__file__).parents[2]
WORDS = ('zero', 'one', 'two', 'three', 'four')
CONFIG = """
from configs import tiny_student_init

def get_config(arg=None):
  config = tiny_student_init.get_config('test')
  z = config.model.vae.z_dim
  config.model.vae.latent_mean = (0.5,) * z
  config.model.vae.latent_std = (2.0,) * z
  config.data = {
    'name': 'video_folder',
    'dir': 'FOLDER/data',
    'videos': 'FOLDER/videos',
    'captions': '',
    'fps': 12,
    'height': 16,
    'width': 16,
    'num_frames': config.data.num_frames,
  }
  config.latents.vae = 'FOLDER/vae.safetensors'
  config.latents.tokenizer = 'ROOT/' + config.latents.tokenizer
  config.latents.dir = 'FOLDER/latents'
  return config
"""


@pytest.fixture(scope='module')
def setup(tmp_path_factory):
  """(arguments of the command, folder) with a random VAE and five videos."""
  folder = tmp_path_factory.mktemp('encode')
  text = CONFIG.replace('FOLDER', str(folder)).replace('ROOT', str(ROOT))
  (folder / 'own.py').write_text(text)
  config = load_config(str(folder / 'own.py'), [])
  rng = np.random.default_rng(0)
  shapes = sizes.param_shapes(builders.vae_config(config.model))
  tree = jax.tree.map(
    lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes
  )
  weights.save(folder / 'vae.safetensors', tree)
  for i in range(5):
    shape = (config.data.num_frames, 16, 16, 3)
    clip = rng.integers(40 * i, 40 * i + 40, shape, np.uint8)
    write_video(folder / 'videos' / f'{i}.mp4', clip, 12, scale=2)
    (folder / 'videos' / f'{i}.txt').write_text(f'a red {WORDS[i]} falls')
  return [f'--config={folder / "own.py"}'], folder


@pytest.fixture
def small_shards(monkeypatch):
  """Two clips a shard in place of 64: three shards."""
  _shrink(monkeypatch)


def _shrink(monkeypatch):
  make = encode._Clips
  monkeypatch.setattr(
    encode,
    '_Clips',
    lambda source, per_shard, *rest: make(source, 2, *rest),
  )


def contents(folder):
  return {
    path.name: path.read_bytes()
    for path in sorted(folder.iterdir())
    if path.is_file()
  }


def test_parts_and_interruptions_write_the_same(
  setup, small_shards, monkeypatch, capsys
):
  arguments, folder = setup
  whole, parts = folder / 'whole', folder / 'parts'
  assert cli.main([*arguments, f'--out={whole}']) == 0
  assert len(latents.LatentSource(whole)) == 5

  record, done = encode.ClipRecorder.record, []

  def fail(self, *rest):
    done.append(1)
    if len(done) == 2:
      raise KeyboardInterrupt
    return record(self, *rest)

  monkeypatch.setattr(encode.ClipRecorder, 'record', fail)
  with pytest.raises(KeyboardInterrupt):
    cli.main([*arguments, f'--out={parts}', '--shard=0/2'])
  monkeypatch.undo()
  assert not (parts / latents.INDEX).exists()
  _shrink(monkeypatch)
  for part in ('1/2', '0/2'):
    assert cli.main([*arguments, f'--out={parts}', f'--shard={part}']) == 0
  assert '2 of 3' not in capsys.readouterr().out.splitlines()[-1]
  assert contents(parts) == contents(whole)
  assert not (parts / 'parts').exists()
  other = folder / 'bfloat16'
  assert cli.main([*arguments, f'--out={other}', '--dtype=bfloat16']) == 0
  assert contents(other) != contents(whole)  # Negative control.
  half, bits = latents.LatentSource(whole), latents.LatentSource(other)
  for name in ('latents', 'anchors', 'last_image'):
    np.testing.assert_allclose(
      half[3][name], bits[3][name], rtol=2**-7, atol=0.02
    )
  with pytest.raises(UserError, match='another VAE or data set'):
    cli.main([*arguments, f'--out={whole}', '--dtype=bfloat16'])


def test_kept_clips_are_not_encoded_again(setup, monkeypatch):
  """An interruption within a shard costs the batch that was under way."""
  arguments, folder = setup
  out = folder / 'kept'
  record, seen = encode.ClipRecorder.record, []

  def fail_at(most):
    def own(self, encoded, video, **more):
      if len(seen) == most:
        raise KeyboardInterrupt
      seen.append(video[:, 0].mean((1, 2, 3)))
      return record(self, encoded, video, **more)

    return own

  monkeypatch.setattr(encode.ClipRecorder, 'record', fail_at(2))
  with pytest.raises(KeyboardInterrupt):
    cli.main([*arguments, f'--out={out}'])
  assert len(list((out / 'parts').iterdir())) == 4  # Two devices, two batches.
  monkeypatch.setattr(encode.ClipRecorder, 'record', fail_at(-1))
  assert cli.main([*arguments, f'--out={out}']) == 0
  assert len(seen) == 3
  assert len(latents.LatentSource(out)) == 5


def test_dry_run_says_how_much_and_how_long(setup, capsys):
  arguments, folder = setup
  out = folder / 'nothing'
  assert cli.main([*arguments, f'--out={out}', '--dry_run']) == 0
  text = capsys.readouterr().out
  assert 'would encode 5 clips' in text
  for unit in ('GB', 'hours', 'to decode'):
    assert unit in text
  assert not out.exists()


def test_files_of_others_are_kept(setup, tmp_path, monkeypatch):
  """Those in the way are refused; those beside what is written stay."""
  arguments, _ = setup
  out = tmp_path / 'out'
  own = [*arguments, f'--out={out}']
  for name in ('parts/mine.txt', 'captions.txt', 'latents-00000.array_record'):
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('mine')
    with pytest.raises(UserError, match=path.name):
      cli.main(own)
    assert path.read_text() == 'mine'
    shutil.rmtree(out)
  assert cli.main(own) == 0
  started = out / latents.STARTED
  whole, about = contents(out), started.read_text()
  # All shards are there, and only the index is to be written.
  for text in ('garbage', '[1]', about.replace('"clips": 5', '"clips": 6')):
    (out / latents.INDEX).unlink(missing_ok=True)
    started.write_text(text)
    with pytest.raises(UserError, match=f'{latents.STARTED}|other latents'):
      cli.main(own)
    assert not (out / latents.INDEX).exists()
  started.write_text(about)
  for name in ('mine.txt', '00000001.safetensors'):
    (out / 'parts').mkdir(exist_ok=True)
    (out / 'parts' / name).write_text('mine')
  assert cli.main(own) == 0
  assert [path.name for path in (out / 'parts').iterdir()] == ['mine.txt']
  assert contents(out) == whole


def test_changed_videos_do_not_join_what_was_begun(setup, tmp_path):
  arguments, folder = setup
  out = tmp_path / 'out'
  videos = tmp_path / 'videos'
  shutil.copytree(folder / 'videos', videos)
  own = [*arguments, f'--out={out}', f'--config.data.videos={videos}']
  assert cli.main([*own, '--shard=1/2']) == 0  # Nothing is of this part.
  latents.start(out, {'clips': 4})
  with pytest.raises(UserError, match='the beginning of other latents'):
    cli.main(own)


def test_captions_that_lack_embeddings_are_named(setup, tmp_path, capsys):
  arguments, folder = setup
  out = tmp_path / 'out'
  own = [*arguments, f'--out={out}', '--config.latents.embeddings=none']
  text = (folder / 'own.py').read_text()
  config = tmp_path / 'own.py'
  config.write_text(
    text.replace(
      '  return config', "  config.latents.embeddings = ''\n  return config"
    )
  )
  own[0] = f'--config={config}'
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red zero falls\na blue three falls\n')
  embeddings = tmp_path / 'prompts'
  assert cli.main([str(prompts), f'--out={embeddings}']) == 0
  own[-1] = f'--config.latents.embeddings={embeddings}'
  assert cli.main(own) == 0
  said = capsys.readouterr().out
  assert '4 of the 5 captions' in said
  assert '"a red one falls"' in said
  captions = out / 'captions.txt'
  assert captions.read_text().splitlines() == [
    f'a red {word} falls' for word in WORDS
  ]
  both = tmp_path / 'both'
  lists = [str(prompts), str(captions)]
  assert cli.main([*lists, f'--out={both}']) == 0
  assert '7 prompts are 6 to the tokenizer; 1 are alike' in (
    capsys.readouterr().out
  )
  own[-1] = f'--config.latents.embeddings={both}'
  assert cli.main(own) == 0
  assert 'the captions are in' not in capsys.readouterr().out


def test_the_vae_is_trained_on_videos_that_are_decoded_when_needed(setup):
  _, folder = setup
  config = load_config('configs/tiny_vae.py:test', []).unlock()
  frames = config.data.num_frames
  config.data = {
    **{'name': 'video_folder', 'dir': str(folder / 'data'), 'captions': ''},
    **{'videos': str(folder / 'videos'), 'fps': 12, 'num_frames': frames},
    **{'height': 16, 'width': 16},
  }
  config.batch_size = 2
  read = build_loader(config, [0, 1])
  batch, state = next(read), read.get_state()
  assert batch['video'].shape == (2, frames, 16, 16, 3)
  assert set(batch) == set(build_program(config).batch_spec)
  following = next(read)['video']
  read.set_state(state)
  np.testing.assert_array_equal(next(read)['video'], following)
  assert not np.array_equal(batch['video'], following)  # Control.
