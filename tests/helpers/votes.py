"""A key of a blind comparison and the votes on it, as JSON values."""

from unitemp_jax.compare import blind

KEY = {
  'format': blind.KEY_FORMAT,
  'study': 's',
  'question': 'Which?',
  'systems': ['a', 'b'],
  'trials': {'t': {'left': 'a', 'right': 'b'}},
}
VOTES = {
  'format': blind.VOTES_FORMAT,
  'study': 's',
  'rater': 'Ada',
  'votes': [{'trial': 't', 'choice': 'left'}],
}
DEEP = '[' * 20_000  # no JSON that can be read
