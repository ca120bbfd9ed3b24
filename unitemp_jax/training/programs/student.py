"""Training the initial student: on clips, or on the teacher's trajectories."""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from unitemp_jax.errors import UserError
from unitemp_jax.models import flops, umt5
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.objectives import ode_init, student_init, teacher_forcing
from unitemp_jax.training.flops import Clip
from unitemp_jax.training.program import SingleLossProgram
from unitemp_jax.training.programs import builders, networks, samples


class StudentInitProgram(SingleLossProgram):
  """Any-order teacher forcing on clips; starts from the teacher."""

  name = 'student'
  loss_fn: Callable[..., tuple[jax.Array, dict]] = staticmethod(
    student_init.loss
  )

  def __init__(self, config: ConfigDict):
    """Reads `model`, `teacher`, `orders`, `student` and `loss`."""
    super().__init__(config)
    self._dit = DiT(builders.dit_config(config.model))
    self._encoder = TextEncoder(builders.text_config(config.model))
    teacher = networks.lazy_teacher(config)
    self.frozen = {'text': teacher['text']}
    self.initial = {'dit': teacher['dit']}
    self.batch_spec = builders.latent_spec(config)
    self.sample = samples.student_sampler(config, teacher['text'])
    frames = builders.latent_shape(config)[0]
    plans, weights = builders.training_plans(config.orders, frames)
    self._layout = teacher_forcing.Layout(
      frames, plans[0].block, config.orders.anchors
    )
    masks = [teacher_forcing.plan_mask(plan, self._layout) for plan in plans]
    self._table = student_init.plan_table(masks, weights)

  def settings(self) -> dict[str, Any]:
    """Returns what `loss_fn` takes besides the numbers of `config.loss`."""
    orders = self._config.orders
    start = builders.student_sigmas(self._config)[orders.start]
    return {'draft_sigma': orders.get('draft_sigma') or float(start)}

  def init_params(self, key, initial):
    """Returns the teacher's transformer."""
    return initial['dit']

  def loss(self, params, frozen, batch, key):
    """Returns the masked loss of all blocks; see `loss_fn`."""
    config, dit = self._config, self._dit
    text = umt5.batch_text(self._encoder, frozen['text'], batch)
    context = umt5.text_context(dit, params, text)

    def denoise(params, x, sigma, positions, mask):
      return dit.apply(
        {'params': params}, x, sigma, positions, context, mask_BFF=mask
      )[0]

    return self.loss_fn(
      params,
      batch,
      key,
      denoise=denoise,
      layout=self._layout,
      table=self._table,
      draft_from=int(builders.windowed(config.orders)),
      **self.settings(),
      **config.loss.to_dict(),
    )

  def flops(self) -> dict[str, flops.Flops]:
    """Returns the operations per row if all frames see each other.

    An upper bound: a mask leaves most of them out.
    """
    clip, dit = Clip.of(self._config), self._dit.config
    whole = Clip(self._layout.frames, clip.frame, clip.text)
    score = flops.trained(whole.bidirectional(dit), dit.remat != 'none')
    return {'step': score + flops.trained(clip.context(dit))}


class ODEInitProgram(StudentInitProgram):
  """The same on the teacher's trajectories (`unitemp ode_pairs`)."""

  loss_fn = staticmethod(ode_init.loss)

  def __init__(self, config: ConfigDict):
    """Reads the same as `StudentInitProgram`."""
    super().__init__(config)
    if config.orders.get('draft_sigma'):
      raise UserError(
        f'config.orders.draft_sigma is {config.orders.draft_sigma}, but '
        'trajectories hold the sigmas of config.student only; use 0, or the '
        'objective student_init.'
      )
    self.batch_spec = builders.latent_spec(config, trajectories=True)

  def settings(self) -> dict[str, Any]:
    """Returns what `loss_fn` takes besides the numbers of `config.loss`."""
    return {
      'sigmas': builders.student_sigmas(self._config),
      'start': self._config.orders.start,
    }
