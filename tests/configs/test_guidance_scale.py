"""`guidance_scale` is w in u + w (c - u) in every config, as it was meant."""

import json

import pytest

from unitemp_jax.diffusion import guidance
from unitemp_jax.training import workdir
from unitemp_jax.training.config import load_config
from unitemp_jax.training.programs import distill

# What `guidance` of `sampling` and of `loss`, c + w (c - u), was in each.
FORMER = {
  'tiny_teacher': (3.0, None),
  'tiny_student_init': (3.0, None),
  'tiny_distill': (3.0, 2.0),
  'wan_1p3b_teacher': (6.0, None),
  'wan_14b_teacher': (5.0, None),
  'wan_1p3b_student_init': (6.0, None),
  'wan_1p3b_ode_init': (6.0, None),
  'wan_1p3b_distill': (6.0, 3.0),
}


@pytest.mark.parametrize('name', FORMER)
def test_configs_mean_what_they_meant(name):
  config = load_config(f'configs/{name}.py')
  sampling, loss = FORMER[name]
  assert guidance.config_scale(config, 'sampling') == sampling
  if loss is not None:
    assert guidance.config_scale(config, 'loss') == loss + 1
  former = workdir.former_config(config.to_dict())
  assert former['sampling']['guidance'] == sampling
  assert former['loss'].get('guidance') == loss
  assert not {'guidance_scale'} & {*former['sampling'], *former['loss']}


def test_former_configs_and_options_are_read():
  config = load_config('configs/tiny_distill.py:test')
  plain = json.loads(json.dumps(config.to_dict()))
  former = workdir.former_config(plain)
  assert workdir.fingerprint(former) == workdir.fingerprint(plain)
  changed = load_config(
    'configs/tiny_distill.py:test',
    ['--config.loss.guidance=4.5', '--config.sampling.guidance=2'],
  )
  assert changed.loss.guidance_scale == 5.5
  assert changed.sampling.guidance_scale == 2.0
  assert workdir.fingerprint(changed.to_dict()) != workdir.fingerprint(former)
  with config.unlocked():
    config.loss = former['loss']
  assert distill.settings_of(config).guidance_scale == 3.0
