"""`unitemp encode PROMPTS`: the same embeddings however it is cut."""

import numpy as np
import pytest
from model_fixture import random_model

from unitemp_jax.cli import main as cli
from unitemp_jax.data import prompt_embeddings
from unitemp_jax.data.prompt_embeddings import PromptEmbeddings
from unitemp_jax.generate import encode_prompts
from unitemp_jax.generate.pipeline import Pipeline

PROMPTS = [
  'a red seven falls',
  'a blue   one  falls',
  'a green two slides',
  'a blue one falls',  # Tokenizes as the second does.
  'a red zero &amp; a red zero',
  'seven',
]
UNIQUE = 5


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
  monkeypatch.setattr(encode_prompts, '_SHARD', 2)


@pytest.fixture
def prompts(tmp_path):
  path = tmp_path / 'prompts.txt'
  # With a byte-order mark, which is no part of the first prompt.
  path.write_text('\ufeff' + '\n\n'.join(PROMPTS) + '\n', 'utf-8')
  return str(path)


def encode(prompts, out, *more):
  arguments = ['--batch_size=3', f'--model={random_model()}', f'--out={out}']
  return cli.main(['encode', prompts, *arguments, *more])


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_embeddings_are_the_encoders_own(prompts, tmp_path, capsys):
  out = tmp_path / 'out'
  assert encode(prompts, out) == 0
  assert capsys.readouterr().out.splitlines()[-1] == str(out)
  read = PromptEmbeddings(out)
  assert len(read) == UNIQUE
  pipeline = Pipeline.load(random_model())
  ids, mask = pipeline.tokenizer.encode(PROMPTS, pipeline.card.text.length)
  wanted = pipeline.text(pipeline.params['text'], PROMPTS)
  np.testing.assert_allclose(read.lookup(ids, mask), wanted, atol=1e-5)
  with pytest.raises(AssertionError):
    np.testing.assert_allclose(read.lookup(ids, mask), wanted[::-1], atol=0.1)


def test_parts_and_interruptions_give_the_same_bytes(prompts, tmp_path, capsys):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  assert encode(prompts, whole) == 0
  assert encode(prompts, parts, '--shard=1/2') == 0
  assert '1 of 3 shards are there' in capsys.readouterr().out
  assert encode(prompts, parts, '--shard=0/2') == 0
  assert contents(whole) == contents(parts)
  # A shard that was lost is made again, the others are left alone.
  kept = prompt_embeddings.shard_path(parts, 0)
  kept.write_bytes(b'kept')
  prompt_embeddings.shard_path(parts, 2).unlink()
  assert encode(prompts, parts) == 0
  assert kept.read_bytes() == b'kept'
  last = prompt_embeddings.shard_path(parts, 2)
  assert last.read_bytes() == contents(whole)[last.name]


@pytest.mark.parametrize(
  ('more', 'words'),
  [
    (['--shard=2/2'], 'not I/N'),
    (['--shard=x'], 'not I/N'),
    (['--batch_size=0'], 'use 1 or more'),
    (['--checkpoint=umt5.pth'], 'needs --tokenizer'),
    (['--model=nowhere'], 'not a model folder'),
  ],
)
def test_bad_arguments_write_nothing(prompts, tmp_path, more, words, capsys):
  out = tmp_path / 'out'
  assert encode(prompts, out, *more) == 2
  assert words in capsys.readouterr().err
  assert not out.exists()


def test_without_prompts_or_config_it_says_what_to_give(tmp_path, capsys):
  assert cli.main(['encode', f'--out={tmp_path}']) == 2
  assert 'say what to encode' in capsys.readouterr().err
  empty = tmp_path / 'empty.txt'
  empty.write_text('\n \n')
  assert encode(str(empty), tmp_path / 'out') == 2
  assert 'holds no prompt' in capsys.readouterr().err
  assert encode(str(tmp_path / 'nothing.txt'), tmp_path / 'out') == 2
  assert 'There is no file' in capsys.readouterr().err


def test_a_dry_run_writes_nothing(prompts, tmp_path, capsys):
  assert encode(prompts, tmp_path / 'out', '--dry_run') == 0
  assert '5 prompts to 3 shards' in capsys.readouterr().out
  assert not (tmp_path / 'out').exists()
