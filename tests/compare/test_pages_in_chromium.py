"""The pages in a browser: no error, videos play, votes come out."""

import dataclasses
import json

import chromium
import moving_clips
import pytest
from conftest import PROMPTS

from unitemp_jax.cli import main as cli
from unitemp_jax.report import read, report

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


def test_five_thousand_clips_are_listed_and_few_are_loaded(tmp_path):
  folder = tmp_path / 'many'
  about = {'seed': 0, 'frames': 9, 'fps': 8, 'frame_difference': [0.1] * 8}
  about['generation_order'] = [[0, 1, 2]]
  path = folder / 'forward' / 'a.mp4'
  moving_clips.write(path, moving_clips.drifting_texture(9))
  about['prompt'] = PROMPTS[0]
  path.with_suffix('.json').write_text(json.dumps(about))
  contents = read.read_folder(folder)
  clips = [
    dataclasses.replace(contents.clips[0], prompt=f'number {i}', name=f'{i}')
    for i in range(5000)
  ]
  page_file = report.write_page(dataclasses.replace(contents, clips=clips))
  with chromium.Browser(tmp_path / 'profile') as page:
    page.open(page_file)
    assert page.evaluate("document.querySelectorAll('.row').length") == 5000
    page.wait("document.querySelectorAll('video').length > 0")
    assert page.evaluate("document.querySelectorAll('video').length") < 100
    page.evaluate('scrollTo(0, document.body.scrollHeight)')
    page.wait("document.querySelectorAll('video').length > 0")
    assert page.evaluate("document.querySelectorAll('video').length") < 100
    page.evaluate(
      "const field = document.querySelector('.finder input');"
      "field.value = 'number 4321'; field.dispatchEvent(new Event('input'))"
    )
    page.wait(
      "document.querySelector('.finder output').textContent === '1 of 5,000 "
      "rows'"
    )
    assert page.errors == []


def test_errors_of_a_page_are_noticed(tmp_path):
  """Negative control of all of the above."""
  broken = tmp_path / 'broken.html'
  broken.write_text('<video src="none.mp4"></video><script>no.thing()</script>')
  with chromium.Browser(tmp_path / 'profile') as page:
    page.open(broken)
    assert len(page.errors) >= 1
    assert page.evaluate(PLAYS) == 0
