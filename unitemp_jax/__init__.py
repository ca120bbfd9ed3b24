"""Any-order video generation with one autoregressive student, in JAX.

import unitemp_jax
model = unitemp_jax.load()  # the tiny model; or load('folder')
request = unitemp_jax.workflows.extend(
    model, 'clip.mp4', 'a red seven falls', before='2s')
for piece in model.run(request):  # as they are made
  show(piece.frames, piece.first, piece.seconds)
video = model.video(request)  # the finished video, uint8 [T, H, W, 3]
"""

import importlib
import pathlib
from typing import Any

__version__ = '0.1.0'
TINY = pathlib.Path(__file__).parent / 'assets' / 'tiny'  # The model within.

# Name -> (module, attribute in it); imported on first use, for jax is slow to
# import and small commands do not need it.
_LAZY = {
  'load': ('unitemp_jax.generate.pipeline', 'load'),
  'Pipeline': ('unitemp_jax.generate.pipeline', 'Pipeline'),
  'Request': ('unitemp_jax.generate.request', 'Request'),
  'workflows': ('unitemp_jax.generate.workflows', None),
}


def __getattr__(name: str) -> Any:
  """Imports what the interface consists of."""
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _LAZY[name]
  found = importlib.import_module(module)
  return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
  """Names for completion."""
  return sorted({*globals(), *_LAZY})
