"""Tiles that benchmark `attention` tries, per backend.

Stages follow each other; each starts from what won in the one before. Sizes go
up to what the vector memory of a TPU takes; what does not compile is left out.
"""

from unitemp_jax.models.attention import splash, xla
from unitemp_jax.parallel import mesh_context

# Name of a choice -> the sizes that differ.
Choices = dict[str, dict[str, int]]

QUERIES = (520, 1040, 1560, 2344)
KEYS = (512, 1024, 2048)
COMPUTED = (256, 512, 1024)
LOGITS = (2**20, 2**21, 2**22, 2**23)


def _splash(q, k, v, length, mask, tiles):
  interpret = mesh_context.platform() != 'tpu'
  return splash.attention(q, k, v, length, mask, tiles, interpret)


def _pieces(q, k, v, length, mask, tiles):
  return xla.in_pieces(q, k, v, length, mask, logits=tiles.xla_logits)


def _cudnn(q, k, v, length, mask, tiles):
  del mask, tiles  # takes no mask, chooses by itself
  return xla.cudnn_attention(q, k, v, length)


# Backend -> attention with given tiles.
FORMS = {'splash': _splash, 'xla': _pieces, 'cudnn': _cudnn}


def stages(backend: str, unit: tuple[int, int]) -> list[tuple[bool, Choices]]:
  """Returns the stages: with a backward pass or not, and what to try.

  Args:
    backend: see FORMS.
    unit: queries and keys that are cut into blocks; of a frame with a mask.
  """
  if backend == 'cudnn':
    only: Choices = {'cudnn': {}}
    return [(False, only), (True, only)]
  if backend == 'xla':
    return [(False, {f'{n} logits': {'xla_logits': n} for n in LOGITS})]
  keys = KEYS + _whole(unit[1])
  forward = {
    f'q {q}, kv {kv}, compute {compute}': {
      'block_q': q,
      'block_kv': kv,
      'block_kv_compute': compute,
    }
    for q in QUERIES
    for kv in keys
    for compute in _computed(kv)
  }
  backward = {
    f'dkv: q {q}, kv {kv}, compute {compute}': {
      'block_q_dkv': q,
      'block_kv_dkv': kv,
      'block_kv_dkv_compute': compute,
      'block_q_dq': 512,
      'block_kv_dq': kv,
    }
    for q in (896, 1664)
    for kv in keys
    for compute in _computed(kv)
  }
  return [(False, forward), (True, backward)]


def _whole(keys: int) -> tuple[int, ...]:
  """All keys of a short unit in one block, as of a frame under a mask."""
  padded = -(-keys // 128) * 128
  return (padded,) if padded <= 2048 and padded not in KEYS else ()


def _computed(keys: int) -> tuple[int, ...]:
  """How many keys to compute at a time, of a block."""
  fitting = tuple(size for size in COMPUTED if keys % size == 0)
  return fitting or (128, keys)
