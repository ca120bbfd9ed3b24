import pytest

from unitemp_jax.evaluation.clips import naming
from unitemp_jax.evaluation.clips.naming import Name

LONG = 'a' * 120


@pytest.mark.parametrize(
  ('kind', 'stem', 'expected'),
  [
    ('self_forcing', 'a dog-3', Name('a dog', False, None, 3)),
    ('self_forcing', 'a dog-3-0', Name('a dog-3', False, None, 0)),
    ('self_forcing', f'{LONG[:100]}-2', Name(LONG[:100], True, None, 2)),
    ('self_forcing', '17-4_ema', Name('', False, 17, 4)),
    ('self_forcing', '17-4_regular', Name('', False, 17, 4)),
    ('causvid', 'output_007', Name('', False, 7, 0)),
    ('causvid', 'long_video_output_1234', Name('', False, 1234, 0)),
    ('longlive', 'rank3-a dog.-1', Name('a dog.', False, None, 1)),
    ('longlive', 'rank0-12-1_lora', Name('', False, 12, 1)),
    ('longlive', 'rank0-12-1_regular_dp0_sp4', Name('', False, 12, 1)),
    ('longlive', 'rank0-a dog-1_ema_sp2', Name('a dog', False, None, 1)),
    ('folder', 'a dog.-4', Name('a dog.', False, None, 4)),
    ('folder', 'holiday', Name('holiday', False, None, 0)),
    ('folder', '0012', Name('', False, 12, 0)),
    ('folder', '0012-3', Name('', False, 12, 3)),
    ('folder', f'{"b" * 180}-0', Name('b' * 180, True, None, 0)),
  ],
)
def test_names_are_read_as_their_systems_write_them(kind, stem, expected):
  assert naming.parse(kind, stem) == expected


@pytest.mark.parametrize(
  ('kind', 'stem'),
  [('self_forcing', 'a dog'), ('causvid', 'a dog-0'), ('longlive', 'a dog-0')],
)
def test_other_names_are_not_mistaken(kind, stem):
  assert naming.parse(kind, stem) is None


def test_what_file_systems_change_does_not_matter():
  for other in ('a cat / dog.', 'a cat _ dog', 'a  cat : dog. ', 'a cat ? dog'):
    assert naming.canonical(other) == naming.canonical('a cat / dog')
  assert naming.canonical('caf\u00e9') == naming.canonical('cafe\u0301')
  assert naming.canonical('a cat') != naming.canonical('a car')


def test_blocks_of_longlive_are_read():
  assert naming.read_blocks('[0,1] a cat\n[2] a [big] dog\n') == [
    'a cat',
    'a [big] dog',
  ]
  assert naming.read_blocks('a caption\n') == []


@pytest.mark.parametrize(
  ('stem', 'kind'),
  [
    ('output_007', 'causvid'),
    ('long_video_output_007', 'causvid'),
    ('rank3-a dog-0', 'longlive'),
    ('rank3-12-0_lora', 'longlive'),
    ('12-0_ema', 'self_forcing'),
    # What VBench and Self-Forcing write is the same but for long prompts.
    ('a dog-0', 'folder'),
    ('output of a dog', 'folder'),
  ],
)
def test_the_writer_of_a_name_is_guessed(stem, kind):
  assert naming.guess(stem) == kind
  assert naming.parse(kind, stem) is not None
