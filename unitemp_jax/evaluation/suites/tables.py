"""Every metric of the suites, defined once: what it is, its unit, its pool."""

from __future__ import annotations

from unitemp_jax.evaluation.metrics.results import Metric

# Lag is as good as joint decoding if the ratio of the two is below this.
MARGIN = 1.1


_RATIO = 'geometric'
_LOOP = 'the playing loop, without the last frame, which is the first again'

# By how their names begin, see `results.find`.
METRICS = {
  'VAE PSNR': Metric('PSNR of decode(encode(clip)) against the clip', 'dB'),
  'digit': Metric(
    'share of clips, or of a part of them, where the classifier reads the '
    'digit that the caption says; given frames not pasted in',
    '%',
  ),
  'colour': Metric('the same of the colour', '%'),
  'called forward': Metric(
    'share of clips that a classifier of real clips against reversed ones '
    'calls forward, joint decoding',
    '%',
  ),
  'motion to real': Metric(
    'mean frame difference of a clip over that of the real clips'
  ),
  'motion of the last third': Metric(
    'the same in the last third of the frames; 0 = it stands still'
  ),
  'diversity of handwriting': Metric(
    'distance of the handwriting in the last frame, cut out and centred, to '
    'that of the other clips of the same captioned digit, over the mean of the '
    'real clips',
    'x',
  ),
  'BFR': Metric(
    'boundary flicker ratio: frame difference at the boundary over the median '
    'around it; geometric mean over clips',
    pool=_RATIO,
  ),
  'wide4': Metric(
    'mean of the 4 frame differences from the boundary on over 4 on each side; '
    'geometric mean',
    pool=_RATIO,
  ),
  'latent step': Metric(
    'change of the latents across the boundary over the changes beside it; '
    'geometric mean; the real one is that of the encoded clips',
    pool=_RATIO,
  ),
  'excess': Metric('geometric mean minus that of the real clips'),
  'distance from an opening': Metric(
    'root mean square difference, same seeds, of the first block made from the '
    'opening of the forward run',
    '',
  ),
  'window BFR': Metric(
    'geometric mean of the boundary flicker ratio where a block of real '
    'latents is decoded in a window of P true past latents (raw: sliced from '
    'the encoding of the clip; windowed: their frames encoded by themselves, '
    'so that the first is an image latent)',
    pool=_RATIO,
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
  'join jump': Metric(
    'frame difference where given and generated frames meet, given frames '
    'pasted in, over the median one; geometric mean',
    pool=_RATIO,
  ),
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
  'moves': Metric(
    'share of clips that move at least half as much as real ones', '%'
  ),
  'loop closure': Metric(
    f'step from the last frame to the first of {_LOOP}, over the median step; '
    'median over clips',
    pool='median',
  ),
  'velocity closure': Metric(
    'change of velocity across that seam over the median one; geometric mean',
    pool=_RATIO,
  ),
  'BFR of the seam': Metric(
    'boundary flicker ratio at that seam; geometric mean', pool=_RATIO
  ),
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
