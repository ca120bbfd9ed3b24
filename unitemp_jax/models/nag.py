"""Normalised attention guidance: a negative prompt for a few-step student.

Classifier-free guidance is distilled into such a student, and leaves no second
pass to push away from. NAG (arXiv 2505.21179, section 4) does so within each
cross-attention, on its outputs Z+ of the prompt and Z- of the negative one:

  Z~ = s Z+ - (s - 1) Z-,  cut to at most tau times the L1 norm of Z+,
  Z  = alpha Z~ + (1 - alpha) Z+
"""

import dataclasses

import jax
import jax.numpy as jnp

from unitemp_jax.errors import UserError
from unitemp_jax.models.attention import attention


@dataclasses.dataclass(frozen=True)
class Nag:
  """A negative prompt and its strengths; scale 1 is none.

  Raises:
    UserError: the prompt is empty, or a strength lies outside its range.
  """

  prompt: str
  scale: float = 5.0
  tau: float = 2.5
  alpha: float = 0.25

  def __post_init__(self):
    if not self.prompt.strip():
      raise UserError('the negative prompt is empty; leave it out.')
    for name, low, high in (
      ('scale', 1.0, 100.0),
      ('tau', 1.0, 100.0),
      ('alpha', 0.0, 1.0),
    ):
      value = getattr(self, name)
      if not low <= value <= high:
        raise UserError(
          f'--nag_{name}={value:g} must lie in {low:g}..{high:g}.'
        )


def guided(context, negative, nag: Nag):
  """The context of a prompt, guided away from that of another.

  Args:
    context: a `dit.TextContext` with leaves `[R, L, B, E, N, K]`.
    negative: that of the negative prompt, of the same shape.
    nag: strengths.
  """
  strengths = jnp.array([nag.scale, nag.tau, nag.alpha], jnp.float32)
  each = jnp.broadcast_to(strengths, (*context.k_LBENK.shape[:2], 3))
  return context.replace(other=(negative.k_LBENK, negative.v_LBENK, each))


def attend(q_BTNK, k_BENK, v_BENK, k, v, strengths) -> jax.Array:
  """Cross-attention `BTNK`, guided away from other keys and values.

  Args:
    q_BTNK: queries.
    k_BENK: keys of the prompt.
    v_BENK: values of the prompt.
    k: keys of the negative prompt.
    v: its values.
    strengths: scale, tau and alpha.
  """
  made, (scale, tau, alpha) = attention(q_BTNK, k_BENK, v_BENK), strengths
  plain = made.astype(jnp.float32)
  away = attention(q_BTNK, k, v).astype(jnp.float32)
  guidance = scale * plain - (scale - 1) * away

  def norm(x):
    return jnp.abs(x).sum((-2, -1), keepdims=True)

  ratio = norm(guidance) / jnp.maximum(norm(plain), 1e-12)
  guidance = guidance * (jnp.minimum(ratio, tau) / jnp.maximum(ratio, 1e-12))
  mixed = alpha * guidance + (1 - alpha) * plain
  return mixed.astype(made.dtype)
