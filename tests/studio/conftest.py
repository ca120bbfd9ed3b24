import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from unitemp_jax import TINY

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
  return server.Studio(pathlib.Path(tmp_path / 'out'), TINY, 2**20)


class Process:
  """`unitemp studio` in a process of its own."""

  def __init__(self, out):
    self.out = out
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      self.port = free.getsockname()[1]
    self.url = f'http://127.0.0.1:{self.port}/'
    self.start()

  def start(self):
    env = {k: v for k, v in os.environ.items() if k != 'PYTEST_XDIST_WORKER'}
    # Programs of the shipped model are kept from run to run.
    env.pop('JAX_COMPILATION_CACHE_DIR', None)
    words = ['studio', f'--out={self.out}', f'--port={self.port}']
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'unitemp_jax.cli.main', *words], env=env
    )
    for _ in range(600):
      try:
        urllib.request.urlopen(self.url)
        return
      except OSError:
        time.sleep(0.1)
    raise AssertionError('the server does not answer')

  def kill(self):
    self.process.kill()
    self.process.wait()


@pytest.fixture(scope='module')
def process(tmp_path_factory):
  made = Process(tmp_path_factory.mktemp('out'))
  yield made
  made.kill()
