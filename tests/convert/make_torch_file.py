"""Writes fixtures/torch_saved.pt with PyTorch, once, for tests without it.

python tests/convert/make_torch_file.py
"""

import collections
import pathlib

PATH = pathlib.Path(__file__).parent / 'fixtures' / 'torch_saved.pt'


def values(torch):
  """Everything that a state dict may hold."""
  base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
  tied = base.to(torch.bfloat16)
  return {
    'generator': collections.OrderedDict(
      {
        'model.float32': base,
        'model.float16': base.half(),
        'model.bfloat16': tied,
        'model.tied': tied,
        'model.transposed': base.T,
        'model.slice': base[1:3, 2:5],
        'model.parameter': torch.nn.Parameter(base[0].clone()),
        'model.empty': torch.zeros(0, 3),
        'model.counter': torch.tensor(7),
      }
    ),
    'step': 600,
    'note': 'text',
    'betas': (0.0, 0.999),
  }


if __name__ == '__main__':
  import torch

  PATH.parent.mkdir(exist_ok=True)
  torch.save(values(torch), PATH)
