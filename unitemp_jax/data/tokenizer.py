"""Text to token ids, by a tokenizer file.

The tiny model's file is a plain word list, built from the captions' vocabulary
by `python -m unitemp_jax.data.tokenizer OUT.json`. Any other file of the
tokenizers library works as well, or a SentencePiece model, if padding is id 0
and it has an end token `</s>`: UMT5's `tokenizer.json` and `spiece.model` do.
"""

import html
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence

import ftfy
import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from unitemp_jax import files
from unitemp_jax.data import falling_digits
from unitemp_jax.errors import UserError, shown

PAD, EOS, UNKNOWN = '<pad>', '</s>', '<unk>'
PAD_ID = 0
_PUNCTUATION = (',', '.')


Encode = Callable[[list[str]], list[list[int]]]


def clean(text: str) -> str:
  """Text as Wan hands it to its tokenizer (`wan/modules/tokenizers.py`).

  Broken Unicode is mended, HTML entities are resolved (twice, as they come
  escaped twice), and runs of white space become one space.
  """
  text = html.unescape(html.unescape(ftfy.fix_text(text)))
  return re.sub(r'\s+', ' ', text).strip()


class Tokenizer:
  """Encodes texts to padded ids and a mask."""

  def __init__(
    self,
    encode: Encode,
    eos_id: int,
    vocab_size: int,
    unknown: Callable[[str], list[str]] = lambda text: [],
    words: Sequence[str] = (),
  ):
    """Wraps the functions of a library.

    Args:
      encode: texts to ids, the end token may be among them.
      eos_id: id of the end token.
      vocab_size: number of tokens.
      unknown: the parts of a text that have no token of their own.
      words: all that it knows, if they are few enough to be read.
    """
    self._encode = encode
    self.eos_id = eos_id
    self.vocab_size = vocab_size
    self._unknown = unknown
    self._words = words

  @classmethod
  def from_file(cls, path: str | os.PathLike[str]) -> 'Tokenizer':
    """Opens a tokenizer file: JSON of `tokenizers`, or a SentencePiece model.

    UserError if the file is missing, is no tokenizer file, or lacks a padding
    token with id 0 or an end token.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
      raise UserError(f'There is no tokenizer file {path}.')
    with open(path, 'rb') as file:
      start = file.read(64).lstrip()
    # A SentencePiece model is a protocol buffer, whose first byte is 0x0a, a
    # line feed; JSON and empty files are left to the tokenizers library.
    if path.endswith('.model') or (start and start[:1] not in b'{['):
      return cls(*_sentencepiece(path))
    return cls(*_tokenizers(path))

  def encode(
    self, texts: Sequence[str] | str, length: int, *, allow_empty: bool = False
  ) -> tuple[np.ndarray, np.ndarray]:
    """Cleans and encodes texts; longer ones are cut, the end token is kept.

    Args:
      texts: B texts, or one.
      length: E, ids per text including the end token, at least 1.
      allow_empty: an empty text is the null prompt of guidance (the end token
        alone) and not an error.

    Returns:
      ids int32 [B, E], padded with 0; mask bool [B, E], True at tokens.

    Raises:
      UserError: a text is empty, or length < 1.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    texts = [clean(text) for text in texts]
    if length < 1:
      raise UserError(f'The text length must be at least 1, got {length}.')
    for number, text in enumerate(texts):
      if not text and not allow_empty:
        raise UserError(f'Prompt {number + 1} is empty: describe the video.')
    ids = np.full((len(texts), length), PAD_ID, np.int32)
    mask = np.zeros((len(texts), length), bool)
    for row, found in enumerate(self._encode(texts)):
      tokens = [t for t in found if t not in (PAD_ID, self.eos_id)]
      tokens = tokens[: length - 1] + [self.eos_id]
      ids[row, : len(tokens)] = tokens
      mask[row, : len(tokens)] = True
    return ids, mask

  def remarks(self, text: str, length: int) -> list[str]:
    """Sentences on what of a prompt is lost on the way to the model.

    Args:
      text: the prompt.
      length: as for `encode`.
    """
    text, said = clean(text), []
    unknown = dict.fromkeys(part.strip() for part in self._unknown(text))
    if unknown:
      words = ', '.join(f'"{shown(word)}"' for word in unknown)
      said.append(f'the model does not know {words} and makes it up')
      if self._words:
        said[0] += f'; it draws what these words say: {" ".join(self._words)}'
    [ids] = self._encode([text])
    over = sum(t not in (PAD_ID, self.eos_id) for t in ids) - (length - 1)
    if over > 0:
      said.append(
        f'the last {over} tokens of the prompt "{shown(text)}" are cut off: '
        f'the text encoder takes {length - 1}'
      )
    return said


def _tokenizers(path: str) -> tuple:
  """Opens a file of the tokenizers library."""
  try:
    backend = tokenizers.Tokenizer.from_file(path)
    backend.encode('a red one')
  except BaseException as error:  # the library's panics are no Exception
    if isinstance(error, KeyboardInterrupt | SystemExit):
      raise
    raise UserError(
      f'{path} is no tokenizer file ({error}): give a tokenizer.json of the '
      'tokenizers library or a spiece.model of SentencePiece.'
    ) from error
  pad_id, eos_id = backend.token_to_id(PAD), backend.token_to_id(EOS)
  if pad_id != PAD_ID or eos_id is None:
    raise _unfit(path)
  # Padding and truncation are done here, without state, so that the reading
  # threads of a loader can share one tokenizer.
  backend.no_padding()
  backend.no_truncation()

  def encode(texts: list[str]) -> list[list[int]]:
    return [found.ids for found in backend.encode_batch(texts)]

  unknown_id = backend.token_to_id(UNKNOWN)

  def unknown(text: str) -> list[str]:
    found = backend.encode(text)
    spans = zip(found.ids, found.offsets, strict=True)
    return [
      text[low:high] for token, (low, high) in spans if token == unknown_id
    ]

  words = sorted(backend.get_vocab()) if backend.get_vocab_size() < 200 else []
  words = [word for word in words if word[:1].isalpha()]
  return encode, eos_id, backend.get_vocab_size(), unknown, words


def _sentencepiece(path: str) -> tuple:
  """Opens a SentencePiece model."""
  try:
    import sentencepiece
  except ImportError as error:
    raise UserError(
      f'{path} is a SentencePiece model and sentencepiece is not installed; '
      'run: pip install sentencepiece, or give a tokenizer.json.'
    ) from error
  try:
    backend = sentencepiece.SentencePieceProcessor(model_file=path)
  except (RuntimeError, OSError) as error:
    raise UserError(
      f'{path} is no tokenizer file ({error}): give a tokenizer.json of the '
      'tokenizers library or a spiece.model of SentencePiece.'
    ) from error
  eos_id = backend.eos_id()
  if backend.pad_id() != PAD_ID or eos_id < 0:
    raise _unfit(path)

  def unknown(text: str) -> list[str]:
    ids, pieces = backend.encode(text), backend.encode(text, out_type=str)
    return [
      piece.removeprefix('\u2581')
      for id_, piece in zip(ids, pieces, strict=True)
      if id_ == backend.unk_id()
    ]

  return backend.encode, eos_id, backend.get_piece_size(), unknown


def _unfit(path: str) -> UserError:
  return UserError(
    f'The tokenizer {path} does not fit: the token {PAD} must have the id '
    f'{PAD_ID} and there must be a token {EOS}.'
  )


def build_word_tokenizer(words: Iterable[str]) -> tokenizers.Tokenizer:
  """Builds a tokenizer that knows the given words.

  Text is lower-cased and split at white space and punctuation; `<pad>` is 0,
  `</s>` is 1, `<unk>` is 2, then the words in sorted order.
  """
  listed = sorted({word.lower() for word in words} | set(_PUNCTUATION))
  vocabulary = {word: i for i, word in enumerate((PAD, EOS, UNKNOWN, *listed))}
  built = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
  built.normalizer = normalizers.Sequence(
    [normalizers.NFKC(), normalizers.Lowercase()]
  )
  built.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
  )
  built.post_processor = processors.TemplateProcessing(
    single=f'$A {EOS}', special_tokens=[(EOS, vocabulary[EOS])]
  )
  return built


def save_falling_digits_tokenizer(path: str | os.PathLike[str]) -> None:
  """Writes the tokenizer file of the falling digits' captions, atomically.

  UserError if the folder cannot be written.
  """
  built = build_word_tokenizer(falling_digits.vocabulary())
  files.write(path, built.to_str(pretty=True) + '\n')


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('usage: python -m unitemp_jax.data.tokenizer OUT.json')
  save_falling_digits_tokenizer(sys.argv[1])
