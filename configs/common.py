"""What every training config has: the loop's settings and the optimizer's."""

from typing import Any

from ml_collections import ConfigDict


def training_config(**changes: Any) -> ConfigDict:
  """Returns the settings that `unitemp train` reads itself.

  A config file starts from these and adds `objective`, `data`, `model`, ... for
  the builders. `changes` replace values of known keys.
  """
  config = ConfigDict(
    {
      'seed': 0,
      'num_steps': 1000,
      # Rows per step over all devices, computed in `accumulate` passes.
      'batch_size': 32,
      'accumulate': 1,
      # Rows are split over data and fsdp, tokens of a row over context,
      # parameters over fsdp and context. -1: all devices that are left.
      'mesh': {'data': -1, 'fsdp': 1, 'context': 1},
      # Devices there must be on all hosts together. 0: as many as there are.
      'num_devices': 0,
      # How often, in steps; a checkpoint also after so many minutes. 0: never.
      'log_every': 50,
      'checkpoint_every': 0,
      'checkpoint_minutes': 5.0,
      # Of checkpoints: how many of the newest are kept, and steps between those
      # that are kept for good. 0: none.
      'keep_checkpoints': 2,
      'keep_every': 0,
      'sample_every': 0,
      # A step is skipped if a metric is not finite or its loss is larger, in
      # units of its running mean (0: no limit). This number of skipped steps in
      # a row stops the training.
      'max_loss_ratio': 100.0,
      'max_skipped': 5,
      # Traced into WORKDIR/profile: the first step and how many. 0: none.
      'profile_step': 10,
      'profile_steps': 0,
    }
  )
  config.lock()  # Refuses unknown keys in `changes`.
  config.update(changes)
  return config.unlock()


def optimizer_config(**changes: Any) -> ConfigDict:
  """Returns the arguments of `make_optimizer`; `changes` replace values."""
  config = ConfigDict(
    {
      'name': 'adamw',
      'learning_rate': 1e-3,
      'schedule': 'constant',
      'warmup_steps': 0,
      'decay_steps': 0,
      'final_fraction': 0.0,
      'b1': 0.9,
      'b2': 0.999,
      'eps': 1e-8,
      'weight_decay': 0.0,
      'clip_norm': 1.0,
    }
  )
  config.lock()  # Refuses unknown keys in `changes`.
  config.update(changes)
  return config.unlock()
