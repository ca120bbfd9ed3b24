"""Options as lines of text: kinds, bounds, defaults, marks and shared ones."""

from pathlib import Path

import pytest

from unitemp_jax.cli.options import Parser
from unitemp_jax.errors import UserError

OPTIONS = """
names* NAME  which of them, and what a line
  that goes on says
@model @dry_run
@seed=7  of all
@config?
--count,--number N:2..9=3  how many
--rate X
--side past|future=past
--kind KIND
--mark+ T:FILE
--exact  every pixel
"""


def parse(*argv):
  parser = Parser('probe', 'A probe.', OPTIONS, KIND={'a': 1, 'b': 2})
  return parser, parser.parse_args(argv)


def test_defaults_and_values():
  parser, args = parse()
  assert (args.names, args.seed, args.count, args.side) == ([], 7, 3, 'past')
  assert (args.mark, args.exact, args.rate, args.config) == (
    [],
    False,
    None,
    None,
  )
  assert isinstance(args.model, Path)
  help = ' '.join(parser.format_help().split())
  assert 'what a line that goes on says' in help and 'how many (3)' in help
  assert 'of all (7)' in help and 'its folder (the tiny model)' in help
  _, args = parse(
    'x', '--number=9', '--rate=.5', '--mark=1', '--mark=2', '--exact'
  )
  assert (args.names, args.count, args.rate) == (['x'], 9, 0.5)
  assert args.mark == ['1', '2'] and args.exact


def test_an_option_that_is_there_twice_is_said(capsys):
  for words in (('--count=4', '--number=5'), ('--count', '4', '--count', '5')):
    assert parse(*words)[1].count == 5
    assert 'is there again; ' in capsys.readouterr().err
  assert parse('--mark=1', '--mark=1', '--exact', '--exact')[1].exact
  assert not capsys.readouterr().err


@pytest.mark.parametrize(
  'word, words',
  [
    ('--count=1', 'use 2 or more'),
    ('--count=10', 'use up to 9'),
    ('--count=x', 'invalid int value'),
    ('--rate=x', 'invalid float value'),
    ('--side=up', 'invalid choice'),
    ('--kind=c', 'invalid choice'),
    ('--model=', 'the name is empty'),
    ('--counts=3', 'did you mean --count?'),
  ],
)
def test_what_does_not_fit_is_a_user_error(word, words):
  with pytest.raises(UserError, match=words.replace('?', r'\?')):
    parse(word)


def test_an_option_that_is_needed_and_a_line_that_is_none():
  needed = Parser('probe', None, '--out! OUT')
  with pytest.raises(UserError, match='required: --out'):
    needed.parse_args([])
  with pytest.raises(AssertionError):
    Parser('probe', None, '--name KIND help after one space')
