"""Writes what PyTorch makes of every case to `fixtures`.

  python tests/parity/make_fixtures.py [CASE ...]

Needs torch, diffusers and transformers; a fixture names their versions. It
holds outputs only, a sample of the large ones: weights and inputs are numbers
that every machine makes alike.
"""

import pathlib
import sys

import cases
import diffusers
import fixture_cases
import numpy as np
import torch
import torch_side
import transformers

FOLDER = pathlib.Path(__file__).parent / 'fixtures'


def main(names: list[str]) -> None:
  FOLDER.mkdir(exist_ok=True)
  versions = {
    module.__name__: module.__version__
    for module in (torch, diffusers, transformers)
  }
  for name in names or fixture_cases.CASES:
    case = fixture_cases.CASES[name]
    made = {k: cases.sampled(v) for k, v in torch_side.make(name).items()}
    if 'config' in case.arguments:
      kind = 'dit' if case.function == 'student' else case.function
      made['digest'] = np.int64(cases.digest(kind, case.arguments['config']))
    np.savez_compressed(FOLDER / f'{name}.npz', versions=str(versions), **made)
    print(name, {k: np.shape(v) for k, v in made.items()}, flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
