"""Bidirectional self-forcing DMD as a training program.

The equations are in `unitemp_jax/README.md`, Distillation.

The student rolls out on drawn plans through the sampler's own step, the critic
follows its samples by flow matching, and the student is moved along the
difference between critic and frozen teacher.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from unitemp_jax.diffusion import flow
from unitemp_jax.errors import UserError
from unitemp_jax.models import sizes, text_to_video
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.objectives import dmd, flow_match
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import replay
from unitemp_jax.sampling.step import StepOptions
from unitemp_jax.training.accumulate import accumulate_gradients
from unitemp_jax.training.optim import ema_update
from unitemp_jax.training.programs import anchor_window, builders, samples
from unitemp_jax.training.programs.lazy_weights import LazyWeights
from unitemp_jax.training.programs.networks import (
  frozen_networks,
  initial_networks,
  normalised_vae,
  teacher_config,
)
from unitemp_jax.training.programs.plan_sets import training_plans, windowed
from unitemp_jax.training.programs.program import StepFn
from unitemp_jax.training.programs.rollout import PlanChoice, Rollout, roll_out
from unitemp_jax.training.programs.single import warm_decay
from unitemp_jax.training.programs.student import student_levels
from unitemp_jax.training.programs.teacher import latent_shape
from unitemp_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class DistillSettings:
  """Numbers of the objective, named as in Self-Forcing where it has them.

  `guidance` is w in c + w (c - u). `pin` weighs how closely the timeline must
  hold the frames that were given to it, `closing` how closely the last frame
  of a loop must be its first, `anchor_match` how closely windowed anchors must
  be the encoding of what was then generated before the block.
  `through_cache` lets gradient cross blocks (`generate.step.StepOptions`). The
  student is updated in every `critic_updates`-th step, after `critic_warmup`
  steps in which the critic alone learns what the initial student's samples
  look like. `checkpoint_rollout` trades one more pass per block for a backward
  pass that holds one block at a time (`generate.replay`), `decode_by_latent`
  decodes for `anchor_match` only as far as is needed (`anchor_window`).
  """

  shift: float
  sigma_min: float
  sigma_max: float
  guidance: float
  pin: float
  closing: float
  anchor_match: float
  through_cache: bool
  anchor_drop: float
  critic_updates: int
  critic_warmup: int
  checkpoint_rollout: bool = False
  decode_by_latent: bool = False


def check_rollout(settings: DistillSettings, plans: list[Plan]) -> None:
  """Refuses settings that exclude each other; UserError."""
  if not settings.checkpoint_rollout:
    return
  if settings.through_cache or not all(map(replay.append_only, plans)):
    raise UserError(
      'config.loss.checkpoint_rollout needs config.loss.through_cache = False '
      'and plans that write no cache slot twice; switch it off.'
    )


class DistillProgram:
  """Student and critic, trained in turn; the teacher is frozen."""

  def __init__(self, config: ConfigDict, abstract: bool):
    """Names what is read and stacks the plans; see `distill_program`."""
    self._dit = DiT(builders.dit_config(config.model))
    self._teacher_dit = DiT(teacher_config(config))
    self._encoder = TextEncoder(builders.text_config(config.model))
    self._settings = DistillSettings(**config.loss.to_dict())
    self._levels = student_levels(config)
    frames = latent_shape(config)[0]
    plans, plan_weights = training_plans(config.orders, frames)
    self._choice = PlanChoice.create(plans, plan_weights, frames)
    check_rollout(self._settings, plans)
    self._loops = bool(self._choice.loops.any())
    self._windowed = windowed(config.orders)
    self._options = StepOptions(
      draft_from=int(self._windowed),
      through_cache=self._settings.through_cache,
    )
    self.frozen = frozen_networks(config, abstract)
    if self._windowed or self._loops:
      self._vae = VAE(normalised_vae(config, abstract))
      # A whole float32 decoder beside a training is more than a small chip has.
      half = self._settings.decode_by_latent and self._dit.config.dtype
      shapes = sizes.param_shapes(self._vae.config, half or None)
      self.frozen['vae'] = LazyWeights(config.latents.vae, shapes)
    self.initial = initial_networks(config)
    self._optimizers = {
      'student': builders.optimizer(config.optimizer),
      'critic': builders.optimizer(config.critic_optimizer),
    }
    self._ema_decay = config.ema_decay
    self._accumulate = config.accumulate
    self.sample_fn = samples.student_samples(config, self.frozen['text'])
    rest = self._settings.critic_updates - 1
    self.steps: dict[str, tuple[StepFn, int]] = {
      'student_and_critic': (self._student_and_critic, 1),
      **({'critic_only': (self._critic_only, rest)} if rest else {}),
    }

  def init(self, key: jax.Array, initial: Any) -> TrainState:
    """Student and critic from their own weights."""
    return TrainState.create(key, initial, self._optimizers, ema=('student',))

  def step_fn(self, step: int):
    """Student and critic, or the critic alone (see `DistillSettings`)."""
    warm = step >= self._settings.critic_warmup
    if warm and step % self._settings.critic_updates == 0:
      return self._student_and_critic
    return self._critic_only

  def _text(self, frozen, batch) -> jax.Array:
    return text_to_video.batch_text(self._encoder, frozen['text'], batch)

  def _without_prompt(self, frozen, text: jax.Array) -> jax.Array:
    """What guidance leads away from: the negative prompt, or no text."""
    if not frozen['negative']:
      return jnp.zeros_like(text)
    negative = self._text(frozen, frozen['negative'])
    return jnp.broadcast_to(negative.astype(text.dtype), text.shape)

  def _roll_out(self, params, frozen, batch, key):
    images = jnp.concatenate(
      [batch['latents'][:, :1], batch['last_image']], axis=1
    )
    return roll_out(
      self._dit,
      params,
      self._text(frozen, batch),
      images,
      key,
      choice=self._choice,
      levels=self._levels,
      anchor_drop=self._settings.anchor_drop,
      options=self._options,
      replay=self._settings.checkpoint_rollout,
    )

  def _x0(self, dit: DiT, params: Any, text: jax.Array):
    """(x, sigma) -> data estimate of a bidirectional network."""
    context = text_to_video.text_context(dit, params, text)

    def estimate(x, sigma):
      v = text_to_video.bidirectional(dit, params, x, sigma, context)
      return flow.to_x0(x, v, sigma)

    return estimate

  def _student_loss(self, params, critic, frozen, batch, key):
    """DMD on the composed timeline, and the given frames held in place."""
    s = self._settings
    key_roll, key_dmd = jax.random.split(key)
    rollout = self._roll_out(params, frozen, batch, key_roll)
    text = self._text(frozen, batch)
    conditional = self._x0(self._teacher_dit, frozen['teacher'], text)
    unconditional = self._x0(
      self._teacher_dit,
      frozen['teacher'],
      self._without_prompt(frozen, text),
    )

    def real_x0(x, sigma):
      return dmd.guided(
        conditional(x, sigma), unconditional(x, sigma), s.guidance
      )

    grad = dmd.gradient(
      rollout.scored,
      key_dmd,
      real_x0=real_x0,
      fake_x0=self._x0(self._dit, critic, text),
      shift=s.shift,
      sigma_range=(s.sigma_min, s.sigma_max),
    )
    matching = dmd.surrogate(rollout.scored, grad)
    ends = jnp.array([0, rollout.scored.shape[1] - 1])
    off = ((rollout.scored - batch['latents'])[:, ends] ** 2).mean((0, 2, 3, 4))
    pin = (off * rollout.pinned).sum()
    total = matching + s.pin * pin
    metrics = {
      'dmd': matching,
      'pin': pin,
      'gradient_size': jnp.abs(grad).mean(),
    }
    if self._loops:
      opening = jax.lax.cond(
        rollout.loops,
        lambda: self._opening(rollout, frozen),
        lambda: jnp.zeros(()),
      )
      total = total + s.closing * opening
      metrics['opening'] = opening
    if self._windowed:
      match = self._anchor_error(rollout, frozen)
      total = total + s.anchor_match * match
      metrics['anchor'] = match
    return total, metrics

  def _opening(self, rollout: Rollout, frozen) -> jax.Array:
    """Squared distance of the last frame of a loop to its first, in pixels."""
    vae = {'params': frozen['vae']}
    video, _ = self._vae.apply(vae, rollout.latents, method='decode')
    first = jax.lax.stop_gradient(video[:, 0])
    return ((video[:, -1] - first) ** 2).mean()

  def _anchor_error(self, rollout: Rollout, frozen) -> jax.Array:
    """Squared distance of anchors to the window of what was generated there."""
    if self._settings.decode_by_latent:
      window = anchor_window.decoded(
        self._vae,
        frozen['vae'],
        rollout.latents,
        rollout.anchors_from,
        rollout.anchors.shape[1],
      )
      target = anchor_window.encoded(self._vae, frozen['vae'], window)
    else:
      target = self._window_encoded(rollout, {'params': frozen['vae']})
    error = (rollout.anchors - jax.lax.stop_gradient(target)) ** 2
    return rollout.anchored * error.mean()

  def _window_encoded(self, rollout: Rollout, vae) -> jax.Array:
    frames = 4 * (rollout.anchors.shape[1] - 1) + 1
    video, _ = self._vae.apply(vae, rollout.latents, method='decode')
    window = jax.lax.dynamic_slice_in_dim(
      video, 4 * rollout.anchors_from, frames, axis=1
    )
    return self._vae.apply(vae, window, method='encode')[0]

  def _critic_loss(self, params, student, frozen, batch, key):
    """Flow matching on the student's samples, conditional prompts only."""
    key_roll, key_flow = jax.random.split(key)
    made = self._roll_out(student, frozen, batch, key_roll).scored
    context = text_to_video.text_context(
      self._dit, params, self._text(frozen, batch)
    )
    loss, _ = flow_match.loss(
      params,
      jax.lax.stop_gradient(made),
      key_flow,
      denoise=lambda p, x, sigma: text_to_video.bidirectional(
        self._dit, p, x, sigma, context
      ),
      shift=self._settings.shift,
    )
    return loss, {'critic': loss}

  def _update(self, state: TrainState, name: str, grads) -> TrainState:
    updates, opt_state = self._optimizers[name].update(
      grads, state.opt_state[name], state.params[name]
    )
    params = optax.apply_updates(state.params[name], updates)
    return state.replace(
      params={**state.params, name: params},
      opt_state={**state.opt_state, name: opt_state},
    )

  def _critic_only(self, state: TrainState, batch, frozen):
    student = jax.lax.stop_gradient(state.params['student'])
    grads, metrics = accumulate_gradients(
      lambda p, micro, key: self._critic_loss(p, student, frozen, micro, key),
      state.params['critic'],
      batch,
      jax.random.fold_in(state.step_key(), 1),
      self._accumulate,
    )
    return self._update(state, 'critic', grads), metrics

  def _student_and_critic(self, state: TrainState, batch, frozen):
    critic = state.params['critic']
    grads, metrics = accumulate_gradients(
      lambda p, micro, key: self._student_loss(p, critic, frozen, micro, key),
      state.params['student'],
      batch,
      jax.random.fold_in(state.step_key(), 0),
      self._accumulate,
    )
    state = self._update(state, 'student', grads)
    updates = state.step // self._settings.critic_updates
    ema = ema_update(
      state.ema['student'],
      state.params['student'],
      warm_decay(self._ema_decay, updates),
    )
    state = state.replace(ema={'student': ema})
    metrics['student_grad_norm'] = optax.global_norm(grads)
    state, critic_metrics = self._critic_only(state, batch, frozen)
    return state, {**metrics, 'critic': critic_metrics['critic']}


def distill_program(
  config: ConfigDict, mesh, abstract: bool = False
) -> DistillProgram:
  """Builds the program; UserError if weights are missing or do not fit."""
  del mesh
  return DistillProgram(config, abstract)
