"""The pages in a browser: no error, videos play, votes come out."""

import json

import chromium
import linked_clips
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.report import report

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(chromium.PATH is None, reason='needs Chromium'),
]
PLAYS = (
  "[...document.querySelectorAll('video')].filter("
  '(v) => !v.paused && v.currentTime > 0 && !v.error).length'
)
FITS = 'document.documentElement.scrollWidth <= innerWidth'


@pytest.fixture(scope='module')
def pages(folders, tmp_path_factory):
  out = tmp_path_factory.mktemp('pages')
  code = cli.main(
    [
      'compare',
      f'ours={folders / "ours"}',
      f'sf={folders / "sf"}',
      '--baseline=self_forcing',
      f'--prompts={folders / "prompts.txt"}',
      '--trials=3',
      f'--out={out}',
    ]
  )
  assert code == 0
  return out


@pytest.mark.parametrize(('width', 'phone'), [(1280, False), (390, True)])
def test_the_gallery_plays(pages, tmp_path, width, phone):
  with chromium.Browser(tmp_path, width, phone=phone) as page:
    page.open(pages / 'index.html')
    # What is out of sight is stopped.
    page.evaluate("document.querySelector('.row').scrollIntoView()")
    page.wait("document.querySelector('.row video') !== null")
    page.evaluate("document.querySelector('button.play').click()")
    page.wait(f'{PLAYS} >= 2')
    page.evaluate("document.querySelector('.row details').open = true")
    page.wait("document.querySelector('.row .made .cascade') !== null")
    assert page.evaluate(FITS)
    assert page.errors == []


@pytest.mark.parametrize(('width', 'phone'), [(1280, False), (390, True)])
def test_votes_are_given_saved_and_scored(
  pages, tmp_path, capsys, width, phone
):
  with chromium.Browser(tmp_path / 'profile', width, phone=phone) as page:
    page.call(
      'Page.setDownloadBehavior', behavior='allow', downloadPath=str(tmp_path)
    )
    page.open(pages / 'blind' / 'index.html')
    page.evaluate("document.getElementById('rater').value = 'Ada L.'")
    page.evaluate("document.getElementById('begin').click()")
    page.wait(f'{PLAYS} === 2')
    page.press('ArrowLeft')
    page.wait("document.getElementById('place').textContent === '2 of 3'")
    page.evaluate("document.querySelector('[data-choice=right]').click()")
    page.press('ArrowDown')
    page.wait("!document.getElementById('done').hidden")
    page.evaluate("document.getElementById('save').click()")
    path = tmp_path / 'votes-Ada-L.json'
    page.wait('true')
    for _ in range(100):
      if path.exists():
        break
      page.evaluate('new Promise((done) => setTimeout(done, 100))')
    assert page.evaluate(FITS)
    assert page.errors == []
  votes = json.loads(path.read_text())['votes']
  assert [vote['choice'] for vote in votes] == ['left', 'right', 'tie']
  key = f'--key={pages / "blind_key.json"}'
  assert cli.main(['compare', 'votes', str(path), key]) == 0
  assert '3 votes' in capsys.readouterr().out


@pytest.mark.parametrize(('width', 'phone'), [(1400, False), (390, True)])
def test_linked_clips_are_shown_in_parts_and_found(tmp_path, width, phone):
  folder = linked_clips.make(tmp_path / 'many', 1010)
  page_file = report.write_report(folder)
  assert len(list((folder / 'index.parts').iterdir())) == 11
  count = "document.querySelectorAll('.row').length"
  heading = "document.querySelector('.row h3').textContent"
  with chromium.Browser(tmp_path / 'profile', width, phone=phone) as page:
    page.open(page_file)
    first = page.evaluate(heading)
    assert page.evaluate(count) == 50
    page.wait("document.querySelectorAll('video').length > 0")
    assert page.evaluate("document.querySelectorAll('video').length") < 60
    page.evaluate('document.querySelector(\'[data-turn="1"]\').click()')
    page.wait(f'{heading} !== {json.dumps(first)}')
    page.wait("document.querySelectorAll('video').length > 0")
    page.evaluate(
      "const turned = document.querySelector('.pager input');"
      'turned.value = 99; turned.dispatchEvent('
      "new Event('change', {bubbles: true}))"
    )
    page.wait(f'{count} === 5')  # the last part
    page.evaluate(
      "const field = document.querySelector('.finder input');"
      "field.value = 'NUMBER 432 falls';"
      "field.dispatchEvent(new Event('input'))"
    )
    said = "document.querySelector('.finder output').textContent"
    page.wait(f"{said} === '1 of 505 rows'")
    assert 'number 432 ' in page.evaluate(heading)
    assert page.evaluate(count) == 1
    page.evaluate("document.querySelector('.switch').click()")
    hidden = "[...document.querySelectorAll('figure')].map((f) => f.hidden)"
    assert page.evaluate(hidden) == [True, False]
    page.evaluate("field.value = ''; field.dispatchEvent(new Event('input'))")
    page.wait(f"{said} === '505 rows' && {heading} === {json.dumps(first)}")
    page.evaluate("document.querySelector('.row details').open = true")
    page.wait("document.querySelector('.row .made .cascade') !== null")
    assert page.evaluate(FITS)
    assert page.errors == []


def test_a_part_that_is_missing_is_named(tmp_path):
  """Negative control of the parts: without them only the first shows."""
  folder = linked_clips.make(tmp_path / 'many', 210)
  page_file = report.write_report(folder)
  for part in (folder / 'index.parts').iterdir():
    part.unlink()
  with chromium.Browser(tmp_path / 'profile') as page:
    page.open(page_file)
    page.evaluate('document.querySelector(\'[data-turn="1"]\').click()')
    said = "document.querySelector('.finder output').textContent"
    page.wait(f"{said}.endsWith('is missing beside the page')")
    assert page.evaluate("document.querySelectorAll('.row').length") == 50


def test_errors_of_a_page_are_noticed(tmp_path):
  """Negative control of all of the above."""
  broken = tmp_path / 'broken.html'
  broken.write_text('<video src="none.mp4"></video><script>no.thing()</script>')
  with chromium.Browser(tmp_path / 'profile') as page:
    page.open(broken)
    assert len(page.errors) >= 1
    assert page.evaluate(PLAYS) == 0
