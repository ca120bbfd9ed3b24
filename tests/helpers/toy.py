"""A small regression that stands for an objective, and a command that runs it.

Run as a script it trains in --workdir, for the tests that kill a training.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from unitemp_jax.errors import UserError
from unitemp_jax.parallel import processes
from unitemp_jax.parallel.mesh import enable_compile_cache, make_mesh
from unitemp_jax.training.loop import LoopSettings, train
from unitemp_jax.training.optim import (
  accumulate_gradients,
  ema_update,
  make_optimizer,
)
from unitemp_jax.training.program import TrainState


class ToyLoader:
  """Shuffled rows of a fixed set, endless, with a position."""

  def __init__(
    self, batch_size=8, seed=0, forgetful=False, delay=0.0, shard=(0, 1)
  ):
    rng = np.random.default_rng(seed)
    self.x = rng.standard_normal((40, 4), dtype=np.float32)
    self.y = np.sin(self.x.sum(1, keepdims=True))
    self.batch_size, self.seed = batch_size, seed
    self.forgetful, self.delay = forgetful, delay
    self.shard = shard
    self.count = 0

  def __next__(self):
    time.sleep(self.delay)
    rows = []
    for i in range(self.count, self.count + self.batch_size):
      order = np.random.default_rng([self.seed, i // 40]).permutation(40)
      rows.append(order[i % 40])
    self.count += self.batch_size
    # In one piece each, so that the global batch is the same for any number.
    rows = np.split(np.array(rows), self.shard[1])[self.shard[0]]
    return {'x': self.x[rows], 'y': self.y[rows]}

  def get_state(self):
    return {'count': self.count}

  def set_state(self, state):
    if not self.forgetful:
      self.count = state['count']


def toy_loss(params, batch, key):
  noise = 0.1 * jax.random.normal(key, batch['x'].shape)
  hidden = jnp.tanh((batch['x'] + noise) @ params['up']['kernel'])
  output = hidden @ params['down']['kernel'] + params['down']['bias'][None]
  loss = jnp.mean(jnp.square(output - batch['y']))
  return loss, {'output_mean': jnp.mean(output)}


class ToyProgram:
  """A network and a critic; only every third step trains the network."""

  def __init__(self, accumulate=1, learning_rate=1e-2, sample=None):
    optimizer = make_optimizer(learning_rate=learning_rate, weight_decay=0.01)
    self.optimizers = {'net': optimizer, 'critic': optimizer}
    self.frozen = {'scale': np.ones((), np.float32)}
    self.initial = {}
    self.accumulate = accumulate
    self.sample = sample
    self.steps = {'both': (self._make(True), 1), 'one': (self._make(False), 2)}

  def init(self, key, _):
    key, *keys = jax.random.split(key, 3)
    params = {
      name: {
        'up': {'kernel': jax.random.normal(key, (4, 16)) * 0.5},
        'down': {'kernel': jnp.zeros((16, 1)), 'bias': jnp.zeros((1,))},
      }
      for name, key in zip(('net', 'critic'), keys, strict=True)
    }
    return TrainState.create(key, params, self.optimizers, ema=('net',))

  def step_name(self, step):
    return 'one' if step % 3 else 'both'

  def _make(self, both):
    names = ('net', 'critic') if both else ('critic',)

    def toy_step(state, batch, frozen):
      params, opt_state, ema = dict(state.params), dict(state.opt_state), {}
      metrics = {}
      for i, name in enumerate(names):
        key = jax.random.fold_in(state.step_key(), i)
        grads, values = accumulate_gradients(
          toy_loss, params[name], batch, key, self.accumulate
        )
        updates, opt_state[name] = self.optimizers[name].update(
          grads, opt_state[name], params[name]
        )
        params[name] = jax.tree.map(jnp.add, params[name], updates)
        metrics[f'{name}_loss'] = values['loss'] * frozen['scale']
      metrics['loss'] = sum(metrics.values())
      ema['net'] = ema_update(state.ema['net'], params['net'], 0.9)
      return state.replace(params=params, opt_state=opt_state, ema=ema), metrics

    return toy_step


# The kernels of the toy, split as the models' table splits theirs.
TOY_RULES = (
  (r'(^|/)up/kernel$', jax.sharding.PartitionSpec(None, 'fsdp')),
  (r'(^|/)down/kernel$', jax.sharding.PartitionSpec('fsdp')),
)


class Doomed(ToyLoader):
  """Cannot be opened on host 1."""

  def __init__(self, **options):
    if jax.process_index() == 1:
      raise UserError('the disk of this host is full.')
    super().__init__(**options)


def sample(state, folder):
  """Writes which devices it has, and the whole of a mean that was split."""
  mesh = make_mesh({'data': -1})
  kernel = jax.device_put(
    state.ema['net']['up']['kernel'],
    jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
  )
  values = np.asarray(kernel).ravel().tolist()
  (folder / 'sample.json').write_text(json.dumps([mesh.size, values]))


def run(args):
  mesh = make_mesh({'data': -1, 'fsdp': args.fsdp})
  with processes.sync('Opening the data'):
    loader = (Doomed if args.doomed else ToyLoader)(
      forgetful=args.forgetful,
      delay=args.delay,
      shard=(jax.process_index(), jax.process_count()),
    )
  return train(
    ToyProgram(accumulate=2, sample=sample),
    loader,
    LoopSettings(
      num_steps=args.num_steps,
      log_every=1,
      checkpoint_every=5,
      sample_every=args.sample_every,
    ),
    workdir=args.workdir,
    mesh=mesh,
    rules=TOY_RULES,
  )


def arguments(words=None):
  """The options of the command, of this process unless others are given."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--workdir')
  parser.add_argument('--num_steps', type=int, default=40)
  parser.add_argument('--forgetful', action='store_true')
  parser.add_argument('--doomed', action='store_true')
  parser.add_argument('--delay', type=float, default=0.0)
  parser.add_argument('--fsdp', type=int, default=1)
  parser.add_argument('--sample_every', type=int, default=0)
  parser.add_argument('--hosts', type=int, default=1)
  parser.add_argument('--host_index', type=int)
  parser.add_argument('--coordinator')
  return parser.parse_args(words)


def main():
  args = arguments()
  enable_compile_cache()
  processes.join(args.hosts, args.coordinator, args.host_index)
  try:
    result = run(args)
  except Exception as error:
    if args.hosts == 1:
      raise
    processes.abort(error, 1)
  print(result.outcome, result.checkpoint)
  if args.hosts > 1:
    jax.distributed.shutdown()


if __name__ == '__main__':
  main()
