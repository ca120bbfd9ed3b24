"""Cards, configs and options from before sizes had the field's names."""

import json

import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.sampling import model_folder
from unitemp_jax.training import workdir
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import builders

# As `unitemp export` wrote it.
DIT = {
  'width': 160,
  'ffn_width': 640,
  'heads': 5,
  'layers': 6,
  'channels': 16,
  'patch': 2,
  'text_width': 96,
  'freq_width': 128,
  'rope_theta': 100.0,
  'dtype': 'float32',
  'remat': False,
  'unroll': 6,
}
TEXT = {
  'vocab': 68,
  'width': 96,
  'heads': 4,
  'head_dim': 24,
  'ffn_width': 192,
  'layers': 2,
  'buckets': 32,
  'max_distance': 128,
  'length': 20,
  'dtype': 'float32',
}
CARD = {
  'vae': {
    **{'base_dim': 16, 'dim_mult': [1, 2, 4], 'patch': 2},
    'temporal_down': [True, True],
  },
  'dit': DIT,
  'text': TEXT,
  'timesteps': [1000, 750, 500, 250],
  'shift': 5.0,
  'teacher_shift': 3.0,
  'guidance': 3.0,
  'frames': 33,
  'height': 32,
  'width': 32,
  'fps': 12,
  'block': 3,
  'anchors': 3,
  'anchor_kind': 'windowed',
  'start': 3,
  'provenance': {'config': {'model': {'dit': {'width': 160}}}},
}
# What a checkpoint of that time says of `RUN`, as an earlier version wrote it.
RUN = {'seed': 0, 'model': {'dit': DIT, 'text': TEXT}, 'data': {'width': 832}}
RUN_FINGERPRINT = 'db7516608813efa4'


def test_a_former_card_is_read_and_a_new_one_written(tmp_path):
  (tmp_path / 'model.json').write_text(json.dumps(CARD))
  card = model_folder.read_card(tmp_path)
  assert card.dit == DiTConfig(
    dim=160,
    ffn_dim=640,
    num_heads=5,
    num_layers=6,
    text_dim=96,
    freq_dim=128,
    rope_theta=100.0,
    unroll=6,
  )
  assert (card.text.dim, card.text.num_heads, card.text.num_layers) == (
    96,
    4,
    2,
  )
  assert card.text.ffn_dim == 192
  assert (card.height, card.width) == (32, 32)  # The picture's.
  model_folder.write_card(tmp_path, card)
  assert model_folder.read_card(tmp_path) == card
  fields = json.loads((tmp_path / 'model.json').read_text())
  assert not {'width', 'heads', 'layers'} & set(fields['dit'])


def test_both_names_of_one_size_are_refused(tmp_path):
  card = CARD | {'dit': DIT | {'dim': 160}}
  (tmp_path / 'model.json').write_text(json.dumps(card))
  with pytest.raises(UserError, match='width'):
    model_folder.read_card(tmp_path)


def test_a_former_workdir_holds_the_same_run(tmp_path):
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(RUN))
  renamed = {
    **RUN,
    'model': {
      'dit': {
        **{k: v for k, v in DIT.items() if k in ('channels', 'patch')},
        **{'dim': 160, 'ffn_dim': 640, 'num_heads': 5, 'num_layers': 6},
        **{'text_dim': 96, 'freq_dim': 128, 'rope_theta': 100.0},
        **{'dtype': 'float32', 'remat': False, 'unroll': 6},
      },
      'text': {
        **{'vocab': 68, 'dim': 96, 'num_heads': 4, 'head_dim': 24},
        **{'ffn_dim': 192, 'num_layers': 2, 'buckets': 32},
        **{'max_distance': 128, 'length': 20, 'dtype': 'float32'},
      },
    },
  }
  assert (
    workdir.fingerprint(RUN) == workdir.fingerprint(renamed) == RUN_FINGERPRINT
  )
  workdir.check_config(tmp_path, renamed)
  other = {**renamed, 'model': {**renamed['model'], 'dit': {'dim': 32}}}
  assert workdir.fingerprint(other) != RUN_FINGERPRINT
  with pytest.raises(UserError, match=r'model\.dit\.dim') as raised:
    workdir.check_config(tmp_path, other)
  assert 'width' not in str(raised.value)


def test_former_names_in_configs_and_options():
  assert builders.dit_config({'dit': DIT}).num_heads == 5
  assert builders.text_config({'text': TEXT}) == TextConfig(
    vocab=68, dim=96, num_heads=4, head_dim=24, ffn_dim=192, num_layers=2,
    length=20,
  )  # fmt: skip
  config = load_config(
    'configs/tiny_teacher.py:test', ['--config.model.dit.width=64']
  )
  assert config.model.dit.dim == 64
