"""Every metric, defined once: what it is, its unit, how clips are pooled.

A suite's numbers are defined by how their names begin, those of a folder of
clips by their whole names, see `find`.
"""

from typing import NamedTuple

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation.metrics.curves import COURSES

# Lag is as good as joint decoding if the ratio of the two is below this.
MARGIN = 1.1
# Of the motion of real clips, below which a clip stands still.
FLOOR = 0.5
REAL = 'real clips'  # the group that all others are read beside


class Metric(NamedTuple):
  """What a number is."""

  how: str  # its definition
  unit: str = 'ratio'  # as in `Result`; '%' for shares of clips
  pool: str = 'mean'  # over clips; or 'geometric', 'median'
  section: str = ''  # its table, if each clip of a folder has it
  better: str = ''  # 'high', 'low', or '' where neither is


def _ratio(how: str, section: str = '', better: str = '') -> Metric:
  return Metric(f'{how}; geometric mean', 'ratio', 'geometric', section, better)


FLICKER, MOTION, DIRECTION = 'Flicker', 'Motion and joins', 'Direction'
FIDELITY = 'Fidelity to references'
_LOOP = 'Loop'
_ENDS = '|mean of the first 15 % - mean of the last 15 %| of the frames'
_RELATIVE = (
  'mean over seconds of |q - q of the first second| / q of the first second, '
  'over brightness, contrast, saturation and sharpness, equal weights'
)
_SAME = 'against the reference of the same name, mean over clips'
_ORDERS = {
  'as played': 'Drift as played',
  'as made': 'Drift in generation order',
}
_JOIN = (
  'frame difference where given and generated frames meet, given frames pasted '
  'in, over the median one'
)

# What each clip of a folder can have.
CLIP = {
  'temporal flickering': Metric(
    'VBench: (255 - mean |f(t+1) - f(t)|) / 255; a still clip scores 1',
    section=FLICKER,
    better='high',
  ),
  'BFR': _ratio(
    'boundary flicker ratio: frame difference at the boundary over the median '
    'around it, 1 = no seam',
    *(FLICKER, 'low'),
  ),
  'BFR, second difference': _ratio(
    'the same of |f(t+1) - 2 f(t) + f(t-1)|, blind to constant motion',
    *(FLICKER, 'low'),
  ),
  'wide4': _ratio(
    'mean of the 4 frame differences from the boundary on over 4 on each side',
    *(FLICKER, 'low'),
  ),
  'comb power': Metric(
    'share of the variation of log frame difference that repeats with the '
    'blocks',
    section=FLICKER,
    better='low',
  ),
  'loop closure': Metric(
    'step from the last frame to the first, over the median one: 1 = a step '
    'like any other, 0 = the first frame again; median over clips (suites: of '
    'the playing loop, without the last frame, which is the first again)',
    pool='median',
    section=_LOOP,
  ),
  'loop velocity': _ratio(
    'change of velocity across that seam over the median one; a last frame '
    'that repeats the first is left out',
    _LOOP,
  ),
  'BFR of the loop seam': _ratio(
    'the seam over the median of 4 steps on each side', _LOOP
  ),
  'mean step': Metric(
    'mean |f(t+1) - f(t)|, of the pixel range', section=MOTION
  ),
  'join jump, first': _ratio(_JOIN, MOTION, 'low'),
  'join jump, last': _ratio(_JOIN, MOTION, 'low'),
  **{
    f'{quality} drift, {order}': Metric(
      f'{_ENDS}, {order}', section=section, better='low'
    )
    for order, section in _ORDERS.items()
    for quality in COURSES
  },
  **{
    f'relative drift, {order}': Metric(
      f'{_RELATIVE}, {order}', section=section, better='low'
    )
    for order, section in _ORDERS.items()
  },
  **{
    f'{quality} slope': Metric(
      'least squares line through the frames as played',
      'per minute',
      section='Slope per minute',
    )
    for quality in COURSES
  },
}

METRICS = CLIP | {
  # Of many clips of a folder together.
  'seam p-value': Metric(
    'BFR at the true boundaries against a phase drawn for each clip'
  ),
  'phases as strong': Metric(
    'BFR at the true boundaries against all phases of the blocks'
  ),
  'temporal flickering, moving clips': Metric(
    'VBench, of the clips that move alone, so that no still wins'
  ),
  'probability of forward': Metric('by that classifier'),
  'PSNR': Metric(_SAME, 'dB'),
  'SSIM': Metric(_SAME),
  **dict.fromkeys(
    ('Frechet distance', 'FVD'), Metric('of the features of all clips')
  ),
  # Of suites; the first three of folders too.
  'called forward': Metric(
    'share of clips that a classifier of real clips against reversed ones '
    'calls forward (suites: joint decoding; folders: real ones by classifiers '
    'of other real clips)',
    '%',
  ),
  'motion to real': Metric(
    'mean frame difference of a clip over that of the real clips'
  ),
  'moves': Metric(
    'share of clips that move at least half as much as real ones', '%'
  ),
  'motion of the last third': Metric(
    'the same in the last third of the frames; 0 = it stands still'
  ),
  'VAE PSNR': Metric('PSNR of decode(encode(clip)) against the clip', 'dB'),
  'digit': Metric(
    'share of clips, or of a part of them, where the classifier reads the '
    'digit that the caption says; given frames not pasted in',
    '%',
  ),
  'colour': Metric('the same of the colour', '%'),
  'frames late': Metric(
    'frames from the one at which a prompt is to take over to that from which '
    'on the classifier reads it, mean over clips; negative = before it',
    '',
  ),
  'frames off': Metric('the same without its sign', ''),
  'diversity of handwriting': Metric(
    'distance of the handwriting in the last frame, cut out and centred, to '
    'that of the other clips of the same captioned digit, over the mean of the '
    'real clips',
    'x',
  ),
  'latent step': _ratio(
    'change of the latents across the boundary over the changes beside it; the '
    'real one is that of the encoded clips'
  ),
  'excess': Metric('geometric mean minus that of the real clips'),
  'excess over the teacher': Metric('geometric mean minus that of the teacher'),
  'distance from an opening': Metric(
    'root mean square difference, same seeds, of the first block made from the '
    'opening of the forward run',
    '',
  ),
  'window BFR': _ratio(
    'boundary flicker ratio where a block of real latents is decoded in a '
    'window of P true past latents (raw: sliced from the encoding of the clip; '
    'windowed: their frames encoded by themselves, so that the first is an '
    'image latent)'
  ),
  'window PSNR': Metric(
    'PSNR of the first 4 frames of that block against joint decoding', 'dB'
  ),
  'interior PSNR': Metric(
    'PSNR of the generated frames against the real clip', 'dB'
  ),
  'PSNR at': Metric(
    'PSNR against the given frames, decoded jointly, before they are pasted in',
    'dB',
  ),
  'join jump': _ratio(_JOIN),
  'no blend': Metric(
    'root mean square distance of the frames between two given ones from the '
    'nearest blend of the two, over the distance of those; 0 = blend, cut or '
    'still'
  ),
  'largest jump': Metric(
    'largest frame difference over the median one; median over clips',
    pool='median',
  ),
  'dimmest frame': Metric(
    'light of the dimmest frame over that of the median one (99.5th percentile '
    'of the brightest channel); a cross-fade is dim in its middle'
  ),
  'velocity closure': _ratio(
    'change of velocity across that seam over the median one'
  ),
  'BFR of the seam': _ratio('boundary flicker ratio at that seam'),
  'seam rank': Metric(
    'the playing loop is rolled by half; share of its other transitions that '
    'stand out less among their 8 neighbours than the old seam does: 0.5 = the '
    'seam cannot be told'
  ),
  'join rank': Metric(
    'the same of the transition where the block before the first one meets it, '
    '3 frames before the seam'
  ),
  'seam found': Metric(
    'share of clips where it stands out most of all transitions of the rolled '
    'loop',
    '%',
  ),
  'join found': Metric('the same of that join', '%'),
  'chance': Metric('that share if it is like any other transition', '%'),
  'p of the': Metric(
    'share of random picks of one transition per clip that stand out as much '
    'on average'
  ),
  'drift as played': Metric(
    'difference of the last 15 % from the first, as played, in units of the '
    'spread of real windows; mean over brightness, contrast, saturation, '
    'sharpness, clipped share and motion',
    '',
  ),
  'drift as made': Metric(
    'distance from real clips at the same time, of the last generated 15 % '
    'minus the first generated 15 %; units and mean as before; positive = '
    'errors add up',
    '',
  ),
  'from real': Metric(
    'distance from real clips at the same time, mean over all windows', ''
  ),
  'drift of': Metric(
    'difference of the last 15 % from the first, as played, in real spreads', ''
  ),
  'path from law': Metric(
    'root mean square distance in pixels of the height of the ink from the '
    'nearest of 4,000 lawful falls of the training split',
    '',
  ),
  'sideways from law': Metric(
    'the same of its place sideways from a drift that friction stops', ''
  ),
  'landing': Metric('frame of the first contact with the ground', ''),
  'contact': Metric('frames until it leaves the ground', ''),
  'bounce': Metric('greatest height after it over the height fallen from'),
  'shape change': Metric(
    'mean change of the handwriting, cut out and centred, from frame to frame, '
    'over its size'
  ),
  'feature change': Metric(
    'the same of what enters the last layer of the digit classifier'
  ),
  'log-probability': Metric(
    'of the captioned digit, mean over frames, by that classifier', ''
  ),
  'contrast': Metric('standard deviation of the brightness'),
  'sharpness': Metric('variance of the Laplacian of the brightness'),
  'clipped': Metric('share of channel values next to black or white'),
  'z of': Metric('difference in standard errors, paired by clip', ''),
  'alike': Metric('the same of a pair that must not be told', ''),
  'right': Metric('share of pairs rightly told, or not, by the 95 % interval'),
}


def find(name: str) -> Metric:
  """The metric by whose key a name begins, the longest such key.

  UserError if there is none.
  """
  known = [key for key in METRICS if name.startswith(key)]
  if not known:
    raise UserError(f'no metric is defined for {name!r}.')
  return METRICS[max(known, key=len)]
