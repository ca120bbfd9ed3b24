import concurrent.futures
import pathlib

import numpy as np
import pytest

import unitemp_jax
from unitemp_jax.data import falling_digits as fd
from unitemp_jax.data import tokenizer as tokenizer_lib
from unitemp_jax.errors import UserError

SHIPPED = pathlib.Path(unitemp_jax.__file__).parent.joinpath(
  'assets', 'tiny', 'tokenizer.json'
)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'deep' / 'tokenizer.json'
  tokenizer_lib.save_falling_digits_tokenizer(path)
  return path


@pytest.fixture(scope='module')
def tokenizer(path):
  return tokenizer_lib.Tokenizer.from_file(path)


def test_shipped_file_is_the_built_one(path):
  assert SHIPPED.read_text() == path.read_text()
  assert [p.name for p in path.parent.iterdir()] == ['tokenizer.json']


def test_layout(tokenizer):
  ids, mask = tokenizer.encode(['A red seven.', 'zebra'], 6)
  assert ids.dtype == np.int32
  assert mask.dtype == bool
  np.testing.assert_array_equal(mask.sum(1), [5, 2])
  assert ids[0, 4] == ids[1, 1] == tokenizer.eos_id == 1
  assert ids[1, 0] == 2
  np.testing.assert_array_equal(ids[~mask], 0)
  assert 2 not in ids[0]


def test_truncation_keeps_the_end_token(tokenizer):
  long, _ = tokenizer.encode('a red seven falls', 9)
  ids, mask = tokenizer.encode('a red seven falls', 3)
  assert mask.all()
  np.testing.assert_array_equal(ids[0], [*long[0, :2], 1])
  np.testing.assert_array_equal(tokenizer.encode('red', 1)[0], [[1]])


def test_no_caption_has_an_unknown_word_and_16_tokens_suffice(tokenizer):
  spec = fd.FallingDigitsSpec(num_frames=33, size=16)
  texts = fd.sample_clips(spec, range(300))['caption']
  ids, mask = tokenizer.encode(texts, 40)
  assert not (ids == 2).any()
  assert mask.sum(1).max() <= 16
  assert len(np.unique(ids[:, :16], axis=0)) > 200
  assert (tokenizer.encode('a violet seven', 8)[0] == 2).sum() == 1


def test_what_is_lost_of_a_prompt_is_said(tokenizer):
  assert tokenizer.remarks('a red seven falls', 20) == []
  [said] = tokenizer.remarks('a cat jumps  over a Red moon, a cat', 20)
  assert 'does not know "cat", "jumps", "over", "moon" and' in said
  assert 'it draws what these words say: a again an' in said
  assert tokenizer.remarks('a red seven falls', 5) == []
  [said] = tokenizer.remarks('a red seven falls down', 5)
  assert said.startswith('the last 1 tokens of the prompt "a red seven')
  assert said.endswith('the text encoder takes 4')


def test_special_tokens_cannot_be_typed(tokenizer):
  ids, mask = tokenizer.encode('a </s> <pad> seven', 12)
  assert (ids == 1).sum() == 1
  assert (ids[mask] != 0).all()


def test_empty_text(tokenizer):
  for text in ('', ' \n'):
    with pytest.raises(UserError, match='Prompt 2 is empty'):
      tokenizer.encode(['a', text], 4)
    ids, mask = tokenizer.encode(text, 4, allow_empty=True)
    np.testing.assert_array_equal(ids, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(mask, [[True, False, False, False]])
  with pytest.raises(UserError):
    tokenizer.encode('a', 0)


def test_threads_share_a_tokenizer(tokenizer):
  lengths = [3, 5, 9, 4] * 8
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda n: tokenizer.encode('a red one', n), lengths))
  assert [ids.shape[1] for ids, _ in found] == lengths
  assert all(ids[0, mask[0]][-1] == 1 for ids, mask in found)


@pytest.mark.parametrize('text', ['', '{', '{"model": 3}', '[]'])
def test_corrupt_file(tmp_path, text):
  path = tmp_path / 'tokenizer.json'
  path.write_text(text)
  with pytest.raises(UserError, match=r'tokenizer\.json'):
    tokenizer_lib.Tokenizer.from_file(path)


def test_missing_or_unfitting_file(tmp_path):
  with pytest.raises(UserError, match='no tokenizer file'):
    tokenizer_lib.Tokenizer.from_file(tmp_path / 'nothing.json')
  with pytest.raises(UserError):
    tokenizer_lib.Tokenizer.from_file(tmp_path)
  other = tokenizer_lib.build_word_tokenizer(['a']).to_str()
  path = tmp_path / 'other.json'
  path.write_text(other.replace('<pad>', '<empty>'))
  with pytest.raises(UserError, match='does not fit'):
    tokenizer_lib.Tokenizer.from_file(path)


def test_save_into_a_file_is_refused(tmp_path):
  (tmp_path / 'file').write_text('x')
  with pytest.raises(UserError):
    tokenizer_lib.save_falling_digits_tokenizer(tmp_path / 'file' / 't.json')
  assert (tmp_path / 'file').read_text() == 'x'


@pytest.mark.parametrize(
  ('text', 'cleaned'),
  [
    ('  a\t\tred \n seven ', 'a red seven'),
    ('fish &amp; chips', 'fish & chips'),
    ('fish &amp;amp; chips', 'fish & chips'),  # Escaped twice.
    ('a cafÃ© at night', 'a café at night'),  # UTF-8 read as Latin-1.
    ('“quoted” ﬁne', '"quoted" fine'),
  ],
)
def test_text_is_cleaned_as_wan_does(tokenizer, text, cleaned):
  assert tokenizer_lib.clean(text) == cleaned
  one, _ = tokenizer.encode(text, 12)
  np.testing.assert_array_equal(one, tokenizer.encode(cleaned, 12)[0])


def test_both_kinds_of_file_give_the_same_ids(tmp_path):
  """A SentencePiece model, and the same pieces as a tokenizer.json."""
  sentencepiece = pytest.importorskip('sentencepiece')
  tokenizers = pytest.importorskip('tokenizers')
  spec = fd.FallingDigitsSpec(num_frames=33, size=16)
  texts = fd.sample_clips(spec, range(60))['caption']
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_prefix=str(tmp_path / 'spiece'),
    vocab_size=60,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
  )
  path = tmp_path / 'spiece.model'
  pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
  scores = [
    (pieces.id_to_piece(i), pieces.get_score(i))
    for i in range(pieces.get_piece_size())
  ]
  backend = tokenizers.Tokenizer(tokenizers.models.Unigram(scores, unk_id=2))
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  backend.save(str(tmp_path / 'tokenizer.json'))
  one = tokenizer_lib.Tokenizer.from_file(path)
  two = tokenizer_lib.Tokenizer.from_file(tmp_path / 'tokenizer.json')
  assert one.vocab_size == two.vocab_size == 60
  for text in [*texts[:5], 'two  words', 'a red']:
    for length in (4, 40):
      for a, b in zip(
        one.encode(text, length), two.encode(text, length), strict=True
      ):
        np.testing.assert_array_equal(a, b)
  assert one.encode(texts[0], 40)[0].max() > 2
  assert one.remarks('a red', 40) == []
  assert any('Q' in line for line in one.remarks('a Q red', 40))
  # A model under another name is known by its content.
  path.rename(tmp_path / 'renamed.json')
  renamed = tokenizer_lib.Tokenizer.from_file(tmp_path / 'renamed.json')
  np.testing.assert_array_equal(
    renamed.encode('a red', 9)[0], one.encode('a red', 9)[0]
  )
