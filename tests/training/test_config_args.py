import pytest

from unitemp_jax.errors import UserError
from unitemp_jax.training.config import load_config

FILE = """
from configs.common import optimizer_config, training_config

def get_config(arg=None):
  config = training_config(num_steps=7)
  config.optimizer = optimizer_config(decay_steps=config.get_ref('num_steps'))
  config.name = arg or 'none'
  config.flag = False
  config.sizes = (1, 2)
  config.table = {'a': None}
  if arg == 'fail':
    raise ValueError('no such thing')
  return config
"""


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(FILE)
  return path


def test_argument_and_defaults(file):
  assert load_config(f'{file}:a:b').name == 'a:b'
  config = load_config(str(file))
  assert (config.name, config.num_steps) == ('none', 7)
  with pytest.raises(AttributeError, match='locked'):
    config.new = 1


def test_overrides_take_the_type_of_the_default(file):
  config = load_config(
    str(file),
    [
      '--config.num_steps=9',
      '--config.optimizer.learning_rate=2',
      '--config.flag=true',
      '--config.sizes=[3]',
      '--config.name=12',
      '--config.table.a=text',
      'mesh.fsdp=2',
    ],
  )
  assert config.num_steps == 9
  assert config.optimizer.decay_steps == 9  # Refers to num_steps.
  rate = config.optimizer.learning_rate
  assert rate == 2.0 and isinstance(rate, float)
  assert config.flag is True
  assert config.sizes == (3,)
  assert (config.name, config.table.a) == ('12', 'text')
  assert config.mesh.fsdp == 2


@pytest.mark.parametrize(
  'override, message',
  [
    ('--config.numsteps=3', 'did you mean num_steps?'),
    (
      '--config.optimizer.learning_rat=3',
      'did you mean optimizer.learning_rat',
    ),
    ('--config.qqqqqqqq=3', 'it has accumulate, batch_size'),
    ('--config.num_steps=many', 'not of type int'),
    ('--config.num_steps=2.5', 'not of type int'),
    ('--config.flag=2', 'not of type bool'),
    ('--config.sizes=3', 'not of type tuple'),
    ('--config.num_steps', 'no value'),
    ('--config.mesh=3', 'no key'),
  ],
)
def test_bad_overrides(file, override, message):
  with pytest.raises(UserError) as error:
    load_config(str(file), [override])
  assert message in str(error.value)


@pytest.mark.parametrize(
  'text, message',
  [
    ('def get_config(:', 'is not Python'),
    ('x = 1', 'no function get_config'),
    ('import not_there', 'ModuleNotFoundError'),
    ('def get_config(arg=None):\n  return 3', 'must return a ConfigDict'),
    ('\0', 'is not Python'),
  ],
)
def test_bad_files(tmp_path, text, message):
  path = tmp_path / 'bad.py'
  path.write_text(text)
  with pytest.raises(UserError) as error:
    load_config(str(path))
  assert message in str(error.value)


def test_missing_file_suggests_a_neighbour(file):
  with pytest.raises(UserError, match=r'did you mean .*mine\.py'):
    load_config(str(file.with_name('mime.py')))
  with pytest.raises(UserError, match='no config file'):
    load_config(str(file.parent))  # A folder.


def test_bad_arguments_after_the_colon(file, tmp_path):
  with pytest.raises(UserError, match='no such thing'):
    load_config(f'{file}:fail')
  plain = tmp_path / 'plain.py'
  plain.write_text('def get_config():\n  return 3')
  with pytest.raises(UserError, match='takes no argument'):
    load_config(f'{plain}:x')
