"""Names of the leaves of a tree, and the rank a leaf has within one layer."""

import re

import jax

# A scan over layers stacks the parameters of all layers along a leading axis,
# under a module called `blocks`.
_LAYER_STACK = re.compile(r'(^|/)blocks/')


def path_name(key_path) -> str:
  """Returns a jax key path as `a/b/c`, the form that rules are written for."""
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def rank_in_layer(path: str, leaf) -> int:
  """Returns the number of axes of `leaf`, not counting a stack of layers."""
  return leaf.ndim - bool(_LAYER_STACK.search(path))
