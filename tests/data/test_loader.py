import json
import multiprocessing

import numpy as np
import pytest

from unitemp_jax.data import falling_digits as fd
from unitemp_jax.data import loader as loader_lib
from unitemp_jax.errors import UserError

SPEC = fd.FallingDigitsSpec(num_frames=5, size=16)
NUMBERS = [{'index': i, 'caption': f'clip {i}'.encode()} for i in range(23)]


def read(batches, **kwargs):
  loader = loader_lib.make_loader(NUMBERS, seed=kwargs.pop('seed', 3), **kwargs)
  return [next(loader)['index'].tolist() for _ in range(batches)]


def test_epochs_are_complete_and_reshuffled():
  stream = np.ravel(read(23, batch_size=4)).tolist()
  first, second = stream[:23], stream[23:46]
  assert sorted(first) == sorted(second) == list(range(23))
  assert first != second
  assert first != list(range(23))


def test_seed_decides_the_order():
  assert read(6, batch_size=4) == read(6, batch_size=4)
  assert read(6, batch_size=4) != read(6, batch_size=4, seed=4)


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_read_their_rows_of_the_same_batches(hosts):
  whole = read(12, batch_size=4)
  parts = [
    read(12, batch_size=4, rows=rows) for rows in np.split(np.arange(4), hosts)
  ]
  for step, batch in enumerate(whole):
    assert np.ravel([part[step] for part in parts]).tolist() == batch
  # Negative control: a host alone does not read the same as all.
  assert sorted(parts[0][0]) != sorted(whole[0])


def test_state_restores_exactly_and_survives_json():
  loader = loader_lib.make_loader(NUMBERS, batch_size=4, seed=3)
  for _ in range(7):
    next(loader)
  state = json.loads(json.dumps(loader.get_state()))
  expected = [next(loader)['index'] for _ in range(9)]
  again = loader_lib.make_loader(NUMBERS, batch_size=4, seed=3)
  fresh = next(again)['index']
  again.set_state(state)
  np.testing.assert_array_equal(
    expected, [next(again)['index'] for _ in expected]
  )
  assert not np.array_equal(fresh, expected[0])  # negative control
  # Two hosts continue where one stopped.
  parts = []
  for h in range(2):
    half = loader_lib.make_loader(
      NUMBERS, batch_size=4, seed=3, rows=range(2 * h, 2 * h + 2)
    )
    half.set_state(state)
    parts.append(next(half)['index'])
  np.testing.assert_array_equal(np.concatenate(parts), expected[0])


def test_state_of_another_run_is_refused():
  state = loader_lib.make_loader(NUMBERS, batch_size=4, seed=3).get_state()
  for other in ({'seed': 4, 'batch_size': 4}, {'seed': 3, 'batch_size': 5}):
    with pytest.raises(UserError):
      loader_lib.make_loader(NUMBERS, **other).set_state(state)


def test_texts_and_transform():
  loader = loader_lib.make_loader(
    NUMBERS,
    batch_size=4,
    seed=0,
    transform=lambda batch: {**batch, 'double': 2 * batch['index']},
  )
  batch = next(loader)
  assert batch['caption'].dtype == object
  assert batch['caption'][0] == f'clip {batch["index"][0]}'
  np.testing.assert_array_equal(batch['double'], 2 * batch['index'])


@pytest.mark.parametrize(
  'bad',
  [
    {'source': []},
    {'batch_size': 0},
    {'rows': []},
    {'rows': [1, 2]},
    {'seed': -1},
  ],
)
def test_bad_arguments(bad):
  arguments = {'source': NUMBERS, 'batch_size': 2, 'seed': 0, **bad}
  with pytest.raises(UserError):
    loader_lib.make_loader(arguments.pop('source'), **arguments)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  from unitemp_jax.data import digits_builder

  folder = tmp_path_factory.mktemp('sets')
  return folder, digits_builder.prepare(folder, SPEC, 70)[1]


def test_prepared_record_is_the_clip(prepared):
  _, source = prepared
  clips = fd.sample_clips(SPEC, range(70))
  assert len(source) == 70
  for i in (0, 1, 69):
    assert source[i]['index'] == i
    assert source[i]['caption'].decode() == clips['caption'][i]
    np.testing.assert_array_equal(source[i]['video'], clips['video'][i])
    np.testing.assert_allclose(
      source[i]['position'], clips['position'][i], rtol=1e-6
    )


def test_prepare_again_only_reads(prepared):
  from unitemp_jax.data import digits_builder

  folder, _ = prepared
  files = sorted(p for p in folder.rglob('*record*') if p.is_file())
  before = [p.stat().st_mtime_ns for p in files]
  assert files
  digits_builder.prepare(folder, SPEC, 70)
  assert before == [p.stat().st_mtime_ns for p in files]
  # Negative control: another spec is another set.
  other = fd.FallingDigitsSpec(num_frames=5, size=16, trail=0.3)
  digits_builder.prepare(folder, other, 70)
  assert len([p for p in folder.rglob('*record*') if p.is_file()]) > len(files)


def test_interrupted_prepare_leaves_no_set(tmp_path, monkeypatch):
  from unitemp_jax.data import digits_builder

  def fail(spec, indices):
    if indices[0] > 0:
      raise KeyboardInterrupt
    return sample(spec, indices)

  sample = fd.sample_clips
  monkeypatch.setattr(fd, 'sample_clips', fail)
  with pytest.raises(KeyboardInterrupt):
    digits_builder.prepare(tmp_path, SPEC, 70)
  monkeypatch.undo()
  assert len(digits_builder.prepare(tmp_path, SPEC, 70)[1]) == 70


def _prepare(folder):
  from unitemp_jax.data import digits_builder

  return len(digits_builder.prepare(folder, SPEC, 70)[1])


def test_two_processes_prepare_the_same_set(tmp_path):
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    other = pool.apply_async(_prepare, [tmp_path])
    assert (_prepare(tmp_path), other.get()) == (70, 70)


def test_prepare_refuses_bad_input(tmp_path):
  from unitemp_jax.data import digits_builder

  with pytest.raises(UserError):
    digits_builder.prepare(tmp_path, SPEC, 0)
  blocked = tmp_path / 'file'
  blocked.write_text('x')
  with pytest.raises(UserError):
    digits_builder.prepare(blocked, SPEC, 3)
  assert blocked.read_text() == 'x'


def test_loader_over_prepared_and_array_record(prepared):
  import grain

  folder, source = prepared
  batch = next(loader_lib.make_loader(source, batch_size=8, seed=0))
  assert batch['video'].shape == (8, 5, 16, 16, 3)
  assert isinstance(batch['caption'][0], str)
  name = 'falling_digits-train.array_record-*'
  files = [str(p) for p in sorted(folder.rglob(name))][:1]
  raw = grain.sources.ArrayRecordDataSource(files)

  class Sizes:
    def __len__(self):
      return len(raw)

    def __getitem__(self, i):
      return {'size': len(raw[i])}

  batch = next(loader_lib.make_loader(Sizes(), batch_size=8, seed=0))
  assert (batch['size'] > 100).all()
