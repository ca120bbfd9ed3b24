import pathlib

import pytest

from unitemp_jax import TINY
from unitemp_jax.cli import generate

starlette = pytest.importorskip('starlette')

from unitemp_jax.studio import server  # noqa: E402

PROMPT = 'a red seven falls'


def line(**changes):
  """A timeline as a page sends it."""
  prompts = [{'at': 0, 'text': PROMPT, 'link': False}]
  return {'length': 33, 'prompts': prompts, **changes}


def piece(source, at, first=0, last=0):
  return {'source': source, 'at': at, 'first': first, 'last': last}


@pytest.fixture
def studio(tmp_path) -> server.Studio:
  return server.Studio(
    pathlib.Path(tmp_path / 'out'), TINY, generate.jobs, 2**20
  )
