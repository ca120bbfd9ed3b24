"""The server: one timeline for all pages, and nothing for foreign ones."""

import asyncio
import io
import json
import os
import socket
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import uvicorn
from conftest import PROMPT, line, piece
from PIL import Image
from starlette.testclient import TestClient

from unitemp_jax import files
from unitemp_jax.errors import UserError
from unitemp_jax.studio import guard, server

EMPTY = {'at': 9, 'text': ' ', 'link': False}
URL = 'http://127.0.0.1:8400'


@pytest.fixture
def client(studio):
  app = server.make_app(studio, '127.0.0.1', None)
  return TestClient(app, URL, raise_server_exceptions=False)


def picture(size=(32, 32), kind='PNG', **about):
  out = io.BytesIO()
  Image.new('RGB', size, 'red').save(out, kind, **about)
  return out.getvalue()


def give(client, content, name='a.png'):
  return client.post(f'/api/first/given?name={name}', content=content)


def post(client, action, value):
  return client.post(f'/api/first/{action}', json=value)


def test_the_page_and_its_files_come_from_here_alone(client):
  page = client.get('/')
  assert page.status_code == 200 and 'unitemp studio' in page.text
  assert "default-src 'none'" in page.headers['content-security-policy']
  assert '://' not in page.text
  for name in ('studio.js', 'studio.css', 'player.js', 'tracks.js', 'dom.js'):
    assert client.get(f'/page/{name}').status_code == 200


def test_a_plan_in_the_order_of_generation(client):
  found = post(client, 'plan', line()).json()
  assert found['frames'] == 33 and found['seconds'] is None
  assert found['blocks'] == [[0, 8, False], [9, 20, False], [21, 32, False]]
  backward = post(client, 'plan', line(order='future')).json()['blocks']
  assert [block[1] for block in backward] == [32, 20, 8]
  assert found['said'][0].startswith('33 frames of 32×32, 2.75 s: 3 blocks')
  assert found['said'][1].startswith('Memory: ')


@pytest.mark.parametrize(
  ('changes', 'sentence'),
  [
    ({'length': 34}, 'use 33'),
    ({'order': 'outside_in'}, 'put a picture'),
    ({'prompts': []}, 'write a prompt'),
    ({'prompts': [*line()['prompts'], EMPTY]}, 'write the prompt from frame 9'),
    ({'pieces': [piece('none', 0)]}, 'is not there'),
    ({'loop': True, 'length': 5}, 'use 9 or more'),
  ],
)
def test_what_does_not_fit_is_said(client, changes, sentence):
  assert sentence in post(client, 'plan', line(**changes)).json()['error']
  assert sentence in post(client, 'generate', line(**changes)).json()['error']
  assert client.get('/api/first/state').json()['versions'] == []


def test_what_is_given_stands_in_the_plan(client):
  source = give(client, picture()).json()['source']
  state = client.get('/api/first/state').json()
  assert state['given'][source]['name'] == 'a.png'
  assert client.get(f'/api/first/given/{source}').status_code == 200
  found = post(client, 'plan', line(pieces=[piece(source, 16)])).json()
  assert sorted(block[1] for block in found['blocks']) == [8, 16, 28, 32]
  twice = line(pieces=[piece(source, 32), piece(source, 32)])
  assert 'two pieces' in post(client, 'plan', twice).json()['error']


def test_all_pages_see_one_timeline_and_the_queue(client, studio):
  changed = line(seed=7)
  before = studio.revision
  post(client, 'timeline', changed)
  assert client.get('/api/first/state').json()['timeline']['seed'] == 7
  assert post(client, 'generate', changed).json() == {'version': '0001'}
  assert studio.revision > before
  [version] = client.get('/api/first/state').json()['versions']
  assert version['state'] == 'queued'
  assert (
    f"--prompt='{PROMPT}'" in version['command']
    or PROMPT in (version['command'])
  )
  client.post('/api/first/versions/0001/cancel')
  [version] = client.get('/api/first/state').json()['versions']
  assert version['state'] == 'cancelled'
  client.post('/api/first/versions/0001/resume')
  [version] = client.get('/api/first/state').json()['versions']
  assert version['state'] == 'queued'


@pytest.mark.parametrize(
  'headers',
  [
    {'host': 'evil.example'},
    {'host': '127.0.0.1.evil.example:8400'},
    {'host': 'localhost@evil.example'},
    {'origin': 'http://evil.example'},
    {'origin': 'null'},
    {'origin': 'http://[x'},
    {'origin': 'http://127.0.0.1:9999'},
  ],
)
def test_foreign_pages_are_refused(client, headers):
  sent = client.post('/api/first/timeline', json=line(), headers=headers)
  assert sent.status_code == 403
  assert client.get('/api/first/state').json()['timeline']['prompts'] == [
    {'at': 0, 'text': '', 'link': False}
  ]


@pytest.mark.parametrize('host', ['localhost:9000', '[::1]:1', '127.0.0.1'])
def test_own_pages_are_not_refused_through_a_tunnel(client, host):
  """Negative control of the refusals."""
  headers = {'host': host, 'origin': f'http://{host}'}
  sent = client.post('/api/first/timeline', json=line(), headers=headers)
  assert sent.status_code == 200


def test_elsewhere_a_token_is_asked_for(studio):
  token = guard.token_of(studio.out)
  assert guard.token_of(studio.out) == token
  app = server.make_app(studio, '0.0.0.0', token)
  client = TestClient(app, 'http://10.0.0.7:8400')
  assert client.get('/').status_code == 401
  assert client.get('/?token=wrong').status_code == 401
  assert client.get('/api/first/state?token=' + token).status_code == 401
  assert client.get('/', headers={'host': 'a.example'}).status_code == 403
  assert client.get('/?token=' + token).status_code == 200
  assert client.get('/api/first/state').status_code == 200


def test_a_token_is_whole_secret_and_of_its_own_file(studio, tmp_path):
  path, victim = studio.out / guard.TOKEN_FILE, tmp_path / 'victim'
  path.touch()  # What a full disk or a kill leaves.
  token = guard.token_of(studio.out)
  assert path.read_text() == token and len(token) == 32
  assert path.stat().st_mode & 0o777 == 0o600
  path.unlink()
  path.symlink_to(victim)
  with pytest.raises(UserError, match='is no file'):
    guard.token_of(studio.out)
  assert not victim.exists()
  path.unlink()
  path.write_text(token[:9])
  with pytest.raises(UserError, match='delete it'):
    guard.token_of(studio.out)
  # Not even a server without a secret opens to those that say nothing.
  client = TestClient(server.make_app(studio, '0.0.0.0', ''), 'http://10.0.0.7')
  assert client.get('/?token=').status_code == 401
  assert client.get('/api/projects').status_code == 401


@pytest.mark.parametrize(
  'path',
  [
    '/page/../server.py',
    '/page/%2e%2e/server.py',
    '/page/..%2f..%2fcli%2fmain.py',
    '/api/..%2f..%2fetc/state',
    '/api/first/given/..%2fstudio.json',
    '/api/first/versions/..%2f0001/mp4',
    '/api/first/versions/0001/..%2f..%2fstudio.json',
  ],
)
def test_no_path_leads_elsewhere(client, path):
  assert client.get(path).status_code in (403, 404, 405)


def bomb():
  """A PNG of 30000x30000 pixels in a few hundred kB."""

  def chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', crc)

  head = struct.pack('>IIBBBBB', 30000, 30000, 8, 0, 0, 0, 0)
  rows = zlib.compress(bytes(30001 * 3000), 9)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', rows)


@pytest.mark.parametrize(
  ('content', 'status', 'sentence'),
  [
    (bomb(), 422, 'pixels'),
    (bytes(2**20 + 1), 413, 'Too Large'),
    (b'#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n', 422, 'neither'),
    (b'ffconcat version 1.0\nfile /etc/passwd\n', 422, 'neither'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, 'neither'),
    (b'', 422, 'neither'),
    (picture((10**6, 1)), 422, 'no picture for a video'),
    (picture((3300, 100)), 422, 'no picture for a video'),
    (picture()[:60], 422, 'Cannot read'),
    (bytes(4) + b'ftypisom' + bytes(100), 422, 'Cannot read'),
  ],
)
def test_bad_uploads_are_refused_and_leave_nothing(
  client, studio, content, status, sentence
):
  sent = give(client, content)
  assert sent.status_code == status and sentence in sent.text
  assert client.get('/api/first/state').json()['given'] == {}
  assert {path.name for path in studio.out.rglob('*')} == {'first'}


def test_a_strip_is_of_few_pixels(client, studio):
  source = give(client, picture((3200, 100))).json()['source']
  path = studio.listed()[0].strip(source)
  assert Image.open(path).size == (512, 64)


def test_a_still_gif_is_a_picture(client):
  """However long it says that it lasts."""
  for duration in (10, 3000):
    content = picture((32, 24 + duration // 1000), 'GIF', duration=duration)
    source = give(client, content, 'a.gif').json()['source']
    state = client.get('/api/first/state').json()
    assert state['given'][source]['frames'] == 1
    found = post(client, 'plan', line(pieces=[piece(source, 16)])).json()
    assert 'error' not in found


def test_two_files_of_one_name_are_told_apart(client):
  sources = [give(client, picture((32, k))).json()['source'] for k in (32, 40)]
  state = client.get('/api/first/state').json()
  assert [state['given'][s]['name'] for s in sources] == ['a.png', 'a 2.png']
  again = give(client, picture()).json()['source']
  assert again == sources[0]
  assert client.get('/api/first/state').json()['given'] == state['given']


def test_an_upload_that_stops_is_given_up(studio, monkeypatch):
  monkeypatch.setattr(guard, '_PATIENCE', 0.05)
  app = server.make_app(studio, '127.0.0.1', None)
  head = [(b'host', b'localhost'), (b'content-length', b'9')]
  scope = {'type': 'http', 'method': 'POST', 'path': '/api/first/given'}
  scope |= {'headers': head, 'query_string': b'', 'root_path': ''}
  parts, told = [{'type': 'http.request', 'body': b'1', 'more_body': True}], []

  async def receive():
    return parts.pop() if parts else await asyncio.sleep(60)

  async def send(message):
    told.append(message)

  asyncio.run(app(scope, receive, send))
  assert told[0]['status'] == 408 and b'came no further' in told[1]['body']
  assert not list(studio.out.glob('.unitemp-*'))


def test_a_connection_without_a_request_is_closed(studio, monkeypatch):
  monkeypatch.setattr(guard, '_PATIENCE', 0.2)
  app = server.make_app(studio, '127.0.0.1', None)
  config = uvicorn.Config(app, port=0, http=guard.Patient, log_level='error')
  running = uvicorn.Server(config)
  thread = threading.Thread(target=running.run)
  thread.start()
  while not running.started:
    time.sleep(0.01)
  address = running.servers[0].sockets[0].getsockname()
  for sent in (b'', b'GET / HTTP/1.1\r\nHost: loc'):
    with socket.create_connection(address, 20) as link:
      link.sendall(sent)
      assert link.recv(1) == b''
  running.should_exit = True
  thread.join()


def test_what_an_upload_left_is_removed(studio, tmp_path):
  mine, alike = studio.out / '.upload-mine', studio.out / '.unitemp-a-b-c.tmp'
  files.write(mine / 'film.mp4', 'mine')
  alike.mkdir()
  gone = f'.unitemp-{files.this_machine()}-{os.getpid()}-{16 * "0"}.tmp'
  files.write(studio.out / gone / 'file', '')
  server.Studio(studio.out, studio.home)
  assert not (studio.out / gone).exists()
  assert (mine / 'film.mp4').exists() and alike.exists()


def test_a_body_without_a_length_is_limited_too(client):
  sent = give(client, (bytes(2**16) for _ in range(40)))
  assert sent.status_code == 413


def test_names_come_from_the_server(client, studio):
  sent = give(client, picture(), '..%2F..%2Fetc%2Fpasswd')
  about = client.get('/api/first/state').json()['given'][sent.json()['source']]
  assert '/' not in about['name'] and not about['name'].startswith('.')
  folder = studio.out / 'first' / 'given'
  assert (folder / about['file']).read_bytes() == picture()


@pytest.mark.parametrize(
  'value',
  [
    [],
    'x',
    {},
    {'length': '33'},
    {'length': True},
    line(pieces=[{'source': 'a'}]),
    line(prompts=[[]]),
    line(order='sideways'),
    line(prompts=[{'at': 0, 'text': 'a\nb', 'link': False}]),
    line(size='big'),
    line(order='scenes', prompts=[]),
  ],
)
def test_what_is_no_timeline_is_refused(client, value):
  assert post(client, 'generate', value).status_code == 422
  assert client.get('/api/first/state').json()['versions'] == []


def test_what_is_no_storyboard_is_refused(client):
  assert post(client, 'save', line(prompts=[])).status_code == 422


def test_half_a_character_is_refused(client):
  value = line(prompts=[{'at': 0, 'text': '\ud800', 'link': False}])
  sent = client.post('/api/first/timeline', content=json.dumps(value))
  assert sent.status_code == 422
  assert client.get('/api/first/state').status_code == 200


def test_what_is_no_json_is_refused(client):
  for content in (b'\xff', b'[' * 10**5, b'{'):
    sent = client.post('/api/first/plan', content=content)
    assert sent.status_code == 422
  sent = client.post('/api/first/plan', content=bytes(2**21))
  assert sent.status_code == 413


def test_storyboards_go_out_and_come_in(client):
  source = give(client, picture()).json()['source']
  prompts = [
    {'at': 0, 'text': 'a red seven falls', 'link': False},
    {'at': 25, 'text': '', 'link': True},
    {'at': 37, 'text': 'a blue two falls', 'link': False},
  ]
  told = line(length=61, prompts=prompts, order='scenes', window=6, seed=4)
  told['pieces'] = [piece(source, 8)]
  text = post(client, 'save', told).json()['text']
  sent = client.post('/api/first/storyboard', content=text.encode())
  again = sent.json()['timeline']
  assert {key: again[key] for key in told} == told
  assert 'error' not in post(client, 'plan', again).json()
  for bad in ('../a.png', '/etc/passwd'):
    sent = client.post(
      '/api/first/storyboard', content=text.replace('a.png', bad)
    )
    assert 'put that file on the page' in sent.json()['error']


GOOD = {'clip': 'long/0000-a.mp4', 'state': 'queued', 'timeline': line()}


@pytest.mark.parametrize(
  'bad',
  [
    *({**GOOD, 'clip': c} for c in (5, '../a.mp4', '/a.mp4', 'a.txt', '')),
    *({**GOOD, name: {}} for name in ('since', 'starts', 'words', 'problem')),
    {**GOOD, 'since': 'x'},
    {**GOOD, 'words': 5},
    {**GOOD, 'timeline': []},
    {**GOOD, 'state': ['queued']},
    {'clip': GOOD['clip'], 'state': 'queued'},
    [],
    '[' * 20_000,
  ],
)
def test_a_damaged_version_stops_no_other(client, studio, bad):
  post(client, 'generate', line())
  text = bad if isinstance(bad, str) else json.dumps(bad)
  path = files.write(studio.out / 'first' / '0009' / 'studio.json', text)
  good, shown = client.get('/api/first/state').json()['versions']
  assert (shown['name'], shown['state']) == ('0009', 'failed')
  assert 'studio.json cannot be read as the record of 0009' in shown['problem']
  assert studio.worker._next()[1].name == good['name'] == '0001'
  for action in ('python', 'resume', 'cancel'):
    sent = client.post(f'/api/first/versions/0009/{action}')
    assert sent.status_code == (200 if action == 'cancel' else 422)
  assert path.read_text() == text
  # Its video is still there.
  (path.parent / 'long').mkdir()
  (path.parent / 'long' / '0000-a.mp4').write_text('video')
  sent = client.get('/api/first/versions/0009/mp4')
  assert sent.text == 'video'


def test_a_version_whose_timeline_is_unknown_is_shown(client, studio):
  """Control of the test before: what is no fault of the record's shape."""
  record = {**GOOD, 'timeline': {'x': 1}}
  files.write_json(studio.out / 'first' / '0009' / 'studio.json', record)
  [shown] = client.get('/api/first/state').json()['versions']
  assert shown['state'] == 'queued' and 'timeline' not in shown
  assert client.post('/api/first/versions/0009/python').status_code == 422


ABOUT = {'name': 'a', 'file': 'a.png', 'frames': 1, 'width': 8, 'height': 8}


@pytest.mark.parametrize(
  'bad',
  [
    *({'given': g} for g in ([], 5, {'x': 5}, {'x': {**ABOUT, 'frames': '1'}})),
    {'given': {'x': {**ABOUT, 'file': '../../a.png'}}},
    *({name: 5} for name in ('past', 'future', 'timeline')),
    {'past': [5]},
    [],
  ],
)
def test_a_damaged_project_says_how_to_mend_it(client, studio, bad):
  path = files.write_json(studio.out / 'first' / 'studio.json', bad)
  asked = [client.get('/api/first/state'), give(client, picture())]
  asked += [post(client, 'undo', {}), post(client, 'timeline', line())]
  for sent in asked:
    assert sent.status_code == 422
    assert 'record of first' in sent.json()['error']
    assert 'delete it' in sent.json()['error']
  assert json.loads(path.read_text()) == bad
  path.unlink()
  assert client.get('/api/first/state').status_code == 200


def test_projects_have_names_of_the_server(client, studio):
  made = client.post('/api/projects', json='../../A b').json()
  assert made == {'project': 'a-b'}
  assert (studio.out / 'a-b').is_dir()
  assert client.post('/api/projects', json='//').status_code == 422
  state = client.get('/api/first/state').json()
  assert state['projects'] == ['a-b', 'first']
  # A page is of a project that is there.
  for asked in ('/', '/?project=nix'):
    assert client.get(asked).url.params['project'] == 'a-b'
  assert client.get('/?project=first').url.params['project'] == 'first'


def test_a_version_is_told_to_whoever_made_it(studio):
  """What the command line wrote to a project is a version of it."""
  folder = studio.out / 'first' / 'long'
  folder.mkdir()
  (folder / '0000-a.json').write_text(json.dumps({'prompt': 'a'}))
  (folder / '.writer.json').write_text('{}')  # of a command that is at work
  [version] = studio.state(studio.listed()[0])['versions']
  assert version['name'] == 'long:0000-a'
  assert version['state'] == 'failed'  # It has no video.
  assert np.isfinite(studio.revision)
