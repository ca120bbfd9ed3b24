"""Headless Chromium for the tests of pages, spoken to over two pipes."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

PATH = shutil.which('chromium') or shutil.which('chromium-browser')
_FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--mute-audio',
  '--remote-debugging-pipe',
]
_PATIENCE = 120  # seconds; a busy machine starts a browser slowly


class Browser:
  """One page in a browser of its own; use as a context manager.

  `errors` holds what went wrong on the page: exceptions, errors on the console,
  files that could not be loaded.
  """

  def __init__(self, profile, width=1280, height=900, phone=False):
    self.errors = []
    self._number, self._rest = 0, b''
    self._session = None
    there, self._out = os.pipe()
    self._in, back = os.pipe()
    # Not 3 or 4, which the browser reads and writes.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (there, back)]
    os.close(there)
    os.close(back)
    self._process = subprocess.Popen(
      [
        *('bash', '-c', 'exec "$0" "$@" 3<&{} 4>&{}'.format(*ends), PATH),
        *(*_FLAGS, f'--user-data-dir={profile}', 'about:blank'),
      ],
      pass_fds=ends,
      stderr=subprocess.DEVNULL,
      env={**os.environ, 'HOME': str(profile)},
    )
    for end in ends:
      os.close(end)
    target = next(
      t['targetId']
      for t in self.call('Target.getTargets')['targetInfos']
      if t['type'] == 'page'
    )
    self._session = self.call(
      'Target.attachToTarget', targetId=target, flatten=True
    )['sessionId']
    for domain in ('Runtime', 'Log', 'Page'):
      self.call(f'{domain}.enable')
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=phone,
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._process.kill()
    self._process.wait()
    os.close(self._in)
    os.close(self._out)

  def call(self, method, **params):
    """Sends a command and returns its answer."""
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': params}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._out, json.dumps(message).encode() + b'\0')
    while True:
      found = self._receive()
      if found.get('id') == self._number:
        assert 'error' not in found, (method, found['error'])
        return found['result']

  def _receive(self):
    while b'\0' not in self._rest:
      ready, _, _ = select.select([self._in], [], [], _PATIENCE)
      assert ready, 'the browser does not answer'
      read = os.read(self._in, 2**20)
      assert read, 'the browser has ended'
      self._rest += read
    text, _, self._rest = self._rest.partition(b'\0')
    message = json.loads(text)
    self._note(message.get('method'), message.get('params', {}))
    return message

  def _note(self, method, params):
    if method == 'Runtime.exceptionThrown':
      self.errors.append(params['exceptionDetails'])
    elif method == 'Log.entryAdded' and params['entry']['level'] == 'error':
      self.errors.append(params['entry'])
    elif method == 'Runtime.consoleAPICalled' and params['type'] == 'error':
      self.errors.append(params['args'])

  def open(self, path):
    """Opens a file; returns the seconds until its load event was handled."""
    began = time.monotonic()
    self.call('Page.navigate', url=path.as_uri())
    self.wait("document.readyState === 'complete'")
    return time.monotonic() - began

  def evaluate(self, expression):
    """The value of a JavaScript expression; counts as the user's own doing."""
    found = self.call(
      'Runtime.evaluate',
      expression=expression,
      returnByValue=True,
      awaitPromise=True,
      userGesture=True,
    )
    assert 'exceptionDetails' not in found, found
    return found['result'].get('value')

  def wait(self, expression):
    """Waits until an expression is true."""
    end = time.monotonic() + _PATIENCE
    while not self.evaluate(expression):
      assert time.monotonic() < end, f'never true: {expression}'
      time.sleep(0.05)

  def press(self, key):
    """Presses and lets go a key."""
    for kind in ('keyDown', 'keyUp'):
      self.call('Input.dispatchKeyEvent', type=kind, key=key)

  def picture(self, path, full=False):
    """Writes a PNG of the view, or of the whole page."""
    shot = self.call('Page.captureScreenshot', captureBeyondViewport=full)
    path.write_bytes(base64.b64decode(shot['data']))
