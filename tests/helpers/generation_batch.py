"""The batch of four that the tests of generation share."""

PROMPTS = (
  'a red seven falls',
  'the blue digit two drops from the left',
  'a green number nine comes down and bounces',
  'a cyan zero tumbles down',
)
SEEDS = (11, 22, 33, 44)
