"""The studio as a person uses it, on the shipped model, in Chromium.

With `UNITEMP_AXE=axe.min.js`, a build of axe-core, it looks for what keeps
people out, too.
"""

import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

import chromium
import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip('playwright')
from playwright.sync_api import sync_playwright  # noqa: E402

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(chromium.PATH is None, reason='needs Chromium'),
]
AXE = os.environ.get('UNITEMP_AXE')
PATIENCE = 300  # seconds; programs are compiled
SHIFTS = """
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    if (!one.hadRecentInput) window.shifted = (window.shifted ?? 0) + one.value;
  }
}).observe({type: 'layout-shift', buffered: true});
"""


class Server:
  """`unitemp studio` in a process of its own."""

  def __init__(self, out):
    self.out = out
    self.start(0)

  def start(self, port):
    env = {k: v for k, v in os.environ.items() if k != 'PYTEST_XDIST_WORKER'}
    # Programs of the shipped model are kept from run to run.
    env.pop('JAX_COMPILATION_CACHE_DIR', None)
    port = port or 8400 + os.getpid() % 1000
    words = ['studio', f'--out={self.out}', f'--port={port}']
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'unitemp_jax.cli.main', *words], env=env
    )
    self.port, self.url = port, f'http://127.0.0.1:{port}/'
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
def server(tmp_path_factory):
  made = Server(tmp_path_factory.mktemp('out'))
  yield made
  made.kill()


@pytest.fixture(scope='module')
def browser():
  with sync_playwright() as play:
    yield play.chromium.launch(
      executable_path=chromium.PATH, args=['--no-sandbox']
    )


class Person:
  """A page, what it complained of, and waiting without scripts in it."""

  def __init__(self, browser, url, width=1400, **about):
    size = {'width': width, 'height': 900}
    grant = ['clipboard-read', 'clipboard-write']
    self.context = browser.new_context(
      viewport=size, permissions=grant, **about
    )
    self.errors = []
    self.page = self.open(url)

  def open(self, url):
    page = self.context.new_page()
    page.on(
      'console', lambda m: m.type == 'error' and self.errors.append(m.text)
    )
    page.on('pageerror', lambda error: self.errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector('#prompts .words')
    page.evaluate(SHIFTS)
    return page

  def _console(self, message):
    if message.type == 'error':
      self.errors.append(message.text)

  def until(self, expression, page=None):
    end = time.monotonic() + PATIENCE
    while not (page or self.page).evaluate(expression):
      assert time.monotonic() < end, expression
      time.sleep(0.1)

  def made(self, count):
    done = 'studio.state.versions.filter((v) => v.state === "done").length'
    self.until(f'{done} >= {count}')

  def look_for_barriers(self):
    if AXE:
      self.page.evaluate(pathlib.Path(AXE).read_text())
      found = self.page.evaluate('axe.run(document)')['violations']
      assert [(one['id'], one['help']) for one in found] == []


@pytest.fixture
def person(browser, server):
  made = Person(browser, server.url)
  yield made
  made.context.close()
  assert made.errors == []


def test_a_first_video_by_keyboard_alone(person, server):
  page = person.page
  page.focus('#prompts .words')
  page.keyboard.type('a red seven falls and bounces')
  person.until('studio.fits')
  page.focus('#generate')
  page.keyboard.press('Enter')
  person.made(1)
  assert page.evaluate('window.shifted ?? 0') < 0.02
  page.focus('#head')
  for _ in range(3):
    page.keyboard.press('ArrowRight')
  before = int(page.input_value('#head'))
  page.focus('#scroll')
  page.keyboard.press(',')
  assert int(page.input_value('#head')) == before - 1
  page.keyboard.press(' ')
  person.until(
    f'Number(document.querySelector("#head").value) !== {before - 1}'
  )
  page.keyboard.press(' ')
  person.look_for_barriers()


def test_pictures_are_dropped_moved_trimmed_and_undone(person, tmp_path):
  page = person.page
  Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / 'dark.png')
  with page.expect_file_chooser() as chooser:
    page.click('#add-file')
  chooser.value.set_files(tmp_path / 'dark.png')
  person.until('studio.line.pieces.length === 1')
  page.focus('.piece')
  at = page.evaluate('studio.line.pieces[0].at')
  page.keyboard.press('ArrowRight')
  assert page.evaluate('studio.line.pieces[0].at') == at + 4
  box = page.locator('.piece').bounding_box()
  page.mouse.move(box['x'] + box['width'] / 2, box['y'] + 20)
  page.mouse.down()
  page.mouse.move(box['x'] + 400, box['y'] + 20, steps=8)
  page.mouse.up()
  assert page.evaluate('studio.line.pieces[0].at') > at + 4
  page.keyboard.press('Delete')
  person.until('studio.line.pieces.length === 0')
  page.keyboard.press('Control+z')
  person.until('studio.line.pieces.length === 1')
  page.focus('.piece')
  page.keyboard.press('Delete')


def test_a_version_goes_on(person):
  """Each way to go on puts it on the timeline, with a plan that fits."""
  page = person.page
  page.click('#versions button >> nth=0')
  for deed, length in (
    ('Extend', 45),
    ('Make anew', 33),
    ('Close the loop', 57),
    ('Change prompt from here', 33),
  ):
    page.evaluate('studio.fits = false; studio.seek(16)')
    page.click(f'#actions button:text-is("{deed}")')
    assert page.evaluate('studio.line.length') == length, deed
    assert page.evaluate('studio.line.pieces.length') > 0
    if deed.startswith('Change'):
      page.keyboard.type('a red seven hops up and down')
    person.until('studio.fits')
  page.click('#generate')
  person.made(2)
  page.click('#versions button >> nth=1')
  page.select_option('#other', '0001')
  page.click('#play')
  time.sleep(1)
  page.click('#play')
  times = page.evaluate(
    '[...document.querySelectorAll("video")].map((v) => v.currentTime)'
  )
  assert abs(times[0] - times[1]) < 0.2
  for name in ('mp4', 'webm', 'gif', 'Last frame'):
    with page.expect_download() as download:
      page.click(f'#actions a:text-is("{name}")')
    assert download.value.path().stat().st_size > 100
  page.click('text=Copy as command')
  person.until('studio.copied?.startsWith("unitemp generate")')
  page.click('text=Copy as Python')
  person.until('studio.copied?.startsWith("import unitemp_jax")')
  page.click('#versions button >> nth=0')
  page.click('text=Back to its timeline')
  person.until('studio.line.pieces.length === 0')


def test_nothing_is_lost_when_the_server_is_killed(person, server):
  page = person.page
  page.fill('#length', '481')
  page.keyboard.press('Tab')
  person.until('studio.fits')
  other = person.open(server.url)
  person.until('studio.line.length === 481', other)
  page.click('#generate')
  person.until('studio.state.run?.shown.length > 3')
  person.until('studio.state.run?.shown.length > 3', other)
  page.reload()
  page.wait_for_selector('#versions button')
  person.until('studio.state.run?.shown.length > 3')
  name = page.evaluate('studio.state.run.version')
  server.kill()
  rows = len(list(pathlib.Path(server.out).rglob('row*.npz')))
  assert rows > 2
  time.sleep(2)
  server.start(server.port)
  person.until(f'studio.state.run?.version === "{name}"')
  person.until('studio.state.run?.said.includes("blocks")')
  page.click('#actions button:text-is("Cancel")')
  state = f'studio.state.versions.find((v) => v.name === "{name}").state'
  person.until(f'{state} === "cancelled"')
  page.click('#actions button:text-is("Go on")')
  person.until(f'{state} === "done"')
  person.until(f'{state} === "done"', other)
  # That nobody answered meanwhile.
  person.errors[:] = [e for e in person.errors if 'net::ERR' not in e]
  page.fill('#length', '33')
  page.keyboard.press('Tab')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_a_phone(browser, server, scheme):
  person = Person(
    browser,
    server.url,
    390,
    is_mobile=True,
    has_touch=True,
    color_scheme=scheme,
  )
  person.until('studio.state.versions.length > 0')
  assert person.page.evaluate('document.documentElement.scrollWidth') == 390
  person.look_for_barriers()
  person.context.close()
  assert person.errors == []


def test_storyboards_are_opened_and_saved(person):
  page, root = person.page, pathlib.Path(__file__).parents[2]
  board = root / 'configs' / 'storyboards' / 'three_digits.yaml'
  page.set_input_files('#board-file', board)
  person.until("studio.line.order === 'scenes' && studio.fits")
  assert page.evaluate('[studio.line.length, studio.line.window]') == [133, 6]
  with page.expect_download() as download:
    page.click('#save-board')
  text = download.value.path().read_text()
  assert re.search('prompt: a blue two hops up and down', text)
  page.click('#undo')


def test_errors_of_a_page_are_noticed(person):
  """Negative control of all of the above."""
  person.page.evaluate('setTimeout(() => none.such(), 0)')
  person.until('true')
  time.sleep(0.5)
  assert len(person.errors) == 1
  person.errors.clear()
