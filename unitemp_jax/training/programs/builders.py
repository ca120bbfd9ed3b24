"""From config dicts to the frozen dataclasses that the models take."""

from typing import Any

from ml_collections import ConfigDict

from unitemp_jax.data.falling_digits import FallingDigitsSpec
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes
from unitemp_jax.models.dit import DiTConfig
from unitemp_jax.models.umt5 import TextConfig
from unitemp_jax.models.vae3d import VAEConfig
from unitemp_jax.training.optim import make_optimizer


def model_config(kind: type, values: ConfigDict | dict[str, Any]) -> Any:
  """Returns `kind(**values)`, a frozen dataclass; lists become tuples.

  Raises:
    UserError: a name that the dataclass does not have.
  """
  try:
    return sizes.config_from(kind, values)
  except TypeError as error:
    raise UserError(
      f'the config of {kind.__name__} does not fit ({error}); remove or '
      'rename that key.'
    ) from error


def frame_size(data: ConfigDict) -> tuple[int, int]:
  """Rows and columns of a `config.data`'s clips; one `size` is both."""
  if 'size' in data:
    return data.size, data.size
  return data.height, data.width


def vae_config(model: ConfigDict) -> VAEConfig:
  """The VAE of a `config.model`."""
  return model_config(VAEConfig, model['vae'])


def dit_config(model: ConfigDict) -> DiTConfig:
  """The transformer of a `config.model`."""
  return model_config(DiTConfig, model['dit'])


def text_config(model: ConfigDict) -> TextConfig:
  """The text encoder of a `config.model`."""
  return model_config(TextConfig, model['text'])


def clip_spec(data: ConfigDict) -> FallingDigitsSpec:
  """The training clips of a `config.data`."""
  return FallingDigitsSpec(
    num_frames=data.num_frames,
    size=data.size,
    hop_share=data.hop_share,
    turn_share=data.turn_share,
  )


def optimizer(values: ConfigDict):
  """AdamW from a `config.optimizer`."""
  return make_optimizer(**values.to_dict())
