"""Every page shows what came from outside as text, whatever it is."""

import json
import shutil

import moving_clips
import pytest
from test_report import NASTY, Page, write_clip

from unitemp_jax.cli import main as cli
from unitemp_jax.report import pages, report

TAG = '<script>alert(1)<b>'  # As a name: file systems hold no slash.
FRAME = dict(eyebrow='', problems=(), lead='', sections=[('k', 'H', 'text')])


def check(text, *shown, scripts=1):
  """A page runs its own scripts only, and shows these texts as they are."""
  page = Page(text)
  ran = [s for s in page.scripts() if 'src' not in s]
  assert len(ran) == scripts
  assert '<script>alert' not in text.replace('<script>\n', '')
  whole = ' '.join([*page.text, *(t for p in page.folded for t in p.text)])
  whole += ' '.join(str(v) for _, a in page.elements for v in a.values())
  for words in shown:
    assert words in whole
  return page


def test_the_report_shows_prompt_file_and_checkpoint_as_text(tmp_path):
  folder = tmp_path / TAG
  for order in ('forward', 'backward'):
    write_clip(folder, order, TAG, NASTY, checkpoint=TAG, timings={TAG: 1.0})
  (folder / 'forward' / f'{TAG}2.json').write_text('{')
  check(report.write_report(folder).read_text(), NASTY, TAG)


def test_parts_of_the_report_do_so_too(tmp_path, monkeypatch):
  monkeypatch.setattr(pages, 'PART', 1)
  for number, prompt in enumerate(('a', NASTY, TAG)):
    write_clip(tmp_path, 'forward', f'{number}{TAG}', prompt, seed=number)
  check(report.write_report(tmp_path).read_text(), 'a')
  scripts = [p.read_text() for p in (tmp_path / 'index.parts').iterdir()]
  values = [json.loads(s.partition(' = ')[2].rstrip(';\n')) for s in scripts]
  rows = [value[0] for value in values if isinstance(value[0], str)]
  assert len(rows) == 2
  for prompt in (NASTY, TAG):
    (row,) = [row for row in rows if prompt in Page(row).text]
    check(row, prompt, scripts=0)


@pytest.fixture(scope='module')
def systems(tmp_path_factory):
  """Two folders of clips with prompts and names of markup."""
  root = tmp_path_factory.mktemp('systems')
  for system in ('a', TAG):
    for number, prompt in enumerate((NASTY, f'{TAG} {{{{ 7 * 7 }}}}')):
      clip = moving_clips.drifting_texture(33, 32, seed=number)
      about = {'prompt': prompt, 'sample': 0, 'order': f'{TAG}order'}
      path = root / system / f'{number}{TAG}-0.mp4'
      moving_clips.write(path, clip, **about)
  lone = root / 'a' / f'{TAG}alone.mp4'
  shutil.copy(root / 'a' / f'0{TAG}-0.mp4', lone)
  return root


def test_a_comparison_and_its_votes_show_names_as_text(systems, tmp_path):
  out = tmp_path / 'out'
  folders = [str(systems / 'a'), str(systems / TAG)]
  options = [f'--question={TAG}?', f'--out={out}']
  assert cli.main(['compare', *folders, *options]) == 0
  page = check((out / 'index.html').read_text(), NASTY, TAG, f'a against {TAG}')
  # A template inside a prompt is no template.
  assert any('{{ 7 * 7 }}' in text for text in page.text)
  blind = (out / 'blind' / 'index.html').read_text()
  check(blind, f'{TAG}?')
  assert NASTY not in blind and '\\u003c/script\\u003e' in blind


def test_measurements_show_names_as_text(systems, tmp_path):
  out = tmp_path / TAG
  folder = str(systems / TAG)
  assert cli.main(['evaluate', 'folder', folder, f'--out={out}']) == 0
  check((out / 'index.html').read_text(), f'{TAG}order', TAG)


def test_the_check_fails_for_markup():
  """Negative control of `check`."""
  with pytest.raises(AssertionError):
    check(f'<html>{TAG}</b></script></html>', TAG, scripts=0)


def test_names_that_are_no_unicode_are_linked_and_shown():
  assert pages.link('a\udcff b.mp4') == 'a%FF%20b.mp4'
  text = pages.render('base.html', title='a\udcff', **FRAME)
  assert 'a?' in text
