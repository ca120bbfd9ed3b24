"""The TPU compiler itself, at a depth that is compiled in seconds."""

import pathlib
import re
import types

import jax
import jax.numpy as jnp
import pytest

from unitemp_jax.aot import compiler, hlo, memory_report, steps, topology
from unitemp_jax.bench import device
from unitemp_jax.cli.main import main
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.models import cache, sizes
from unitemp_jax.models import dit as dit_lib
from unitemp_jax.models.attention import attention_backend
from unitemp_jax.models.dit import DiT, DiTConfig
from unitemp_jax.models.weights import shapes_of
from unitemp_jax.parallel.mesh import MODEL_RULES, batch_sharding, make_mesh
from unitemp_jax.sampling import teacher
from unitemp_jax.training.config import load_config

pytestmark = pytest.mark.devices(8)

pytest.importorskip(
  'libtpu', reason="the TPU compiler; pip install 'unitemp_jax[tpu]'"
)

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
SMALL = {**device.SMALL, 'batch_size': 8}


def compiled(tmp_path, *more, topology='v5e:4x4', **changes):
  """Exit code and report of the command."""
  out = tmp_path / 'report.json'
  values = {**SMALL, **changes}
  code = main(
    [
      *('aot', f'--config={CONFIGS / "wan_1p3b_distill.py"}', '--fast'),
      *(f'--topology={topology}', f'--out={out}', *more),
      *(f'--config.{name}={value}' for name, value in values.items()),
    ]
  )
  return code, memory_report.read(out)


def test_distillation_at_a_reduced_depth(tmp_path, capsys):
  """Compiles for sixteen chips; a scan over the layers shows in the counts."""
  code, found = compiled(tmp_path, '--depth=2', '--steps=critic_only')
  (step,) = found.steps
  assert code == 0 and step.compiled and step.mesh['context'] == 2
  assert {one.kind for one in step.traffic} & {'all-gather', 'all-to-all'}
  assert step.sent > 0
  assert step.arguments['optimizer critic'] > step.arguments['EMA student'] > 0
  assert 'A reduced depth says nothing' in capsys.readouterr().out


def test_a_mesh_that_does_not_divide_is_refused(capsys):
  for mesh in ('mesh.fsdp=3', 'mesh.fsdp=4', 'mesh.data=3'):
    argv = ['aot', f'--config={CONFIGS / "wan_1p3b_distill.py"}']
    argv += ['--topology=v5e:4x4', '--steps=train', f'--config.{mesh}']
    assert main(argv) == 2
    assert 'mesh' in capsys.readouterr().err


def test_the_teacher_is_split_over_chips_with_its_kernel():
  devices = topology.devices(topology.parse('v5e:2x2'))
  mesh = make_mesh({'fsdp': 2, 'context': 2}, devices)
  words = [f'--config.{name}={value}' for name, value in SMALL.items()]
  config = load_config(str(CONFIGS / 'wan_1p3b_distill.py'), words)
  serving = steps.serving_of(config, mesh)
  card, rows = serving.card, batch_sharding(mesh)

  def split(*shape):
    return jax.ShapeDtypeStruct((2, *shape), jnp.float32, sharding=rows)

  text = split(card.text.length, card.dit.text_dim)
  noise = split(9, *serving.grid, card.dit.channels)
  student = serving.sampler().arguments['student']
  settings = teacher.settings_of(card, 2, 'unipc', guidance_scale=3.0)

  def program(mesh):
    owner = types.SimpleNamespace(_dit=DiT(card.dit), mesh=mesh)
    return Pipeline._sample_teacher.func(owner)

  def traced(jitted):
    return jitted.lower(student, text, text, noise, settings=settings)

  with attention_backend('splash'), compiler.effort(fast=True):
    run = program(mesh)
    with jax.set_mesh(mesh):
      compiled = traced(run.__wrapped__).compile().as_text()
    assert 'tpu_custom_call' in compiled and 'all-to-all' in compiled
    # Control: it is the mesh that says what it is traced for.
    assert 'tpu_custom_call' not in traced(program(None)).as_text()


def test_a_store_keeps_no_copy_of_the_cache(monkeypatch):
  def copies():
    words = [f'--config.{name}={value}' for name, value in SMALL.items()]
    config = load_config(str(CONFIGS / 'wan_1p3b_distill.py'), words)
    devices = topology.devices(topology.parse('v5e:1x1'))
    (step,) = steps.steps_of(config, ['store'], devices)
    jax.clear_caches()
    with compiler.effort(fast=True):
      text = step.lower().compile().as_text()
    whole = ','.join(map(str, step.arguments['cache'].k_LBSNK.shape))
    return len(re.findall(rf' = bf16\[{whole}\]\S* copy\(', text))

  # At this size the compiler moves it to faster memory and back besides.
  found = copies()
  # Read while other slots are written, keys and values are kept as they were.
  monkeypatch.setattr(cache.lax, 'optimization_barrier', lambda x: x)
  assert copies() == found + 2


TOKENS = {96, 48, 288, 144}  # of a frame and of a row, whole and split


def whole_activations(devices):
  """Collectives of a transformer that put activations together or add them.

  And whether any are exchanged all to all.
  """
  dit = DiT(
    DiTConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=2, text_dim=8)
  )
  mesh = make_mesh({'fsdp': 2, 'context': 2}, devices)
  params = shapes_of(sizes.param_shapes(dit.config), mesh, MODEL_RULES)
  rows = batch_sharding(mesh)

  def split(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows)

  def forward(params, x, sigma, text):
    arguments = (x, sigma, jnp.arange(3), text)
    return dit.apply({'params': params}, *arguments, method='init_all')[0]

  with jax.set_mesh(mesh), compiler.effort(fast=True):
    arguments = (split(2, 3, 16, 24, 16), split(2, 3), split(2, 16, 8))
    text = jax.jit(forward).lower(params, *arguments).compile().as_text()
  layers = [
    one for one, *_ in hlo.executions(text, 1) if '/blocks/' in one.rest
  ]
  kinds = {one.opcode for one in layers}
  assert 'all-gather' in kinds  # of weights
  whole = [
    one.shape
    for one in layers
    if one.opcode.startswith(('all-reduce', 'all-gather'))
    and TOKENS & {int(size) for size in re.findall(r'\d+', one.shape)}
  ]
  return whole, 'all-to-all' in kinds


def test_activations_go_between_tokens_and_heads_by_an_all_to_all(monkeypatch):
  devices = topology.devices(topology.parse('v5e:2x2'))
  assert whole_activations(devices) == ([], True)
  # Control: told nothing, the compiler puts activations together.
  for name in ('split_heads', 'join_heads'):
    monkeypatch.setattr(dit_lib, name, lambda x: x)
  assert whole_activations(devices)[0]
