"""What a layer keeps for the backward pass, by name.

none       everything: the fastest, and far too much at full size
full       what enters the layer; the rest is computed again
attention  what enters the layer and what leaves its attentions, the costliest
           part; the rest is computed again
offload    as `full`, but what enters the layer waits in the host's memory
"""

from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from unitemp_jax.errors import UserError
from unitemp_jax.models import attention

POLICIES = ('none', 'full', 'attention', 'offload')

_INPUT = 'layer_input'


def mark_input(x: jax.Array) -> jax.Array:
  """Names what enters a layer."""
  return checkpoint_name(x, _INPUT)


def policy_named(policy: str | bool) -> str:
  """Checks a name; True and False, of older models, are full and none.

  Raises:
    UserError: there is no such policy.
  """
  if isinstance(policy, bool):
    return 'full' if policy else 'none'
  if policy not in POLICIES:
    raise UserError(
      f"the dit config's remat is {policy!r}; use one of {', '.join(POLICIES)}."
    )
  return policy


def rematerialised(block: type[nn.Module], policy: str) -> Any:
  """Returns the layer, keeping what the policy says."""
  if policy == 'none':
    return block
  policies = jax.checkpoint_policies
  kept = {
    'full': None,
    'attention': policies.save_only_these_names(attention.RESIDUALS),
    'offload': policies.save_and_offload_only_these_names(
      names_which_can_be_saved=[],
      names_which_can_be_offloaded=[_INPUT],
      offload_src='device',
      offload_dst='pinned_host',
    ),
  }
  return nn.remat(block, policy=kept[policy])
