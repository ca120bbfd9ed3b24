"""The studio as a person uses it, on the shipped model, in Chromium."""

import pathlib
import re
import shlex
import subprocess
import sys
import time

import chromium
import numpy as np
import pytest
from PIL import Image

from unitemp_jax.video.read import read_video
from unitemp_jax.video.write import write_video

playwright = pytest.importorskip('playwright')
pytest.importorskip('axe_playwright_python')
from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

pytestmark = pytest.mark.skipif(chromium.PATH is None, reason='needs Chromium')
PATIENCE = 300  # seconds; programs are compiled
# Of what moves by itself: what follows a person's doing within 500 ms is not.
SHIFTS = """
window.shifted = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    if (one.hadRecentInput) continue;
    for (const { node } of one.sources) {
      window.shifted.push(`${one.value} ${node?.id} ${node?.className}`);
    }
  }
}).observe({type: 'layout-shift', buffered: true});
"""


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
    self.context.add_init_script(SHIFTS)
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
    self.until('studio.fits !== undefined', page)
    return page

  def until(self, expression, page=None):
    end = time.monotonic() + PATIENCE
    while not (page or self.page).evaluate(expression):
      assert time.monotonic() < end, expression
      time.sleep(0.1)

  def fits(self):
    """Waits until the timeline is saved and its plan is there."""
    time.sleep(0.3)
    self.until('studio.planned === studio.edits && studio.fits')

  def generate(self):
    """Generates what is on the timeline; the version's name."""
    count = self.page.evaluate('studio.state.versions.length')
    self.page.click('#generate')
    self.until(f'studio.state.versions.length > {count}')
    self.until('studio.state.versions.at(-1).state === "done"')
    return self.page.evaluate('studio.state.versions.at(-1).name')

  def command(self, name):
    one = f'studio.state.versions.find((v) => v.name === "{name}")'
    return self.page.evaluate(f'{one}.command')

  def undo(self, page=None):
    steps = (page or self.page).evaluate('studio.state.steps[0]')
    (page or self.page).click('#undo')
    self.until(f'studio.state.steps[0] === {steps - 1}', page)

  def drop(self, path, frame):
    """A file from the outside, as the browser is told of it."""
    self.page.locator('#pieces').scroll_into_view_if_needed()
    box = self.page.locator('#pieces').bounding_box()
    length = self.page.evaluate('studio.line.length')
    devtools = self.context.new_cdp_session(self.page)
    data = {'items': [], 'files': [str(path)], 'dragOperationsMask': 1}
    x = box['x'] + box['width'] * (frame + 0.5) / length
    for kind in ('dragEnter', 'dragOver', 'drop'):
      place = {'type': kind, 'x': x, 'y': box['y'] + 20, 'data': data}
      devtools.send('Input.dispatchDragEvent', place)
    devtools.detach()

  def drag(self, part, frames, grip=0.5):
    """Moves a part of the timeline with the mouse."""
    self.page.locator(part).scroll_into_view_if_needed()
    box = self.page.locator(part).bounding_box()
    wide = self.page.locator('#tracks').bounding_box()['width']
    x = box['x'] + max(3, min(box['width'] * grip, box['width'] - 3))
    y = box['y'] + box['height'] / 2
    by = wide * frames / self.page.evaluate('studio.line.length')
    self.page.mouse.move(x, y)
    self.page.mouse.down()
    self.page.mouse.move(x + by + (3 if by > 0 else -3), y, steps=8)
    self.page.mouse.up()

  def look_for_barriers(self):
    found = Axe().run(self.page).response['violations']
    assert [(one['id'], one['nodes'][0]['html']) for one in found] == []


@pytest.fixture
def person(browser, process):
  made = Person(browser, process.url)
  yield made
  made.context.close()
  assert made.errors == []


@pytest.mark.parametrize('width', [390, 1400])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_nothing_keeps_people_out(browser, process, width, scheme):
  """Before the first video; quick, since nothing is generated."""
  phone = {'is_mobile': True, 'has_touch': True} if width < 500 else {}
  person = Person(browser, process.url, width, color_scheme=scheme, **phone)
  assert person.page.evaluate('document.documentElement.scrollWidth') == width
  person.page.fill('#prompts .words', 'a red seven falls')
  person.fits()
  person.look_for_barriers()
  assert person.page.evaluate('shifted') == []
  person.context.close()
  assert person.errors == []


@pytest.mark.slow
def test_a_first_video_by_keyboard_alone(person):
  page = person.page
  page.focus('#prompts .words')
  page.keyboard.press('Control+a')
  page.keyboard.type('a red seven falls and bounces')
  person.fits()
  page.focus('#generate')
  count = page.evaluate('studio.state.versions.length')
  page.keyboard.press('Enter')
  said = set()
  while not page.evaluate(f'studio.state.versions[{count}]?.state === "done"'):
    said.add(page.inner_text('#said'))
    time.sleep(0.02)
  assert any('first block' in one or 's left' in one for one in said), said
  assert 'First block after' in page.inner_text('#facts')
  time.sleep(1)
  assert page.evaluate('shifted') == []
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
  edges = page.evaluate('studio.version(studio.chosen).boundary_frames.length')
  assert page.locator('#difference .edge').count() == edges > 0
  person.look_for_barriers()
  assert page.evaluate('shifted') == []


@pytest.mark.slow
def test_pictures_and_clips_are_dropped_moved_and_trimmed(person, tmp_path):
  page = person.page
  piece = 'studio.line.pieces[0]'
  Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / 'dark.png')
  clip = np.random.default_rng(0).integers(0, 255, (21, 32, 32, 3), np.uint8)
  write_video(tmp_path / 'clip.mp4', clip, 12)
  person.drop(tmp_path / 'clip.mp4', 4)
  person.until('studio.line.pieces.length === 1')
  assert page.evaluate(f'[{piece}.at, {piece}.last]') == [4, 20]
  person.drag('.piece', 8)
  person.drag('.piece', -8, grip=1)
  person.drag('.piece', 4, grip=0)
  moved = [16, 4, 12]
  assert page.evaluate(f'[{piece}.at, {piece}.first, {piece}.last]') == moved
  page.focus('.piece')
  page.keyboard.press('ArrowLeft')
  page.keyboard.press('Shift+ArrowRight')
  page.keyboard.press('Alt+ArrowLeft')
  moved = [8, 0, 16]
  assert page.evaluate(f'[{piece}.at, {piece}.first, {piece}.last]') == moved
  person.drop(tmp_path / 'dark.png', 0)
  person.until('studio.line.pieces.length === 2')
  person.fits()
  page.click('#add-prompt')
  page.keyboard.type('a red seven bounces')
  start = page.evaluate('studio.line.prompts.at(-1).at')
  person.drag('#spans button >> nth=1', 4)
  assert page.evaluate('studio.line.prompts.at(-1).at') == start + 4
  person.fits()
  # Undo goes through all of it, after a reload and on another page.
  page.reload()
  page.wait_for_selector('.piece')
  for _ in range(2):
    person.undo()
  assert page.evaluate('studio.line.prompts.at(-1).text') == ''
  other = person.open(page.url)
  while other.evaluate('studio.line.pieces.length'):
    person.undo(other)
  person.until('studio.line.pieces.length === 0')
  other.keyboard.press('Control+Shift+z')
  person.until('studio.line.pieces.length === 1')
  other.keyboard.press('Control+z')
  person.until('studio.line.pieces.length === 0')


def same_frames(person, process, name, tmp_path):
  """Both copies, run in a shell, make the frames of the version."""
  page = person.page
  page.click('text=Copy as command')
  person.until('studio.copied?.startsWith("unitemp generate")')
  command = page.evaluate('navigator.clipboard.readText()')
  page.click('text=Copy as Python')
  person.until('studio.copied?.startsWith("import unitemp_jax")')
  script = page.evaluate('navigator.clipboard.readText()')
  words = [w for w in shlex.split(command)[1:] if not w.startswith('--out=')]
  words = ['-m', 'unitemp_jax.cli.main', *words, f'--out={tmp_path / "shell"}']
  subprocess.run([sys.executable, *words], check=True)
  script += f'np.save({str(tmp_path / "python.npy")!r}, video)\n'
  script = 'import numpy as np\n' + script
  subprocess.run([sys.executable, '-c', script], check=True)
  [made] = (process.out / 'first' / name).rglob('*.mkv')
  [again] = (tmp_path / 'shell').rglob('*.mkv')
  assert again.read_bytes() == made.read_bytes()
  frames = read_video(made)[0]
  np.testing.assert_array_equal(np.load(tmp_path / 'python.npy'), frames)
  return frames


@pytest.mark.slow
def test_a_version_goes_on(person, process, tmp_path):
  """Each way to go on is what the command line would do."""
  page = person.page
  frames = read_video(next((process.out / 'first' / '0001').rglob('*.mkv')))[0]
  dark = tmp_path / 'dark.png'
  Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(dark)
  for deed, length, option in (
    ('Extend', 45, '--extend='),
    ('Insert picture here', 33, '--keyframe=16:'),
    ('Close the loop', 57, '--loop '),
    ('Change prompt from here', 33, '--extend='),
    ('Make anew', 33, '--regenerate='),
  ):
    page.click('#versions button >> nth=0')
    page.evaluate('studio.seek(16)')
    if deed.startswith('Insert'):
      with page.expect_file_chooser() as chooser:
        page.click(f'#actions button:text-is("{deed}")')
      chooser.value.set_files(dark)
    else:
      page.click(f'#actions button:text-is("{deed}")')
    if deed.startswith('Change'):
      page.keyboard.type('a red seven hops up and down')
    person.until('studio.line.pieces.length > 0')
    person.fits()
    assert page.evaluate('studio.line.length') == length, deed
    name = person.generate()
    assert option in person.command(name), deed
  page.click(f'#versions button:has-text("{name}")')
  made = same_frames(person, process, name, tmp_path)
  np.testing.assert_array_equal(made[:13], frames[:13])
  np.testing.assert_array_equal(made[28:], frames[28:])
  assert (made[13:28] != frames[13:28]).any()


@pytest.mark.slow
def test_versions_are_compared_downloaded_and_restored(person):
  page = person.page
  page.click('#versions button >> nth=0')
  other = page.evaluate('studio.state.versions.at(-1).name')
  page.select_option('#other', other)
  videos = '[...document.querySelectorAll("video")].map((v) => v.currentTime)'
  person.until(
    '[...document.querySelectorAll("video")].every((v) => v.duration)'
  )
  page.click('#play')
  for _ in range(10):
    time.sleep(0.2)
    one, two = page.evaluate(videos)
    assert abs(one - two) < 0.2
  page.click('#play')
  page.click('#on')
  person.until(f'new Set({videos}).size === 1')
  for name in ('mp4', 'webm', 'gif', 'Last frame'):
    with page.expect_download() as download:
      page.click(f'#actions a:text-is("{name}")')
    assert download.value.path().stat().st_size > 100
  page.click('text=Back to its timeline')
  person.until('studio.line.pieces.length === 0')


@pytest.mark.slow
def test_four_seeds_and_two_projects(person):
  page = person.page
  page.fill('#prompts .words', 'a red seven falls')
  page.fill('#seed', '7')
  page.keyboard.press('Tab')
  person.fits()
  count = page.evaluate('studio.state.versions.length')
  page.click('#four')
  person.until(f'studio.state.versions.length === {count + 4}')
  seeds = f'studio.state.versions.slice({count}).map((v) => v.timeline.seed)'
  assert page.evaluate(seeds) == [7, 8, 9, 10]
  done = (
    f'studio.state.versions.slice({count}).every((v) => v.state === "done")'
  )
  person.until(done)
  page.on('dialog', lambda dialog: dialog.accept('My Second!'))
  page.click('#new-project')
  page.wait_for_url('**project=my-second')
  person.until('studio.state?.project === "my-second"')
  assert page.evaluate('studio.state.versions.length') == 0


@pytest.mark.slow
def test_nothing_is_lost_when_the_server_is_killed(person, process):
  page = person.page
  page.fill('#length', '481')
  page.keyboard.press('Tab')
  person.fits()
  other = person.open(process.url)
  person.until('studio.line.length === 481', other)
  page.click('#generate')
  person.until('studio.state.run?.shown.length > 3')
  person.until('studio.state.run?.shown.length > 3', other)
  page.reload()
  page.wait_for_selector('#versions button')
  person.until('studio.state?.run?.shown.length > 3')
  name = page.evaluate('studio.state.run.version')
  process.kill()
  rows = len(list(pathlib.Path(process.out).rglob('row*.npz')))
  assert rows > 2
  time.sleep(2)
  process.start()
  person.until(f'studio.state.run?.version === "{name}"')
  person.until('studio.state.run?.said.includes("blocks")')
  page.click('#actions button:text-is("Cancel")')
  state = f'studio.version("{name}").state'
  person.until(f'{state} === "cancelled"')
  page.click('#actions button:text-is("Go on")')
  person.until(f'{state} === "done"')
  person.until(f'{state} === "done"', other)
  assert page.evaluate('shifted') == []
  # That nobody answered meanwhile.
  person.errors[:] = [e for e in person.errors if 'net::ERR' not in e]


@pytest.mark.slow
def test_storyboards_are_opened_and_saved(person):
  page, root = person.page, pathlib.Path(__file__).parents[2]
  board = root / 'configs' / 'storyboards' / 'three_digits.yaml'
  page.set_input_files('#board-file', board)
  person.until("studio.line.order === 'scenes'")
  person.fits()
  assert page.evaluate('[studio.line.length, studio.line.window]') == [133, 6]
  assert 'window 6' in page.inner_text('#verdict')
  with page.expect_download() as download:
    page.click('#save-board')
  text = download.value.path().read_text()
  assert re.search('prompt: a blue two hops up and down', text)
  page.click('#undo')
  person.until("studio.line.order !== 'scenes'")


def test_a_page_is_not_wedged(person, process):
  """By numbers, a server that is away, or many windows."""
  page = person.page
  page.fill('#prompts .words', 'a red seven falls')
  for text, length in (('1' + 12 * '0', 100001), ('4.6', 5), ('33', 33)):
    page.fill('#length', text)
    page.keyboard.press('Tab')
    assert page.evaluate('studio.line.length') == length
    assert page.input_value('#length') == str(length)
  person.fits()
  page.evaluate('studio.seek(20)')
  page.click('#add-prompt')
  assert page.evaluate('studio.line.prompts.at(-1).at') == 21
  person.until('studio.planned === studio.edits')
  assert 'prompt from frame 21' in page.inner_text('#verdict')
  page.click('[aria-label="Remove prompt 2"]')
  person.fits()
  away = 'own = fetch; fetch = () => Promise.reject(new TypeError("away"))'
  page.evaluate(f'() => {{ {away}; }}')
  page.fill('#seed', '9')
  page.keyboard.press('Tab')
  person.until('studio.dirty && studio.fits === false')
  page.evaluate('() => { fetch = own; }')
  person.fits()
  person.until('!studio.dirty && studio.state.timeline.seed === 9')
  # More pages than a browser has connections to a server.
  others = [person.open(process.url) for _ in range(6)]
  others[-1].fill('#seed', '77')
  others[-1].keyboard.press('Tab')
  for one in (page, *others):
    person.until('studio.line.seed === 77', one)


def test_a_project_that_is_gone_leads_to_the_others(browser, process):
  with browser.new_page() as page:
    page.goto(process.url + '?project=nix')
    page.wait_for_selector('#prompts .words')
    assert page.input_value('#project') == 'first'


def test_errors_of_a_page_are_noticed(person):
  """Negative control of all of the above."""
  person.page.evaluate('setTimeout(() => none.such(), 0)')
  person.page.evaluate("document.querySelector('h1').style.margin = '90px'")
  time.sleep(0.5)
  assert len(person.errors) == 1
  assert person.page.evaluate('shifted') != []
  person.errors.clear()
