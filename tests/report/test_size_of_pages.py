"""What pages and checks of very many clips take, told by a few hundred."""

import builtins
import json
import os
import re
import shutil
from urllib.parse import unquote

import linked_clips
import pytest
from test_report import Page

from unitemp_jax.cli import main as cli
from unitemp_jax.evaluation.clips import folder as clip_folder
from unitemp_jax.evaluation_sets import verify
from unitemp_jax.report import pages, read, report

SMALL, LARGE = 2 * pages.PART, 6 * pages.PART


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
  root = tmp_path_factory.mktemp('sets')
  return {n: linked_clips.make(root / str(n), n) for n in (SMALL, LARGE)}


def test_the_first_page_does_not_grow_with_the_clips(sets):
  sizes = {n: report.write_report(s).stat().st_size for n, s in sets.items()}
  names = LARGE // pages.PART * 100  # of the parts
  assert sizes[LARGE] < sizes[SMALL] + names
  # Negative control: in one part it does.
  assert sizes[SMALL] > 2 * 300 * pages.PART


def test_parts_hold_every_clip_once_and_their_headings(sets):
  page = report.write_report(sets[LARGE])
  first = Page(page.read_text())
  (place,) = [v for v in first.find('div') if 'data-parts' in v]
  parts = json.loads(place['data-parts'])
  assert len(parts) == LARGE // pages.PART - 1
  shown = [first]
  for part in parts:
    rows = scripted(page.parent / part)
    shown.append(Page(''.join(rows)))
  videos = [v['href'] for page in shown for v in page.players()]
  assert len(videos) == len(set(videos)) == LARGE
  assert all((page.parent / unquote(v)).is_file() for v in videos)
  headings = scripted(page.parent / place['data-texts'])
  assert sum(map(len, headings)) == LARGE // 2
  assert all(part.scripts() == [] for part in shown[1:])


def scripted(path):
  match = re.fullmatch(r'unitempPart = (.*);\n', path.read_text())
  return json.loads(match[1])


def test_parts_of_a_former_page_go_and_other_files_stay(sets, tmp_path):
  folder = shutil.copytree(sets[LARGE], tmp_path / 'set')
  report.write_report(folder)
  (folder / 'index.parts' / 'mine.js').write_text('')
  first = os.listdir(folder / 'index.parts')
  assert report.write_report(folder).read_bytes() == (
    (folder / 'index.html').read_bytes()
  )
  assert sorted(os.listdir(folder / 'index.parts')) == sorted(first)
  for order in linked_clips.ORDERS:
    for path in list((folder / 'records' / order).rglob('*.json'))[100:]:
      path.unlink()
      path = str(path).replace('/records/', '/videos/')
      os.unlink(path.replace('.json', '.mp4'))
  report.write_report(folder)
  assert len(os.listdir(folder / 'index.parts')) == 3  # a part, texts, mine


@pytest.fixture
def opened(monkeypatch):
  """Counts how often each file is opened by Python."""
  counts, plain = {}, builtins.open

  def counting(file, *args, **kwargs):
    name = str(file)
    counts[name] = counts.get(name, 0) + 1
    return plain(file, *args, **kwargs)

  monkeypatch.setattr(builtins, 'open', counting)
  monkeypatch.setattr('io.open', counting)
  return counts


def test_each_file_is_read_once_and_closed(sets, opened):
  before = len(os.listdir('/proc/self/fd'))
  folder = sets[SMALL]
  read.read_folder(folder)
  verify.verify_set(folder)
  clip_folder.list_clips(folder / 'videos')
  counts = [n for name, n in opened.items() if str(folder / 'records') in name]
  assert len(counts) == SMALL and max(counts) == 2  # the page, and the check
  counts = [n for name, n in opened.items() if name.endswith('.mp4')]
  assert len(counts) == SMALL and max(counts) == 1
  assert len(os.listdir('/proc/self/fd')) <= before + 1


def test_what_is_kept_of_a_clip_is_small(sets):
  """Arrays of numbers, not lists; nothing of the record beyond them."""
  clip = read.read_folder(sets[SMALL]).clips[0]
  assert not hasattr(clip, '__dict__')
  assert clip.frame_difference.itemsize == 8
  file = clip_folder.list_clips(sets[SMALL] / 'videos').clips[0]
  assert not hasattr(file, '__dict__')


def test_thousands_of_renamed_clips_are_told_in_no_time(tmp_path):
  """By names alone: comparing all with all would take hours."""
  names = [f'{i:05} a clip of things that fall-0.mp4' for i in range(5000)]
  for name in names:
    (tmp_path / name.upper().replace('.MP4', '.mp4')).touch()
  found = verify.verify_folder(tmp_path, names, verify.Wanted())
  assert {problem.kind for problem in found} == {'misnamed'}
  assert len(found) == 5000


def test_a_comparison_of_many_shows_all(tmp_path, monkeypatch):
  monkeypatch.setattr(pages, 'PART', 20)
  folder, out = tmp_path / 'clips', tmp_path / 'out'
  linked_clips.make(folder, 40, is_set=False)
  options = ['--pictures=0', '--trials=0', '--workers=1', f'--out={out}']
  assert cli.main(['compare', str(folder), *options]) == 0
  assert len(os.listdir(out / 'index.parts')) == 2
  assert '20 rows' in (out / 'index.html').read_text()
