"""Text to token ids, by a tokenizer file of the `tokenizers` library.

The tiny model's file is a plain word list, built from the captions' vocabulary
by `python -m unitemp_jax.data.tokenizer OUT.json`. Any other file of the
library works as well if padding is id 0 and it has an end token `</s>`.
"""

import os
import sys
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from unitemp_jax.data import falling_digits_captions
from unitemp_jax.errors import UserError

PAD, EOS, UNKNOWN = '<pad>', '</s>', '<unk>'
PAD_ID = 0
_PUNCTUATION = (',', '.')


class Tokenizer:
  """Encodes texts to padded ids and a mask."""

  def __init__(self, backend: tokenizers.Tokenizer):
    # Padding and truncation are done here, without state, so that the reading
    # threads of a loader can share one tokenizer.
    backend.no_padding()
    backend.no_truncation()
    self._backend = backend
    self.eos_id: int = backend.get_vocab()[EOS]
    self.vocab_size: int = backend.get_vocab_size()

  @classmethod
  def from_file(cls, path: str | os.PathLike[str]) -> 'Tokenizer':
    """Opens a tokenizer file.

    Raises:
      UserError: the file is missing, is no tokenizer file, or lacks a padding
        token with id 0 or an end token.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
      raise UserError(f'There is no tokenizer file {path}.')
    try:
      backend = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the library raises nothing more specific
      raise UserError(
        f'{path} is no tokenizer file ({error}): give a tokenizer.json of the '
        'tokenizers library.'
      ) from error
    if backend.token_to_id(PAD) != PAD_ID or backend.token_to_id(EOS) is None:
      raise UserError(
        f'The tokenizer {path} does not fit: the token {PAD} must have the id '
        f'{PAD_ID} and there must be a token {EOS}.'
      )
    return cls(backend)

  def encode(
    self, texts: Sequence[str] | str, length: int, *, allow_empty: bool = False
  ) -> tuple[np.ndarray, np.ndarray]:
    """Encodes texts; longer ones are cut, the end token is kept.

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
    if length < 1:
      raise UserError(f'The text length must be at least 1, got {length}.')
    for number, text in enumerate(texts):
      if not text.strip() and not allow_empty:
        raise UserError(f'Prompt {number + 1} is empty: describe the video.')
    ids = np.full((len(texts), length), PAD_ID, np.int32)
    mask = np.zeros((len(texts), length), bool)
    for row, encoding in enumerate(self._backend.encode_batch(texts)):
      tokens = [t for t in encoding.ids if t not in (PAD_ID, self.eos_id)]
      tokens = tokens[: length - 1] + [self.eos_id]
      ids[row, : len(tokens)] = tokens
      mask[row, : len(tokens)] = True
    return ids, mask


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

  Raises:
    UserError: the folder cannot be written.
  """
  built = build_word_tokenizer(falling_digits_captions.vocabulary())
  path = os.path.abspath(path)
  try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
      part = os.path.join(folder, 'tokenizer.json')
      with open(part, 'w', encoding='utf-8') as file:
        file.write(built.to_str(pretty=True) + '\n')
      os.replace(part, path)
  except OSError as error:
    raise UserError(f'Cannot write {path}: {error.strerror}.') from error


if __name__ == '__main__':
  if len(sys.argv) != 2:
    sys.exit('usage: python -m unitemp_jax.data.tokenizer OUT.json')
  save_falling_digits_tokenizer(sys.argv[1])
