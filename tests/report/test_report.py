"""The report page: complete, escaped, lazy, honest about what is broken."""

import html.parser
import json
import re
import shutil

import av
import chromium
import numpy as np
import PIL.Image
import pytest

from unitemp_jax.cli import main as cli
from unitemp_jax.errors import UserError
from unitemp_jax.report import pages, read, report

BLOCKS = {
  'forward': [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
  'backward': [[6, 7, 8], [3, 4, 5], [0, 1, 2]],
  'inbetween': [[0, 1, 2], [6, 7, 8], [3, 4, 5]],
}
NASTY = '</script><script>alert(1)</script> "quoted" & \'it\' <b>red</b>'
SVG = (
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 20">'
  '<rect width="30" height="20" fill="#2f5fd0"/></svg>'
)


def make_frames(seed, count=33, size=32):
  """A square that falls and bounces, as uint8 [T, S, S, 3]."""
  frames = np.zeros((count, size, size, 3), np.uint8)
  for t in range(count):
    y = int(abs(np.sin(0.12 * t + seed)) * (size - 12))
    x = (4 + t // 2 + 3 * seed) % (size - 10)
    frames[t, y : y + 10, x : x + 8, seed % 3] = 230
  return frames


def write_clip(folder, order, name, prompt, seed=0, **changes):
  """Writes a video with its sidecar and strip; returns the sidecar's path."""
  place = folder / order
  place.mkdir(parents=True, exist_ok=True)
  frames = make_frames(seed)
  with av.open(str(place / f'{name}.mp4'), 'w') as container:
    stream = container.add_stream('libx264', rate=8)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
    container.mux(stream.encode())
  strip = np.concatenate(list(frames[1::3]), axis=1)
  PIL.Image.fromarray(strip).save(place / f'{name}.strip.png')
  steps = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
  record = {
    'prompt': prompt,
    'seed': seed,
    'order': order,
    'plan': {'format': 'unitemp plan 1'},
    'plan_svg': SVG,
    'boundary_frames': [8, 20],
    'frames': 33,
    'fps': 8,
    'checkpoint': 'sha256:0123abcd',
    'version': '0.1.0',
    'timings': {'sample': 0.8, 'decode': 0.2},
    'frame_difference': steps.tolist(),
    'generation_order': BLOCKS[order],
    **changes,
  }
  record = {k: v for k, v in record.items() if v is not None}
  sidecar = place / f'{name}.json'
  sidecar.write_text(json.dumps(record))
  return sidecar


@pytest.fixture
def folder(tmp_path):
  """Two prompts in three orders, with an evaluation beside them."""
  for order in BLOCKS:
    write_clip(tmp_path, order, '000', 'a red seven drops', seed=0)
    write_clip(tmp_path, order, '001', NASTY, seed=1)
  row = {
    'metric': 'boundary <flicker>',
    'group': 'backward, P = 3',
    'value': 1.02,
    'low': 0.98,
    'high': 1.07,
    'n': 256,
    'unit': 'ratio',
    'how': 'unitemp evaluate & wait',
  }
  worse = {**row, 'group': 'backward, P = 0', 'value': float('nan')}
  (tmp_path / 'metrics.json').write_text(json.dumps({'results': [row, worse]}))
  return tmp_path


class Page(html.parser.HTMLParser):
  """Collects elements, and checks that every tag is closed in order.

  What a page keeps as text until somebody opens it is parsed in the same way,
  into `folded`.
  """

  VOID = ('meta', 'link', 'img', 'br', 'input')

  def __init__(self, text):
    super().__init__()
    self.elements, self.open, self.text = [], [], []
    self.folded, self.kept = [], None
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if (tag, *attrs) == ('script', ('type', 'text/html')):
      self.kept = []
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag
    if self.kept is not None and tag == 'script':
      self.folded.append(Page(''.join(self.kept)))
      self.kept = None

  def handle_data(self, data):
    if self.kept is not None:
      self.kept.append(data)
    elif not self.open or self.open[-1] not in ('style', 'script'):
      self.text.append(data)

  def find(self, tag):
    return [attributes for name, attributes in self.elements if name == tag]

  def players(self):
    """Links that become videos near the view."""
    links = self.find('a')
    return [link for link in links if 'player' in link.get('class', '')]

  def scripts(self):
    """What runs: elements, and those of what is folded away."""
    inside = [script for page in self.folded for script in page.scripts()]
    return inside + [s for s in self.find('script') if 'type' not in s]


def page_of(folder):
  return Page(report.write_report(folder).read_text(encoding='utf-8'))


def test_page_is_well_formed_and_complete(folder):
  page = page_of(folder)
  assert len(page.find('figure')) == 6
  text = ' '.join(page.text)
  for expected in (*BLOCKS, 'a red seven drops', 'sha256:0123abcd', '0.1.0'):
    assert expected in text
  assert '1.02' in text and '0.980 to 1.07' in text
  with pytest.raises(AssertionError):  # Negative control of the parser.
    Page('<p><b>unclosed</p>')


def test_everything_from_outside_is_escaped(folder):
  page = page_of(folder)
  assert len(page.scripts()) == 1
  assert NASTY in page.text  # It is there, as text.
  assert 'boundary <flicker>' in page.text
  assert 'unitemp evaluate & wait' in page.text
  # Negative control: unescaped, the same text does break the page.
  with pytest.raises(AssertionError):
    Page(f'<p>{NASTY}</p>')


def test_nothing_is_fetched_from_elsewhere(folder):
  text = report.write_report(folder).read_text(encoding='utf-8')
  assert not re.findall(r'(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}', text)
  sources = [v['href'] for v in Page(text).players()]
  assert all((folder / source).is_file() for source in sources)


def test_videos_are_links_until_they_are_near(folder):
  page = page_of(folder)
  assert len(page.players()) == 6
  assert page.find('video') == []


def test_poster_waits_until_the_video_is_near(folder):
  PIL.Image.new('RGB', (32, 32)).save(folder / 'forward' / '000.png')
  posters = [v.get('data-poster') for v in page_of(folder).players()]
  assert posters.count('forward/000.png') == 1
  assert posters.count(None) == 5


def test_names_with_odd_characters_still_link(tmp_path):
  write_clip(tmp_path, 'forward', "a'b (1) #50% & <x>", 'p')
  text = report.write_report(tmp_path).read_text(encoding='utf-8')
  (video,) = Page(text).players()
  assert (
    video['href'] == 'forward/a%27b%20%281%29%20%2350%25%20%26%20%3Cx%3E.mp4'
  )
  assert re.search(r"url\('forward/a%27b[^']*\.strip\.png'\)", text)


def test_plan_drawing_cannot_run_anything(folder):
  evil = SVG.replace('<rect', '<script>alert(2)</script><rect onload="x()"')
  write_clip(folder, 'forward', '000', 'a red seven drops', plan_svg=evil)
  page = page_of(folder)
  assert len(page.scripts()) == 1
  plans = [i['src'] for i in page.find('img')]
  assert plans and all(
    p.startswith('data:image/svg+xml;base64,') for p in plans
  )


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    ('{"prompt": ', 'cannot be read'),
    ('[1, 2]', 'it holds a list'),
    ('{"seed": 3, "frames": 33, "fps": 8}', "has no 'prompt'"),
  ],
)
def test_broken_sidecar_is_named_and_the_rest_shown(folder, content, reason):
  (folder / 'forward' / '001.json').write_text(content)
  page = page_of(folder)
  assert len(page.find('figure')) == 5
  said = [t for t in page.text if 'forward/001.json' in t]
  assert len(said) == 1 and reason in said[0]


@pytest.mark.parametrize(
  'change',
  [
    {'frames': 'many'},
    {'frames': 0},
    {'seed': 1.5},
    {'prompt': 7},
    {'frame_difference': [1.0, float('nan')]},
    {'boundary_frames': 8},
    {'generation_order': [0, 1]},
    {'generation_order': [[]]},
    {'timings': {'sample': 'long'}},
    {'plan_svg': '<svg><rect>'},
    {'stages': [1]},
  ],
)
def test_broken_key_is_named(folder, change):
  sidecar = folder / 'forward' / '000.json'
  record = json.loads(sidecar.read_text())
  sidecar.write_text(json.dumps({**record, **change}))
  contents = read.read_folder(folder)
  assert len(contents.clips) == 5
  (problem,) = contents.problems
  assert 'forward/000.json' in problem and next(iter(change)) in problem


def test_optional_keys_may_be_missing(tmp_path):
  optional = (
    'plan plan_svg boundary_frames checkpoint version timings '
    'frame_difference generation_order'
  )
  missing = dict.fromkeys(optional.split(' '))
  write_clip(tmp_path, 'forward', '000', 'p', **missing)
  (made,) = page_of(tmp_path).folded
  text = ' '.join(made.text)
  assert 'no frame differences recorded' in text
  assert 'no generation order recorded' in text


def test_broken_and_missing_videos_are_named(folder):
  (folder / 'forward' / '000.mp4').write_bytes(b'no video')
  (folder / 'backward' / '000.mp4').unlink()
  (folder / 'inbetween' / '000.json').unlink()
  problems = read.read_folder(folder).problems
  assert 'backward/000.mp4 is missing' in problems[0]
  assert 'forward/000.mp4 is no readable video' in problems[1]
  assert 'inbetween/000.mp4 has no sidecar' in problems[2]
  assert len(problems) == 3


def test_stages_are_shown_and_are_no_clips(folder):
  shutil.copy(folder / 'forward/000.mp4', folder / 'forward/000.stage1.mp4')
  write_clip(
    folder, 'forward', '000', 'a red seven drops', stages=['000.stage1.mp4']
  )
  contents = read.read_folder(folder)
  assert contents.problems == [] and len(contents.clips) == 6
  folded = page_of(folder).folded
  sources = [v['href'] for page in folded for v in page.players()]
  assert sources.count('forward/000.stage1.mp4') == 1


def test_an_evaluation_set_is_read_where_its_records_are(folder):
  place = folder / 'set'
  for kind in ('videos', 'records', 'posters'):
    for order in BLOCKS:
      (place / kind / order).mkdir(parents=True)
  for order in BLOCKS:
    record = json.loads((folder / order / '000.json').read_text())
    # Seeds differ between orders; the sample says what belongs together.
    record |= {'sample': 0, 'seed': len(order)}
    shutil.copy(folder / order / '000.mp4', place / 'videos' / order / 'a.mp4')
    (place / 'records' / order / 'a.json').write_text(json.dumps(record))
    PIL.Image.new('RGB', (8, 8)).save(place / 'posters' / order / 'a.png')
  shutil.copy(folder / 'forward/001.mp4', place / 'videos/forward/b.mp4')
  contents = read.read_folder(place)
  assert len(contents.clips) == 3 and len(contents.problems) == 1
  assert 'videos/forward/b.mp4 has no sidecar' in contents.problems[0]
  text = report.write_report(place).read_text(encoding='utf-8')
  assert text.count('<article class="row">') == 1
  assert 'data-poster="posters/backward/a.png"' in text


def test_many_rows_get_a_search_and_few_do_not(folder):
  assert 'class="finder"' not in report.write_report(folder).read_text()
  for number in range(9):
    write_clip(folder, 'forward', f'1{number}', f'prompt {number}')
  text = report.write_report(folder).read_text()
  assert 'class="finder"' in text and '11 rows' in text
  assert text.count('class="switch"') == 3


def test_broken_metrics_are_named(folder):
  (folder / 'metrics.json').write_text('{}')
  contents = read.read_folder(folder)
  assert contents.results == [] and 'metrics.json' in contents.problems[0]


def test_folder_without_clips_is_refused_and_left_alone(tmp_path):
  with pytest.raises(UserError, match='is not a folder'):
    report.write_report(tmp_path / 'nothing')
  with pytest.raises(UserError, match='no usable clip'):
    report.write_report(tmp_path)
  sidecar = write_clip(tmp_path, 'forward', '000', 'p')
  sidecar.write_text('{')
  with pytest.raises(UserError, match=r'first problem: forward/000\.json'):
    report.write_report(tmp_path)
  assert not (tmp_path / 'index.html').exists()


def test_second_report_replaces_the_first(folder):
  first = report.write_report(folder).read_bytes()
  # A lock, and what macOS adds.
  for name in ('.writer.json', '._000.json', '._000.mp4'):
    (folder / 'forward' / name).write_text('{}')
  assert report.write_report(folder).read_bytes() == first
  left = {p.name for p in folder.iterdir() if p.is_file()}
  assert left == {'index.html', 'metrics.json'}


def test_blocks_become_frames(tmp_path):
  write_clip(tmp_path, 'backward', '000', 'p')
  (clip,) = read.read_folder(tmp_path).clips
  assert clip.block_frames == ((21, 32), (9, 20), (0, 8))
  # Positions may be negative: only their distance to the first counts.
  shifted = [[p - 5 for p in block] for block in BLOCKS['backward']]
  write_clip(tmp_path, 'backward', '000', 'p', generation_order=shifted)
  (clip,) = read.read_folder(tmp_path).clips
  assert clip.block_frames == ((21, 32), (9, 20), (0, 8))


def test_one_frame_is_one_block(tmp_path):
  write_clip(tmp_path, 'forward', '0', 'p', frames=1, generation_order=[[0]])
  (clip,) = read.read_folder(tmp_path).clips
  assert clip.block_frames == ((0, 0),)


def test_touching_ranges_merge():
  assert pages.merge([(9, 20), (0, 8)]) == [(0, 20)]
  assert pages.merge([(21, 32), (0, 8)]) == [(0, 8), (21, 32)]


def test_thinning_a_long_series_keeps_its_spike():
  values = [1.0] * 10_000
  values[7777] = 9.0
  points = pages.thin(values)
  assert len(points) <= pages.MAX_POINTS
  assert (7777, 9.0) in points
  assert pages.thin([1.0, 2.0]) == [(0, 1.0), (1, 2.0)]


def test_chart_marks_each_boundary_inside():
  line, edges = pages.difference_chart([1.0] * 32, [8, 20, 99], 2.0)
  assert len(line.split(' ')) == 32
  assert edges == [('272.7', '50.0'), ('636.4', '50.0')]
  assert pages.difference_chart([1.0] * 32, [], 2.0)[1] == []


def test_command_line(folder, capsys):
  assert cli.main(['report', str(folder), '--dry_run']) == 0
  assert not (folder / 'index.html').exists()
  assert cli.main(['report', str(folder)]) == 0
  assert capsys.readouterr().out.splitlines()[-1] == str(folder / 'index.html')
  assert cli.main(['report', str(folder / 'nothing')]) == 2
  assert capsys.readouterr().err.startswith('unitemp: error: ')


@pytest.mark.skipif(chromium.PATH is None, reason='needs Chromium')
def test_chromium_opens_it_from_disk_without_an_error(folder, tmp_path):
  with chromium.Browser(tmp_path / 'profile') as page:
    page.open(report.write_report(folder))
    assert page.errors == []
    labels = "[...document.querySelectorAll('button[aria-pressed=false]')]"
    labels = page.evaluate(f'{labels}.map((button) => button.textContent)')
    assert labels == ['Play row', 'Play row']  # The script ran to its end.
    assert page.evaluate("document.querySelector('[controls]')") is None


@pytest.mark.parametrize('name', ['sheet.png', 'index.html'])
def test_a_file_of_the_user_is_kept(folder, name, capsys):
  (folder / name).write_text('mine')
  before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
  assert cli.main(['report', str(folder)]) == 2
  assert name in capsys.readouterr().err
  after = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
  assert after == before
  (folder / name).unlink()
  assert cli.main(['report', str(folder)]) == 0  # Negative control.
  assert cli.main(['report', str(folder)]) == 0
  assert (folder / 'sheet.png').read_bytes()[:4] == b'\x89PNG'
  # Beside a page of ours it may be the user's too.
  PIL.Image.new('RGB', (9, 9)).save(folder / 'sheet.png')
  assert cli.main(['report', str(folder)]) == 2
  assert 'sheet.png is there already' in capsys.readouterr().err
  (folder / 'index.html').unlink()
  assert cli.main(['report', str(folder)]) == 2
  said = capsys.readouterr().err
  assert 'sheet.png is there without its page index.html' in said
  assert '--out' not in said  # which report has not
