"""Benchmark `long`: is a long rollout constant in memory and in time per block?

Blocks are made and decoded one after the other, as `Pipeline.run` streams them,
through a sliding window with sinks at both ends. Beside it stands a video that
sees everything. Its cache has a slot for every latent, so what it costs follows
the length of the video: per block where attention skips what is not there yet,
else for every block from the first on.
"""

import dataclasses
import functools
import itertools
import time

import numpy as np

from unitemp_jax import orders
from unitemp_jax.bench import measure
from unitemp_jax.bench.measure import Claim, Context, Outcome
from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics import bootstrap
from unitemp_jax.evaluation.metrics.results import Section
from unitemp_jax.generate.request import Request
from unitemp_jax.models.nag import Nag
from unitemp_jax.plans import decoding
from unitemp_jax.sampling import decode

DIRECTIONS = ('forward', 'backward')
WHOLE = 'everything visible, forward'
EARLY = 10  # block from which on time and memory have to be constant
SPAN = 20  # blocks that are averaged at either end
DECODED = 20  # blocks that are decoded in each way
LIMIT = 0.05  # of the time per block
GROWTH = 0.01  # MiB of arrays
_WARM = 4
_TIME = (
  'mean over 20 blocks of the median over warm repeats; a block of one clip, '
  'made and decoded to pixels'
)
_LATE = 'time of the last 20 blocks over that of 20 from block 10 on'
_ARRAYS = 'arrays that jax keeps: weights, cache, decoder memory, one block'
_DECODE = (
  'mean over 20 blocks of a backward video; lag shows each of them twice'
)
_GUIDED = 'a block of one clip, latents alone; with and without in turns'
_HOST = 'growth of the most memory the process has held'


def run(context: Context) -> Outcome:
  """Streams long videos in both directions, and one that sees everything."""
  least = EARLY + 2 * SPAN
  if context.blocks < least:
    raise UserError(
      f'--blocks={context.blocks} is too few to compare blocks {EARLY} to '
      f'{EARLY + SPAN - 1} with the last {SPAN}; use {least} or more.'
    )
  rows, series, claims = [], {}, []
  for name in (*DIRECTIONS, WHOLE):
    windowed = name != WHOLE
    request = make_request(context, name if windowed else 'forward', windowed)
    seconds, memory, grown = stream(context, request, name)
    series[f'{name}: seconds per block'] = seconds.tolist()
    series[f'{name}: MiB of arrays'] = memory
    early, late = seconds[EARLY : EARLY + SPAN], seconds[-SPAN:]
    ratio = bootstrap.interval(_ratio_of_means, late, early)
    for when, part in (('early', early), ('late', late)):
      mean = bootstrap.mean(1000 * part)
      rows.append(context.row(f'{when} block', name, mean, 'ms', _TIME))
    rows.append(context.row('late over early', name, ratio, 'ratio', _LATE))
    for when, value in (('early', memory[EARLY]), ('late', memory[-1])):
      metric = f'arrays, {when}'
      rows.append(
        context.row(metric, name, bootstrap.exact(value, 1), 'MiB', _ARRAYS)
      )
    grown = bootstrap.exact(grown, 1)
    rows.append(context.row('peak host growth', name, grown, 'MiB', _HOST))
    if windowed:
      claims += _claims(name, ratio.value, memory)
  rows += _decoding_rows(context)
  title = f'Long video: {context.blocks} blocks'
  return Outcome((Section(title, tuple(rows)),), series, tuple(claims))


def _decoding_rows(context: Context) -> list:
  """What a backward video's pixels cost, without making its latents."""
  card, rows = context.card, []
  plan = orders.backward(
    DECODED * card.block, block=card.block, anchors=card.anchors
  )
  size = (*context.grid, card.dit.channels)
  latents = np.zeros((1, plan.num_latents, *size), np.float32)
  anchors = np.zeros((plan.num_rows, 1, plan.num_anchors, *size), np.float32)
  for mode in decoding.MODES:
    schedule, times = decoding.schedule(plan, mode), []
    for _ in range(1 + context.repeats):
      began = time.perf_counter()
      chunk = context.pipeline.decode_chunk
      for _ in decode.run(chunk, plan, schedule, latents, anchors):
        pass
      times.append(time.perf_counter() - began)
    each = bootstrap.mean(1000 * np.array(times[1:]) / DECODED)
    rows.append(context.row('decoding a block', mode, each, 'ms', _DECODE))
  return rows


def guided(context: Context) -> Outcome:
  """Benchmark `nag`: what a negative prompt costs, in turns with none."""
  context = dataclasses.replace(context, blocks=DECODED)
  plain = make_request(context, 'forward', windowed=True)
  guide = dataclasses.replace(plain, nag=Nag('a blue two falls'))
  pipeline = context.pipeline

  def make(request: Request):
    return lambda: [made.latents for made in pipeline.rows(request)]

  asked = {'without': make(plain), 'negative prompt': make(guide)}
  seconds = measure.in_turns(asked, context.repeats)
  without, rows = seconds['without'], []
  for name, found in seconds.items():
    mean = bootstrap.mean(1000 * found / context.blocks)
    rows.append(context.row('time of a block', name, mean, 'ms', _GUIDED))
    middle = functools.partial(np.median, axis=-1)
    ratio = bootstrap.interval(middle, found / without)
    how = f'its time over that without, median of turns; {_GUIDED}'
    rows.append(context.row('times as long', name, ratio, 'ratio', how))
  series = {name: found.tolist() for name, found in seconds.items()}
  return Outcome((Section('Negative prompt (NAG)', tuple(rows)),), series)


def make_request(context: Context, direction: str, windowed: bool) -> Request:
  """A long video, seen through the window or whole."""
  card = context.card
  trained = 1 + (card.frames - 1) // card.vae.temporal_stride
  plan = orders.long(
    context.blocks * card.block,
    direction=direction,
    span=trained if windowed else None,
    sinks='both' if windowed else 'none',
    block=card.block,
    anchors=card.anchors,
    start=card.start,
  )
  return Request(
    workflow='long',
    plan=plan,
    prompts=('a red seven falls',),
    seed=0,
    height=card.height,
    width=card.width,
  )


def _ratio_of_means(late: np.ndarray, early: np.ndarray) -> np.ndarray:
  return late.mean(axis=-1) / early.mean(axis=-1)


def _claims(name: str, ratio: float, memory: list[float]) -> list[Claim]:
  growth = memory[-1] - memory[EARLY]
  return [
    Claim(
      f'{name}: time per block within {LIMIT:.0%} of constant',
      ratio,
      abs(ratio - 1) <= LIMIT,
    ),
    Claim(
      f'{name}: arrays grow from block {EARLY} to the last by less than '
      f'{GROWTH} MiB',
      growth,
      growth < GROWTH,
    ),
  ]


def stream(
  context: Context, request: Request, name: str
) -> tuple[np.ndarray, list[float], float]:
  """Seconds per block, MiB of arrays after each, growth of the host's peak."""
  for _ in itertools.islice(context.pipeline.run(request), _WARM):
    pass
  times = np.empty((context.repeats, context.blocks))
  for repeat in range(context.repeats):
    memory: list[float] = []
    began = time.perf_counter()
    for k, _ in enumerate(context.pipeline.run(request)):
      ended = time.perf_counter()
      times[repeat, k] = ended - began
      memory.append(measure.live_mebibytes())
      if repeat == 0 and k == EARLY:
        peak = measure.peak_host_mebibytes()
      began = time.perf_counter()
    if repeat == 0:
      grown = measure.peak_host_mebibytes() - peak
    took = times[repeat].sum()
    context.report(f'  {name}: {repeat + 1}/{context.repeats}, {took:.0f} s')
  return np.median(times, axis=0), memory, grown
