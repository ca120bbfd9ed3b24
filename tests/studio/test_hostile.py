"""A server that is asked for too much stays alive and loses nothing."""

import concurrent.futures
import http.client
import json
import select
import socket
import urllib.request

import pytest
from conftest import line

pytestmark = pytest.mark.slow


def ask(process, path, value=None):
  body = None if value is None else json.dumps(value).encode()
  request = urllib.request.Request(process.url + path, body)
  with urllib.request.urlopen(request, timeout=60) as answer:
    return json.load(answer)


@pytest.fixture(autouse=True)
def whole(process):
  """Whatever a test does, the studio answers and has what it had."""
  ask(process, 'api/first/timeline', line(seed=5))
  yield
  state = ask(process, 'api/first/state')
  assert state['timeline']['seed'] == 5
  assert state['given'] == {}
  assert process.process.poll() is None
  assert not list(process.out.glob('.unitemp-*'))


def status(process, path, body=None):
  connection = http.client.HTTPConnection('127.0.0.1', process.port, 120)
  try:
    connection.request('POST' if body else 'GET', path, body)
    return connection.getresponse().status
  except (ConnectionError, http.client.HTTPException):
    return 0  # Hung up on.
  finally:
    connection.close()


def test_a_thousand_requests_at_once(process):
  body = json.dumps(line(seed=5))
  paths = [('/api/first/state', None), ('/api/first/plan', body)]
  with concurrent.futures.ThreadPoolExecutor(1000) as pool:
    asked = [pool.submit(status, process, *paths[k % 2]) for k in range(1000)]
    found = {one.result() for one in asked}
  assert 200 in found and found <= {200, 503, 0}


def test_a_thousand_videos_are_not_queued(process):
  made = [status(process, '/api/projects', '"many"')]
  body = json.dumps(line(length=2001))
  made += [status(process, '/api/many/generate', body) for _ in range(110)]
  assert made.count(200) <= 103 and 422 in made
  for version in ask(process, 'api/many/state')['versions']:
    ask(process, f'api/many/versions/{version["name"]}/cancel', {})


@pytest.mark.parametrize('told', [True, False])
def test_two_gigabytes(process, told):
  """With their length said, and in pieces without it."""
  with socket.create_connection(('127.0.0.1', process.port), 60) as link:
    how = f'Content-Length: {2**31}' if told else 'Transfer-Encoding: chunked'
    head = 'POST /api/first/given?name=a.png HTTP/1.1\r\nHost: localhost\r\n'
    link.sendall(f'{head}{how}\r\n\r\n'.encode())
    part = bytes(2**20)
    part = part if told else b'100000\r\n' + part + b'\r\n'
    sent, answered = 0, []
    while sent < 2**31 and not answered:
      link.sendall(part)
      sent += 2**20
      answered, _, _ = select.select([link], [], [], 0.5 if told else 0)
    assert b' 413 ' in link.recv(100)
    assert sent <= (1 if told else 300) * 2**20


def test_broken_requests_and_web_sockets(process):
  links = []
  for k in range(200):
    link = socket.create_connection(('127.0.0.1', process.port), 60)
    head = 'GET /api/first/state HTTP/1.1\r\nHost: localhost\r\n'
    if k % 3 == 1:
      head += 'Connection: Upgrade\r\nUpgrade: websocket\r\n'
      head += 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n'
    end = '\x00\xff' if k % 3 == 2 else '\r\n'
    link.sendall((head + end).encode('latin1'))
    links.append(link)
  for link in links:
    link.close()
  assert ask(process, 'api/first/state')['project'] == 'first'
