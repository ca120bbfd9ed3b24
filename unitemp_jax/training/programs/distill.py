"""Bidirectional self-forcing DMD: student and critic, trained in turn.

The student rolls out on drawn plans through the sampler's own step, the critic
follows its samples by flow matching, and the student is moved along the
difference between critic and frozen teacher. The equations are in
`unitemp_jax/README.md`, Distillation.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from unitemp_jax.diffusion import flow, guidance
from unitemp_jax.errors import UserError
from unitemp_jax.models import flops as model_flops
from unitemp_jax.models import sizes, umt5
from unitemp_jax.models.dit import DiT
from unitemp_jax.models.flops import Flops, trained
from unitemp_jax.models.umt5 import TextEncoder
from unitemp_jax.models.vae3d import VAE
from unitemp_jax.models.weights import LazyWeights
from unitemp_jax.objectives import dmd, flow_match
from unitemp_jax.plans import Plan
from unitemp_jax.sampling import replay
from unitemp_jax.sampling.step import StepOptions
from unitemp_jax.training import flops
from unitemp_jax.training.optim import (
  accumulate_gradients,
  ema_update,
  make_optimizer,
  warm_decay,
)
from unitemp_jax.training.program import StepFn, TrainState, update
from unitemp_jax.training.programs import builders, networks, samples
from unitemp_jax.training.programs.rollout import (
  PlanChoice,
  Rollout,
  anchor_target,
  roll_out,
)


@dataclasses.dataclass(frozen=True)
class DistillSettings:
  """Numbers of the objective, named as in Self-Forcing where it has them."""

  shift: float  # of the sigmas that samples are diffused to
  sigma_min: float  # lowest of them
  sigma_max: float  # highest
  guidance_scale: float  # of the teacher, see `diffusion.guidance`
  # How closely the timeline must hold the frames that were given to it.
  pin: float
  closing: float  # how closely the last frame of a loop must be its first
  # How closely windowed anchors must be the encoding of what was then generated
  # before the block.
  anchor_match: float
  through_cache: bool  # lets gradient cross blocks, see `StepOptions`
  anchor_drop: float  # see `rollout.roll_out`
  critic_updates: int  # updates of the critic per update of the student
  # First steps in which the critic alone learns what the initial student's
  # samples look like.
  critic_warmup: int
  # One more pass per block for a backward pass that holds one block at a time
  # (`sampling.replay`).
  checkpoint_rollout: bool = False
  decode_by_latent: bool = False  # see `rollout.anchor_target`
  # Sigma of the noise on blocks that become context, see `StepOptions`.
  context_sigma: float = 0.0
  # Clip the critic's levels to those of the student, too.
  critic_clamp: bool = False
  # Leave given frames out of the matching; `pin` holds them.
  mask_given: bool = False
  # Let the teacher score a row's anchors in the place of the block before it.
  # It expects raw latents there, so that with windowed anchors `anchor_match`
  # has another aim.
  score_anchors: bool = True
  # How closely the last frame must be the given one, in pixels; 0 pins the last
  # latent instead, with frames that nobody gave.
  pin_last: float = 0.0


def settings_of(config: ConfigDict) -> DistillSettings:
  """Returns the numbers of a `config.loss`, former names included."""
  values = config.loss.to_dict()
  values.pop('guidance', None)
  values['guidance_scale'] = guidance.config_scale(config, 'loss')
  return builders.model_config(DistillSettings, values)


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

  def __init__(self, config: ConfigDict):
    """Reads the sections of `configs/tiny_distill.py`."""
    self._config = config
    self._dit = DiT(builders.dit_config(config.model))
    self._teacher_dit = DiT(networks.teacher_config(config))
    self._encoder = TextEncoder(builders.text_config(config.model))
    self._settings = s = settings_of(config)
    self._sigmas = builders.student_sigmas(config)
    frames = builders.latent_shape(config)[0]
    plans, weights = builders.training_plans(config.orders, frames)
    check_rollout(s, plans)
    self._plans = list(zip(plans, weights, strict=True))
    self._choice = PlanChoice.create(plans, weights, frames)
    self._loops = bool(self._choice.loops.any())
    self._windowed = builders.windowed(config.orders)
    self._options = StepOptions(
      draft_from=int(self._windowed),
      through_cache=s.through_cache,
      context_sigma=s.context_sigma,
      draft_sigma=config.orders.get('draft_sigma', 0.0),
    )
    self.frozen = networks.frozen_networks(config)
    if self._windowed or self._loops or s.pin_last:
      self._vae = VAE(networks.normalised_vae(config))
      # A whole float32 decoder beside a training is more than a small chip has.
      half = s.decode_by_latent and self._dit.config.dtype
      shapes = sizes.param_shapes(self._vae.config, half or None)
      self.frozen['vae'] = LazyWeights(config.latents.vae, shapes)
    self.initial = networks.initial_networks(config)
    self._optimizers = {
      'student': make_optimizer(**config.optimizer.to_dict()),
      'critic': make_optimizer(**config.critic_optimizer.to_dict()),
    }
    self.batch_spec = builders.latent_spec(config)
    self.sample = samples.student_sampler(config, self.frozen['text'])
    rest = s.critic_updates - 1
    self.steps: dict[str, tuple[StepFn, int]] = {
      'student_and_critic': (self._student_and_critic, 1),
      'critic_only': (self._critic_only, rest),
    }
    if not rest and not s.critic_warmup:
      del self.steps['critic_only']

  def init(self, key: jax.Array, initial: Any) -> TrainState:
    """Returns student and critic, each with its own weights."""
    return TrainState.create(key, initial, self._optimizers, ema=('student',))

  def step_name(self, step: int) -> str:
    """Returns whose step it is (see `DistillSettings`)."""
    warm = step >= self._settings.critic_warmup
    if warm and step % self._settings.critic_updates == 0:
      return 'student_and_critic'
    return 'critic_only'

  def flops(self) -> dict[str, Flops]:
    """Returns the operations of the steps per row, on average."""
    config, dit = self._config, self._dit.config
    teacher, clip = self._teacher_dit.config, flops.Clip.of(config)
    before, last = flops.rollout(
      dit,
      self._plans,
      clip,
      passes=len(self._sigmas) - 1,
      anchor_drop=self._settings.anchor_drop,
      draft_from=self._options.draft_from,
    )
    remat = dit.remat != 'none'
    score, context = clip.bidirectional(dit), clip.context(dit)
    critic = before + last + context + trained(score + context, remat)
    # The last passes run once more, with gradient, if a rollout is replayed.
    again = remat + self._settings.checkpoint_rollout
    student = before + trained(last, again) + trained(context, remat)
    real = 2 * (clip.bidirectional(teacher) + clip.context(teacher))
    student += real + score + context
    if self._windowed:
      latents, vae = builders.latent_shape(config), self._vae.config
      window = 1 + vae.temporal_stride * (config.orders.anchors - 1)
      size = builders.frame_size(config.data)
      student += model_flops.vae_decode(vae, *latents)
      student += model_flops.vae_encode(vae, window, *size)
    both = {'student_and_critic': student + critic, 'critic_only': critic}
    return {name: both[name] for name in self.steps}

  def _text(self, frozen, batch) -> jax.Array:
    return umt5.batch_text(self._encoder, frozen['text'], batch)

  def _without_prompt(self, frozen, text: jax.Array) -> jax.Array:
    """What guidance leads away from: the negative prompt, or no text."""
    if not frozen['negative']:
      return jnp.zeros_like(text)
    negative = self._text(frozen, frozen['negative'])
    return jnp.broadcast_to(negative.astype(text.dtype), text.shape)

  def roll_out(self, params, frozen, batch, key) -> Rollout:
    """Rolls the student out for a batch, on one drawn plan."""
    text = self._text(frozen, batch)
    return roll_out(
      self._dit,
      params,
      text,
      self._ends(batch, len(text), 'last_image'),
      key,
      choice=self._choice,
      sigmas=self._sigmas,
      anchor_drop=self._settings.anchor_drop,
      options=self._options,
      replay=self._settings.checkpoint_rollout,
      score_anchors=self._settings.score_anchors,
    )

  def _ends(self, batch, rows: int, last: str) -> jax.Array:
    """Latents of the first and the last frame that are given; else zeros."""
    if 'latents' not in batch:
      _, *grid = builders.latent_shape(self._config)
      return jnp.zeros((rows, 2, *grid, self._dit.config.channels))
    return jnp.concatenate([batch['latents'][:, :1], batch[last][:, -1:]], 1)

  def _x0(self, dit: DiT, params: Any, text: jax.Array):
    """(x, sigma) -> data estimate of a bidirectional network."""
    context = umt5.text_context(dit, params, text)

    def estimate(x, sigma):
      v = umt5.bidirectional(dit, params, x, sigma, context)
      return flow.to_x0(x, v, sigma)

    return estimate

  def _student_loss(self, params, critic, frozen, batch, key):
    """DMD on the composed timeline, and the given frames held in place."""
    s = self._settings
    key_roll, key_dmd = jax.random.split(key)
    rollout = self.roll_out(params, frozen, batch, key_roll)
    text = self._text(frozen, batch)
    conditional = self._x0(self._teacher_dit, frozen['teacher'], text)
    unconditional = self._x0(
      self._teacher_dit, frozen['teacher'], self._without_prompt(frozen, text)
    )

    def real_x0(x, sigma):
      return dmd.guided(
        conditional(x, sigma), unconditional(x, sigma), s.guidance_scale
      )

    grad = dmd.gradient(
      rollout.scored,
      key_dmd,
      real_x0=real_x0,
      fake_x0=self._x0(self._dit, critic, text),
      shift=s.shift,
      sigma_range=(s.sigma_min, s.sigma_max),
    )
    ends = jnp.array([0, rollout.scored.shape[1] - 1])
    mask = None
    if s.mask_given:
      given = rollout.pinned > 0
      mask = jnp.ones(rollout.scored.shape[1], bool).at[ends].set(~given)
    matching = dmd.surrogate(rollout.scored, grad, mask)
    given_ends = self._ends(batch, len(rollout.scored), 'latents')
    off = ((rollout.scored[:, ends] - given_ends) ** 2).mean((0, 2, 3, 4))
    pinned = rollout.pinned
    if s.pin_last:
      pinned = pinned.at[1].set(0.0)
    pin = (off * pinned).sum()
    total = matching + s.pin * pin
    metrics = {
      'dmd': matching,
      'pin': pin,
      'gradient_size': jnp.abs(grad).mean(),
    }
    if s.pin_last and 'last_image' in batch:
      last = jax.lax.cond(
        rollout.pinned[1] > 0,
        lambda: self.last_frame_error(
          rollout.latents, frozen, batch['last_image']
        ),
        lambda: jnp.zeros(()),
      )
      total = total + s.pin_last * last
      metrics['last_frame'] = last
    if self._loops:
      opening = jax.lax.cond(
        rollout.loops,
        lambda: self.last_frame_error(rollout.latents, frozen),
        lambda: jnp.zeros(()),
      )
      total = total + s.closing * opening
      metrics['opening'] = opening
    if self._windowed:
      match = self._anchor_error(rollout, frozen)
      total = total + s.anchor_match * match
      metrics['anchor'] = match
    return total, metrics

  def last_frame_error(self, latents, frozen, image=None) -> jax.Array:
    """Squared distance of the last frame to an image latent's, in pixels.

    Without one it is that to the first frame, which closes a loop.
    """
    vae = {'params': frozen['vae']}
    video, _ = self._vae.apply(vae, latents, method='decode')
    wanted = video[:, 0]
    if image is not None:
      wanted = self._vae.apply(vae, image, method='decode')[0][:, 0]
    return ((video[:, -1] - jax.lax.stop_gradient(wanted)) ** 2).mean()

  def _anchor_error(self, rollout: Rollout, frozen) -> jax.Array:
    """Squared distance of anchors to the window of what was generated there."""
    target = anchor_target(
      self._vae,
      frozen['vae'],
      rollout.latents,
      rollout.anchors_from,
      rollout.anchors.shape[1],
      self._settings.decode_by_latent,
    )
    error = (rollout.anchors - target) ** 2
    return rollout.anchored * error.mean()

  def _critic_loss(self, params, student, frozen, batch, key):
    """Flow matching on the student's samples, conditional prompts only."""
    s = self._settings
    key_roll, key_flow = jax.random.split(key)
    made = self.roll_out(student, frozen, batch, key_roll).scored
    context = umt5.text_context(self._dit, params, self._text(frozen, batch))
    loss, _ = flow_match.loss(
      params,
      jax.lax.stop_gradient(made),
      key_flow,
      denoise=lambda p, x, sigma: umt5.bidirectional(
        self._dit, p, x, sigma, context
      ),
      shift=s.shift,
      sigma_range=(s.sigma_min, s.sigma_max) if s.critic_clamp else (0.0, 1.0),
    )
    return loss, {'critic': loss}

  def _critic_only(self, state: TrainState, batch, frozen):
    student = jax.lax.stop_gradient(state.params['student'])
    grads, metrics = accumulate_gradients(
      lambda p, micro, key: self._critic_loss(p, student, frozen, micro, key),
      state.params['critic'],
      batch,
      jax.random.fold_in(state.step_key(), 1),
      self._config.accumulate,
    )
    return update(state, 'critic', self._optimizers['critic'], grads), metrics

  def _student_and_critic(self, state: TrainState, batch, frozen):
    critic = state.params['critic']
    grads, metrics = accumulate_gradients(
      lambda p, micro, key: self._student_loss(p, critic, frozen, micro, key),
      state.params['student'],
      batch,
      jax.random.fold_in(state.step_key(), 0),
      self._config.accumulate,
    )
    state = update(state, 'student', self._optimizers['student'], grads)
    updates = state.step // self._settings.critic_updates
    ema = ema_update(
      state.ema['student'],
      state.params['student'],
      warm_decay(self._config.ema_decay, updates),
    )
    state = state.replace(ema={'student': ema})
    metrics['student_grad_norm'] = optax.global_norm(grads)
    state, critic_metrics = self._critic_only(state, batch, frozen)
    return state, {**metrics, 'critic': critic_metrics['critic']}
