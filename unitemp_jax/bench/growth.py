"""Benchmark `growth`: what does more cost, in blocks, clips and devices?

Blocks of a streamed video, clips of a batch, and devices of a training step,
for the same small model. Devices are made up on a CPU: what a step sends is
read off its compiled program, and says nothing about the time of real links.
"""

import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax import orders, timeline
from unitemp_jax.aot import hlo, steps
from unitemp_jax.bench import long
from unitemp_jax.bench.measure import Context, Outcome
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.metrics.results import Result, Section
from unitemp_jax.models.dit import DiT
from unitemp_jax.parallel.mesh import make_mesh
from unitemp_jax.sampling import sampler
from unitemp_jax.training.config import load_config

BATCHES = (1, 2, 4, 8, 16, 32, 64)
DEVICES = (1, 2, 4, 8)
CONFIG, STEP = 'configs/tiny_distill.py:test', 'critic_only'
_NEAR = 10  # blocks that a row is the median of
_BLOCK = 'median of 10 blocks, one clip streamed through a window'
_ARRAYS = 'arrays that jax keeps after that block'
_CLIP = 'one clip of a batch made in one program, mean over warm repeats'
_SCRATCH = 'what the program allocates besides, for all clips'
_SENT = f'one device, one {STEP} of {CONFIG}; compiled, not run'


def run(context: Context) -> Outcome:
  """Measures all three; UserError for a model that cannot be read."""
  rows = [*_blocks(context), *_batches(context), *_devices(context)]
  return Outcome((Section('How costs grow', tuple(rows)),), {})


def _blocks(context: Context) -> list[Result]:
  request = long.make_request(context, 'forward', windowed=True)
  seconds, memory, _ = long.stream(context, request, 'forward')
  rows = []
  last = len(seconds) - _NEAR
  for block in sorted({10, 20, 50, 100, 150, last}):
    if 10 <= block <= last:
      near, name = 1000 * seconds[block : block + _NEAR], f'block {block}'
      mean = bootstrap.pooled('median', near)
      rows.append(context.row('time of a block', name, mean, 'ms', _BLOCK))
      kept = bootstrap.exact(memory[block], 1)
      rows.append(context.row('memory', name, kept, 'MiB', _ARRAYS))
  return rows


def _batches(context: Context) -> list[Result]:
  card, rows = context.card, []
  count = timeline.num_latents(card.frames)
  plan = sampler.bucketed(
    orders.forward(count, block=card.block, anchors=card.anchors)
  )
  table = jax.tree.map(jnp.asarray, plan)

  @jax.jit
  def sample(student, latents, texts, seeds):
    net = sampler.make_net(DiT(card.dit), student, texts[None])
    return sampler.sample_plan(card, net, table, latents, seeds)[0]

  for batch in BATCHES:
    shape = (batch, plan.num_latents, *context.grid, card.dit.channels)
    text = (batch, card.text.length, card.dit.text_dim)
    given = (context.student, jnp.zeros(shape), jnp.zeros(text))
    given = (*given, jnp.arange(batch, dtype=jnp.uint32))
    compiled = sample.lower(*given).compile()
    times = []
    for _ in range(1 + context.repeats):
      began = time.perf_counter()
      jax.block_until_ready(compiled(*given))
      times.append(time.perf_counter() - began)
    mean = bootstrap.mean(1000 * np.array(times[1:]) / batch)
    name = f'batch {batch}'
    rows.append(context.row('time of a clip', name, mean, 'ms', _CLIP))
    scratch = compiled.memory_analysis().temp_size_in_bytes / 2**20
    exact = bootstrap.exact(scratch, 1)
    rows.append(context.row('scratch', name, exact, 'MiB', _SCRATCH))
    context.report(f'  {name}: {mean.value:.0f} ms a clip')
  return rows


def _devices(context: Context) -> list[Result]:
  """In a process of its own, which has eight devices."""
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  environment['JAX_NUM_CPU_DEVICES'] = str(max(DEVICES))
  argv = [sys.executable, '-m', __name__, *map(str, DEVICES)]
  done = subprocess.run(
    argv, env=environment, stdout=subprocess.PIPE, text=True, check=True
  )
  rows = []
  for count, kinds in json.loads(done.stdout.splitlines()[-1]).items():
    name = f'{count} devices, a clip each'
    sent = bootstrap.exact(sum(kinds.values()) / 2**20, 1)
    how = ', '.join(f'{k} {v / 2**20:.1f}' for k, v in kinds.items())
    how = f'{_SENT} ({how or "nothing"})'
    rows.append(context.row('sent', name, sent, 'MiB', how))
  return rows


def traffic(count: int) -> dict[str, float]:
  """Bytes that one device sends in a training step, by kind."""
  config = load_config(
    CONFIG, [f'--config.batch_size={count}', '--config.accumulate=1']
  )
  mesh = make_mesh({'fsdp': -1}, jax.devices()[:count])
  step = steps.training_steps(config, mesh)[STEP]
  text = step.lower().compile().as_text()
  return {one.kind: one.bytes for one in hlo.count(text, count, 1, step.loops)}


if __name__ == '__main__':
  print(json.dumps({count: traffic(int(count)) for count in sys.argv[1:]}))
