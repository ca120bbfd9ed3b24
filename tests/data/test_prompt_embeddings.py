import ml_dtypes
import numpy as np
import pytest

from unitemp_jax import files
from unitemp_jax.data import prompt_embeddings as pe
from unitemp_jax.errors import UserError

LENGTH, WIDTH = 6, 4
ABOUT = {
  'text': 'w',
  'tokenizer': 't',
  'dtype': 'float32',
  'length': LENGTH,
  'width': WIDTH,
  'shards': 2,
  'per_shard': 2,
}
IDS = np.array([[5, 6, 1, 0, 0, 0], [5, 1, 0, 0, 0, 0], [7, 8, 9, 2, 3, 1]])
MASK = IDS > 0
KEYS = [pe.key_of(*row) for row in zip(IDS, MASK, strict=True)]
ROWS = [
  np.random.default_rng(i).standard_normal((int(m.sum()), WIDTH), np.float32)
  for i, m in enumerate(MASK)
]


def write(folder, dtype='float32', shards=(0, 1)):
  about = {**ABOUT, 'dtype': dtype}
  pe.write_index(folder, about, KEYS)
  for shard in shards:
    rows = [r.astype(pe.DTYPES[dtype]) for r in ROWS[2 * shard :][:2]]
    pe.write_shard(pe.shard_path(folder, shard), rows)
  return folder


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_what_was_written_is_read_and_zero_after_the_end(tmp_path, dtype):
  read = pe.PromptEmbeddings(write(tmp_path, dtype))
  assert len(read) == 3
  for i, wanted in enumerate(ROWS):
    if dtype == 'bfloat16':
      wanted = wanted.astype(ml_dtypes.bfloat16).astype(np.float32)
      assert (wanted != ROWS[i]).any()
    np.testing.assert_array_equal(read[i][: len(wanted)], wanted)
    assert (read[i][len(wanted) :] == 0).all()
    assert read[i].shape == (LENGTH, WIDTH)


def test_prompts_are_found_by_their_tokens(tmp_path):
  read = pe.PromptEmbeddings(write(tmp_path))
  found = read.lookup(IDS[[2, 0]], MASK[[2, 0]])
  np.testing.assert_array_equal(found, [read[2], read[0]])
  # Positions after the end do not matter, a longer text does.
  padded = np.pad(IDS[:1], ((0, 0), (0, 3)))
  np.testing.assert_array_equal(read.lookup(padded, padded > 0)[0], read[0])
  with pytest.raises(UserError, match=r'tokens \[6, 6, 1.*is not among the 3'):
    read.lookup(IDS[[0, 0]] + [[0] * 6, [1, 0, 0, 0, 0, 0]], MASK[[0, 0]])


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    *(('shards', number) for number in (10**9, -1, True, '2')),
    *(('width', number) for number in (0, 2**70, None)),
    *(('length', 1.5), ('dtype', []), ('keys', [['x']])),
  ],
)
def test_an_index_that_cannot_be_is_refused(tmp_path, name, value):
  folder = write(tmp_path)
  if name == 'keys':
    files.write_json(folder / pe.KEYS, value)
  else:
    index = files.read_json(folder / pe.INDEX)
    files.write_json(folder / pe.INDEX, {**index, name: value})
  with pytest.raises(UserError, match='is not an index of embeddings'):
    pe.PromptEmbeddings(folder)


@pytest.mark.parametrize(
  'rows', [np.full((4, WIDTH), np.nan, np.float32), np.ones((9, WIDTH + 1))]
)
def test_a_prompt_that_is_damaged_is_named(tmp_path, rows):
  write(tmp_path)
  path = pe.shard_path(tmp_path, 0)
  path.unlink()
  pe.write_shard(path, [ROWS[0], rows.astype(np.float32)])
  read = pe.PromptEmbeddings(tmp_path)
  assert read[0].shape == (LENGTH, WIDTH)
  with pytest.raises(UserError, match='record 1, is damaged'):
    read[1]


def test_an_example_of_training_gets_its_text(tmp_path):
  read = pe.PromptEmbeddings(write(tmp_path))
  example = {'latents': np.ones(3), 'ids': IDS[1], 'mask': MASK[1]}
  made = read.attach(example)
  assert set(made) == {'latents', 'text'}
  np.testing.assert_array_equal(made['text'], read[1])
  source = pe.PromptSource(tmp_path)
  np.testing.assert_array_equal(source[2]['text'], read[2])


def test_an_unfinished_folder_is_refused(tmp_path):
  with pytest.raises(UserError, match='holds no embeddings'):
    pe.PromptEmbeddings(tmp_path)
  write(tmp_path, shards=(0,))
  with pytest.raises(UserError, match='1 of 2 shards are missing'):
    pe.PromptEmbeddings(tmp_path)
  write(tmp_path, shards=(1,))
  assert len(pe.PromptEmbeddings(tmp_path)) == 3
  assert not list(tmp_path.glob('*.tmp'))


def test_other_prompts_or_weights_are_not_mixed_in(tmp_path):
  write(tmp_path)
  for about, keys in (({**ABOUT, 'text': 'other'}, KEYS), (ABOUT, KEYS[:2])):
    with pytest.raises(UserError, match='other prompts or another text'):
      pe.write_index(tmp_path, about, keys)


def test_a_damaged_index_is_refused(tmp_path):
  write(tmp_path)
  (tmp_path / pe.INDEX).write_text('{"shards": 2}')
  with pytest.raises(UserError, match='not an index of embeddings'):
    pe.PromptEmbeddings(tmp_path)
  (tmp_path / pe.INDEX).write_text('{')
  with pytest.raises(UserError, match='cannot be read as JSON'):
    pe.PromptEmbeddings(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(pe.files.os, 'replace', fail)
  with pytest.raises(UserError, match='disk full'):
    pe.write_shard(pe.shard_path(tmp_path, 0), ROWS)
  assert list(tmp_path.iterdir()) == []
