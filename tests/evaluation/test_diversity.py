import numpy as np

from unitemp_jax.data import falling_digits
from unitemp_jax.evaluation.classifiers.digits import DigitClassifier
from unitemp_jax.evaluation.suites import orders
from unitemp_jax.evaluation.suites.bench import DIGITS


def test_distance_is_to_the_others_of_the_class():
  features = np.array([[0.0, 0.0], [3.0, 3.0], [1.0, 1.0], [9.0, 9.0]])
  classes = np.array([0, 0, 0, 1])
  found = orders.class_distances(features, classes)
  np.testing.assert_allclose(found[:3], [2.0, 2.5, 1.5])
  assert np.isnan(found[3])


def test_a_repeated_handwriting_is_seen():
  clips = falling_digits.sample_clips(
    falling_digits.FallingDigitsSpec(split='test'), range(100)
  )
  classifier = DigitClassifier.load(DIGITS)

  def spread(video):
    glyphs = classifier.glyphs(video[:, -1])
    return np.nanmean(orders.class_distances(glyphs, clips['digit']))

  first = np.array(
    [np.flatnonzero(clips['digit'] == d)[0] for d in clips['digit']]
  )
  narrow = clips['video'][first]
  assert spread(narrow) < 0.01 * spread(clips['video'])
