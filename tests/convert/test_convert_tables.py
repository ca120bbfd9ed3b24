"""The tables name every tensor of every published size, and nothing else."""

import dataclasses
import math

import published_names
import pytest
import small_models

from unitemp_jax.convert import fit, keymap, wan
from unitemp_jax.models import sizes

LAYOUTS = ('wan', 'diffusers')
SIZE_14B = {'d': 5120, 'ffn': 13824, 'layers': 40}
# (kind, arguments of the independent list, parameters)
PUBLISHED = {
  'Wan 2.1 T2V 1.3B': (
    'dit',
    {'d': 1536, 'ffn': 8960, 'layers': 30},
    1_418_996_800,
  ),
  'Wan 2.1 T2V 14B': ('dit', SIZE_14B, 14_288_491_584),
  'Wan 2.1 VAE': ('vae', {}, 126_892_531),
  'UMT5-XXL': ('umt5', {}, 5_680_910_336),
}


def table_names(kind, config, layout):
  """Name -> shape, as the tables of the package say."""
  shapes = sizes.param_shapes(config)
  found = keymap.entries(wan.TABLES[kind], layout, shapes)
  assert len({entry.name for entry in found}) == len(found)
  return {entry.name: entry.shape for entry in found}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('size', PUBLISHED)
def test_published_sizes(size, layout):
  kind, arguments, parameters = PUBLISHED[size]
  named = table_names(kind, fit.PRESETS[kind][size], layout)
  assert named == getattr(published_names, kind)(layout, **arguments)
  assert sum(map(math.prod, named.values())) == parameters


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('kind', small_models.CONFIGS)
def test_small_sizes(kind, layout):
  named = table_names(kind, small_models.CONFIGS[kind], layout)
  assert named == small_models.names(kind, layout)


@pytest.mark.parametrize('kind', small_models.CONFIGS)
def test_every_row_is_used_and_no_path_is_without(kind):
  """Negative control: a table that lacks a row is found out."""
  table = wan.TABLES[kind]
  shapes = sizes.param_shapes(next(iter(fit.PRESETS[kind].values())))
  paths = keymap.flat_shapes(shapes)
  for row in table.rows:
    less = tuple(other for other in table.rows if other is not row)
    with pytest.raises(ValueError, match='0 rows'):
      keymap.entries(dataclasses.replace(table, rows=less), 'wan', shapes)
    if len(paths) > 300:
      break
