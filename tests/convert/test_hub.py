"""Weights by name, from a local server that speaks the hub's protocol."""

import hashlib
import http.server
import json
import threading

import numpy as np
import pytest
import small_models

huggingface_hub = pytest.importorskip('huggingface_hub')

from unitemp_jax.cli import main as cli  # noqa: E402
from unitemp_jax.convert import checkpoints, hub  # noqa: E402
from unitemp_jax.errors import UserError  # noqa: E402

COMMIT = 'a' * 40


class Hub(http.server.BaseHTTPRequestHandler):
  """Lists and serves the files of repositories; knows main and v1."""

  protocol_version = 'HTTP/1.0'  # No connection outlives the server.

  def do_HEAD(self):
    self.answer(body=False)

  def do_GET(self):
    self.answer(body=True)

  def answer(self, body):
    self.server.asked.append(self.path)
    parts = self.path.partition('?')[0].strip('/').split('/')
    if parts[:2] == ['api', 'models']:
      owner, name = parts[2:4]
      revision = parts[5] if len(parts) > 5 else 'main'
      self.listing(f'{owner}/{name}', revision)
      return
    owner, name, resolve, revision, *path = parts
    assert resolve == 'resolve'
    found = self.server.repositories.get(f'{owner}/{name}')
    if self.refused(found, f'{owner}/{name}', revision):
      return
    content = found.get('/'.join(path))
    if content is None:
      self.refuse(404, 'EntryNotFound')
      return
    self.send_response(200)
    self.send_header('ETag', f'"{hashlib.sha256(content).hexdigest()}"')
    self.send_header('X-Repo-Commit', COMMIT)
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    if body:
      self.wfile.write(content)

  def refused(self, found, name, revision):
    if found is None:
      self.refuse(401, 'RepoNotFound')
    elif name == 'big/gated':
      self.refuse(403, 'GatedRepo')
    elif revision not in ('main', 'v1', COMMIT):
      self.refuse(404, 'RevisionNotFound')
    else:
      return False
    return True

  def listing(self, name, revision):
    found = self.server.repositories.get(name)
    if self.refused(found, name, revision):
      return
    listed = [
      {'type': 'file', 'path': path, 'size': len(content), 'oid': COMMIT}
      for path, content in found.items()
    ]
    content = json.dumps(listed).encode()
    self.send_response(200)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    self.wfile.write(content)

  def refuse(self, code, why):
    self.send_response(code)
    self.send_header('X-Error-Code', why)
    self.send_header('Content-Length', '0')
    self.end_headers()

  def log_message(self, *_):
    pass


@pytest.fixture
def server(tmp_path, monkeypatch):
  """The running hub, which the library takes for the real one."""
  one = (
    small_models.write(tmp_path / 'x', small_models.state_dict('dit', 'wan'))
  ).read_bytes()
  half = {}
  state = small_models.state_dict('dit', 'wan', seed=1)
  for part in (0, 1):
    names = sorted(state)[part::2]
    path = small_models.write(tmp_path / 'x', {n: state[n] for n in names})
    half[f'part{part}.safetensors'] = path.read_bytes(), names
  index = {n: file for file, (_, names) in half.items() for n in names}
  repositories = {
    'some/student': {'model.safetensors': one, 'readme.md': b''},
    'some/parts': {
      'deep/m.safetensors.index.json': json.dumps(
        {'weight_map': index}
      ).encode(),
      'deep/config.json': b'{"num_heads": 2, "_class_name": "WanModel"}',
      **{f'deep/{file}': content for file, (content, _) in half.items()},
    },
    'some/two': {'a.safetensors': one, 'b.safetensors': one},
    'some/dots': {'w2.1/model.safetensors': one},
    'big/gated': {},
  }
  found = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
  found.repositories, found.asked = repositories, []
  thread = threading.Thread(target=found.serve_forever, daemon=True)
  thread.start()
  from huggingface_hub import constants, hf_api

  address = f'http://127.0.0.1:{found.server_address[1]}'
  monkeypatch.setattr(constants, 'ENDPOINT', address)
  monkeypatch.setattr(
    constants,
    'HUGGINGFACE_CO_URL_TEMPLATE',
    address + '/{repo_id}/resolve/{revision}/{filename}',
  )
  for name in ('HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE'):
    monkeypatch.setattr(constants, name, str(tmp_path / 'cache'), False)
  monkeypatch.setattr(hf_api.api, 'endpoint', address, raising=False)
  yield found
  found.shutdown()
  thread.join()


def read(source):
  tensors = checkpoints.open_checkpoint(source).tensors
  return {name: tensor.read() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
  'name, seed',
  [
    ('hf://some/student/model.safetensors', 0),
    ('hf://some/student/model.safetensors@v1', 0),
    ('hf://some/student', 0),
    ('hf://some/student@v1', 0),
    ('hf://some/dots/w2.1', 0),
    ('hf://some/parts/deep', 1),
    ('hf://some/parts/deep/m.safetensors.index.json', 1),
  ],
)
def test_a_checkpoint_by_name(server, name, seed):
  found = read(name)
  for key, value in small_models.state_dict('dit', 'wan', seed=seed).items():
    np.testing.assert_array_equal(found[key], value)
  if 'v1' in name:
    assert all('v1' in path for path in server.asked)


def test_the_command_converts_and_the_cache_needs_no_network(
  server, tmp_path, monkeypatch, capsys
):
  (tmp_path / 'small.py').write_text(
    'import dataclasses, small_models\n'
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    '  dit = dataclasses.asdict(small_models.CONFIGS["dit"])\n'
    '  return ConfigDict({"model": {"dit": dit}})\n'
  )
  monkeypatch.chdir(tmp_path)
  source = 'hf://some/student/model.safetensors'
  command = ['convert', f'--student={source}', '--config=small.py']
  assert cli.main([*command, '--out=one.safetensors']) == 0
  server.shutdown()
  server.server_close()
  monkeypatch.setattr('time.sleep', lambda seconds: None)  # between attempts
  assert cli.main([*command, '--out=two.safetensors']) == 0
  one, two = (tmp_path / f'{n}.safetensors' for n in ('one', 'two'))
  assert one.read_bytes() == two.read_bytes()
  capsys.readouterr()
  for name in ('hf://some/two/a.safetensors', 'hf://some/two'):
    other = ['convert', f'--student={name}', *command[2:]]
    assert cli.main([*other, '--out=three.safetensors']) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f'{name} cannot be fetched without network' in line
  assert not (tmp_path / 'three.safetensors').exists()


@pytest.mark.parametrize(
  'name, complaint',
  [
    ('hf://some', 'is no name on the hub'),
    ('hf://some/none/m.safetensors', 'there is no some/none'),
    ('hf://some/student/m.safetensors', 'no file m.safetensors'),
    ('hf://some/student/model.safetensors@v9', 'no revision v9'),
    ('hf://some/student@v1/model.safetensors@v1', 'is no name on the hub'),
    ('hf://some/two', 'a.safetensors, b.safetensors; name the one'),
    ('hf://some/parts', 'name the one file'),
    ('hf://big/gated/m.pt', 'is gated'),
  ],
)
def test_what_is_not_there(server, name, complaint):
  with pytest.raises(UserError) as error:
    checkpoints.open_checkpoint(name)
  assert complaint in str(error.value) and '\n' not in str(error.value)


def test_revisions_may_stand_in_both_places():
  wanted = hub.Name('a/b', 'c/d.pt', 'v1')
  assert hub.parse('hf://a/b/c/d.pt@v1') == wanted
  assert hub.parse('hf://a/b@v1/c/d.pt') == wanted
  assert hub.parse('hf:/a/b') == hub.Name('a/b', '', None)
