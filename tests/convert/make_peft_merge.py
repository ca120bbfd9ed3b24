"""Writes fixtures/peft_merge.npz with PEFT, once, for tests without it.

python tests/convert/make_peft_merge.py
"""

import pathlib

import numpy as np
import small_models

PATH = pathlib.Path(__file__).parent / 'fixtures' / 'peft_merge.npz'
RANK, ALPHA = 4, 6
# Layers of attention, of the feed-forward net, of text, time and the head; some
# have a rank and an alpha of their own.
TARGETS = (
  *('to_q', 'to_v', 'to_out.0', 'ffn.net.0.proj', 'ffn.net.2', 'proj_out'),
  *('text_embedder.linear_1', 'time_embedder.linear_2', 'time_proj'),
)
RANKS, ALPHAS = {'ffn.net.2': 2}, {'time_proj': 1}


def merged():
  """Arrays by name: those of PEFT's file, and weights that PEFT merged."""
  import peft
  import torch

  from unitemp_jax.convert import parity_torch

  state = small_models.state_dict('dit', 'diffusers')
  # The modules share the arrays that they are given.
  own = {name: value.copy() for name, value in state.items()}
  model = parity_torch.build('dit', small_models.CONFIGS['dit'], own, 'float32')
  config = peft.LoraConfig(
    r=RANK,
    lora_alpha=ALPHA,
    target_modules=list(TARGETS),
    rank_pattern=RANKS,
    alpha_pattern=ALPHAS,
  )
  model = peft.get_peft_model(model, config)
  rng = np.random.default_rng(1)
  for name, value in sorted(model.named_parameters()):
    if 'lora_' in name:
      random = rng.standard_normal(tuple(value.shape), np.float32)
      value.data = torch.tensor(random / 4)
  lora = peft.get_peft_model_state_dict(model)
  out = {f'lora/{name}': value.numpy() for name, value in lora.items()}
  whole = model.merge_and_unload().state_dict()
  changed = [k for k in whole if not np.array_equal(whole[k].numpy(), state[k])]
  return out | {f'merged/{name}': whole[name].numpy() for name in changed}


if __name__ == '__main__':
  np.savez_compressed(PATH, **merged())
