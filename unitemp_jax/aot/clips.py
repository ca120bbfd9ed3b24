"""What a set of clips takes of each TPU generation at least."""

from collections.abc import Mapping

from unitemp_jax.aot.topology import CHIPS
from unitemp_jax.generate import memory
from unitemp_jax.models import flops
from unitemp_jax.models.flops import Flops
from unitemp_jax.plans import Plan
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.training import flops as training_flops

_TOLD = 1e12  # operations of a clip from which on anybody waits


def plan_rows(card: ModelCard, plan: Plan) -> list[training_flops.Row]:
  """Operations of each row of a plan in the model's size."""
  grid = card.latent_grid(card.height, card.width)
  return training_flops.plan_rows(
    card.dit,
    plan,
    card.dit.tokens_per_frame(*grid),
    card.text.length,
    draft_from=card.step_options.draft_from,
  )


def sample_flops(card: ModelCard, plan: Plan) -> Flops:
  """Operations of the latents of one clip: its text and all passes."""
  rows, last = plan_rows(card, plan), len(card.timesteps) - 1
  made = training_flops.sample(rows, last, last_write=False)
  return made + flops.text_context(card.dit, 1, card.text.length)


def clip_flops(card: ModelCard, plan: Plan) -> Flops:
  """Operations of one clip, with its decoding."""
  grid = card.latent_grid(card.height, card.width)
  decoded = flops.vae_decode(card.vae, len(plan.timeline()[0]), *grid)
  return sample_flops(card, plan) + decoded


def estimates(
  card: ModelCard, order_of: Mapping[str, Plan], clips: int
) -> list[str]:
  """One line a generation: batch, clips a minute and chip, and chip-hours.

  Args:
    card: of the model.
    order_of: the plan of each order; equally many clips are made of each.
    clips: of the whole set.

  Returns:
    Nothing for models that any machine runs.
  """
  plans = list(order_of.values())
  each = sum(clip_flops(card, plan).total for plan in plans) / len(plans)
  if each < _TOLD:
    return []
  found = [
    f'at least, by the peak arithmetic ({each / 1e12:,.0f} TFLOP a clip); not '
    'run:'
  ]
  for chip in CHIPS.values():
    rate = chip.devices * chip.tflops * 1e12 / each  # a second
    limit = chip.gib * 2**30
    fits = min(memory.batch_that_fits(card, plan, limit) for plan in plans)
    found.append(
      f'  {chip.name}: batches of {fits * chip.devices} a chip, '
      f'at most {60 * rate:.2f} clips a minute and chip, at least '
      f'{clips / rate / 3600:,.1f} chip-hours'
    )
  return found
