"""Captions of the falling digits: varied wording, always true of the clip.

A caption is a subject (which always names the colour and the digit), a verb, a
place that may be left out, and an ending that speaks of the bounce only when
the clip shows it. All the words come from the tables below, so the vocabulary
of a tokenizer can be derived from them. No caption is longer than 18 words.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np

COLOURS = ('red', 'yellow', 'green', 'cyan', 'blue', 'magenta')
DIGIT_NAMES = (
  'zero',
  'one',
  'two',
  'three',
  'four',
  'five',
  'six',
  'seven',
  'eight',
  'nine',
)
SIDES = ('left', 'middle', 'right')

SUBJECTS = (
  'a {colour} {digit}',
  'the {colour} digit {digit}',
  'a {colour} number {digit}',
  'a handwritten {digit} in {colour} ink',
  'the number {digit} in {colour}',
)
VERBS = ('falls', 'drops', 'falls down', 'tumbles down', 'comes down')
HOP_VERBS = ('hops', 'hops up and down', 'bounces up and down')
HOP_PLACES = ('', '{on_side}')
PLACES = ('', 'from the {side}', '{on_side}')
ON_SIDE = ('on the left', 'in the middle', 'on the right')
ENDINGS = {
  # Of clips whose end of the fall lies outside the clip nothing is claimed.
  'unknown': ('', 'with a fading trail'),
  'bounce': ('', 'and bounces', 'and bounces up again'),
  'rest': ('', 'and stays down', 'and lands without bouncing'),
  'hop': ('', 'again and again'),
  'turn': (
    'and turns into a {other_colour} {other_digit}',
    'then turns into the {other_colour} digit {other_digit}',
  ),
}
# Words that a person may type and that no caption above happens to use.
EXTRA_WORDS = (
  'an',
  'at',
  'black',
  'bouncing',
  'bounce',
  'centre',
  'drop',
  'dropping',
  'fall',
  'falling',
  'ground',
  'land',
  'lands',
  'of',
  'side',
  'to',
  'top',
)


@dataclasses.dataclass(frozen=True)
class Subject:
  """What a clip shows: index into COLOURS, and the digit 0 to 9."""

  colour: int
  digit: int


def write_caption(
  choice: Sequence[float],
  subject: Subject,
  side: int,
  ending: str,
  after: Subject,
) -> str:
  """Words one caption.

  Args:
    choice: four numbers in [0, 1) that pick the wording of the four parts.
    subject: what falls or hops.
    side: index into SIDES, where the digit starts.
    ending: 'bounce', 'rest' or 'unknown', what a fall shows at the ground;
      'hop' or 'turn' for these scenes.
    after: what it turns into.

  Returns:
    The caption, lower case, without a full stop.
  """
  hops = ending == 'hop'
  tables = (
    SUBJECTS,
    HOP_VERBS if hops else VERBS,
    HOP_PLACES if hops else PLACES,
    ENDINGS[ending],
  )
  parts = [
    t[int(c * len(t))] for t, c in zip(tables, np.asarray(choice), strict=True)
  ]
  text = ' '.join(part for part in parts if part)
  return text.format(
    colour=COLOURS[subject.colour],
    digit=DIGIT_NAMES[subject.digit],
    side=SIDES[side],
    on_side=ON_SIDE[side],
    other_colour=COLOURS[after.colour],
    other_digit=DIGIT_NAMES[after.digit],
  )


def vocabulary() -> list[str]:
  """Lists every word a caption can hold, sorted, without duplicates."""
  slots = re.compile(r'{\w+}')
  texts = itertools.chain(
    SUBJECTS, VERBS, HOP_VERBS, PLACES, ON_SIDE, *ENDINGS.values(), EXTRA_WORDS
  )
  words = {word for text in texts for word in slots.sub(' ', text).split()}
  return sorted(words | {*COLOURS, *DIGIT_NAMES, *SIDES})
