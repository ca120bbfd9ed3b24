import io
import os
import tracemalloc

import av
import numpy as np
import pytest
from PIL import Image

from unitemp_jax.data import falling_digits as fd
from unitemp_jax.errors import UserError
from unitemp_jax.video.read import (
  fit,
  read_image,
  read_metadata,
  read_video,
  resample,
)
from unitemp_jax.video.write import write_gif, write_sheet, write_video

METADATA = {
  'prompt': 'a "red" seven;\nfalls = é',
  'number': 7,
  'text_number': '7',
  'plan': {'target': [0, -1, 2], 'given': None, 'ok': True},
  'long': 'x' * 20_000,
}


@pytest.fixture(scope='module')
def clip():
  return fd.sample_clips(fd.FallingDigitsSpec(), [3])['video'][0]


@pytest.fixture
def mp4(clip, tmp_path):
  path = tmp_path / 'clip.mp4'
  write_video(path, clip, 16, METADATA)
  return path


def psnr(a, b):
  error = np.square(a.astype(float) - b.astype(float)).mean()
  return 10 * np.log10(255**2 / error)


def test_round_trip(mp4, clip):
  frames, fps = read_video(mp4)
  assert frames.shape == (33, 256, 256, 3)
  assert frames.dtype == np.uint8
  assert fps == 16
  small = fit(frames, 32, 32)
  assert psnr(small, clip) > 40
  assert psnr(small[::-1], clip) < 30  # negative control
  assert os.listdir(mp4.parent) == ['clip.mp4']


def test_memory_holds_a_video_once(tmp_path):
  """The control: a stack of a list holds it twice."""
  path = tmp_path / 'large.mp4'
  write_video(path, np.zeros((64, 256, 256, 3), np.uint8), 12)
  tracemalloc.start()
  try:
    video, _ = read_video(path)
    _, peak = tracemalloc.get_traced_memory()
    again = np.stack(list(video.copy()))
    _, twice = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert len(again) == len(video)
  assert peak < 1.4 * video.nbytes < twice


def test_metadata_survives_with_its_types(mp4):
  found = read_metadata(mp4)
  assert {name: found[name] for name in METADATA} == METADATA


def test_same_input_same_bytes(mp4, clip, tmp_path):
  again = tmp_path / 'again.mp4'
  write_video(again, clip, 16, METADATA)
  assert again.read_bytes() == mp4.read_bytes()
  write_video(again, clip, 16, {**METADATA, 'number': 8})
  assert again.read_bytes() != mp4.read_bytes()


@pytest.mark.parametrize(
  'size, scale, expected',
  [((32, 48), 2, (64, 96)), ((33, 35), 1, (34, 36)), ((144, 130), None, None)],
)
def test_sizes(tmp_path, size, scale, expected):
  frames = np.full((2, *size, 3), 90, np.uint8)
  path = tmp_path / 'v.mp4'
  write_video(path, frames, 29.97, scale=scale)
  read, fps = read_video(path)
  assert read.shape[1:3] == (expected or size)
  assert fps == pytest.approx(29.97, abs=0.01)


@pytest.mark.parametrize('fps, count', [(8, 17), (16, 33), (32, 66), (12, 25)])
def test_resampling_keeps_time(mp4, fps, count):
  whole, _ = read_video(mp4)
  frames, found = read_video(mp4, fps)
  assert (len(frames), found) == (count, fps)
  for k in range(count):
    near = int(np.clip(np.rint(k * 16 / fps), 0, 32))
    ties = {near, min(int(k * 16 / fps + 0.5), 32), int(k * 16 / fps)}
    assert any(np.array_equal(frames[k], whole[t]) for t in ties)


def test_jittering_times_lose_no_frame():
  times = [0, 0.063, 0.125, 0.188, 0.25, 0.312]  # 16 fps in milliseconds
  frames = [(t, 16.0, i) for i, t in enumerate(times)]
  found = list(resample(frames, 16))
  assert found == [0, 1, 2, 3, 4, 5]


def test_one_frame_is_one_at_any_rate():
  for rate in (12.0, 24.0, 25.0, 60.0):
    assert list(resample([(0.0, rate, 'frame')], 12)) == ['frame']
  assert list(resample([(0.0, 100.0, 0), (0.01, 100.0, 1)], 12)) == [0]
  assert list(resample([], 12)) == []


def write_with(path, codec, frames, pix_fmt):
  with av.open(str(path), 'w') as out:
    stream = out.add_stream(codec, rate=10)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pix_fmt
    for frame in frames:
      out.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
    out.mux(stream.encode())


@pytest.mark.parametrize(
  'name, codec, pix_fmt',
  [
    ('a.webm', 'libvpx-vp9', 'yuv420p'),
    ('a.mov', 'mpeg4', 'yuv420p'),
    ('a.gif', 'gif', 'rgb8'),
    ('a.mkv', 'ffv1', 'yuv444p'),
  ],
)
def test_other_formats(tmp_path, name, codec, pix_fmt, clip):
  frames = clip[:6].repeat(2, 1).repeat(2, 2)
  write_with(tmp_path / name, codec, frames, pix_fmt)
  read, fps = read_video(tmp_path / name)
  assert read.shape == (6, 64, 64, 3)
  assert fps == pytest.approx(10)
  assert psnr(read, frames) > 17


def test_damaged_files(mp4, tmp_path):
  data = mp4.read_bytes()
  noise = np.random.default_rng(0).bytes(2000)
  middle = len(data) // 2
  cases = {
    'empty.mp4': b'',
    'text.mp4': b'not a video',
    'head.mp4': data[:100],
    'half.mp4': data[:middle],
    'tail.mp4': data[:-300],
    'noise.mp4': data[:middle] + noise + data[middle + 2000 :],
  }
  for name, content in cases.items():
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=name):
      read_video(path)
    assert path.read_bytes() == content
  for name, codec in (('a.mkv', 'ffv1'), ('a.webm', 'libvpx-vp9')):
    path, frames = tmp_path / name, read_video(mp4)[0][:, :32, :32]
    write_with(path, codec, frames, 'yuv420p')
    assert len(read_video(path)[0]) == len(frames)  # negative control
    data = path.read_bytes()
    for end in (3 * len(data) // 4, len(data) - 1):
      path.write_bytes(data[:end])
      with pytest.raises(UserError, match=f'{name}.*end of the file is miss'):
        read_video(path)
  with pytest.raises(UserError, match=r'text\.mp4'):
    read_metadata(tmp_path / 'text.mp4')
  for missing, why in (
    (tmp_path / 'none.mp4', 'There is no file'),
    (tmp_path, 'is a folder'),
  ):
    with pytest.raises(UserError, match=why):
      read_video(missing)
  with pytest.raises(UserError, match='fps'):
    read_video(mp4, 0)


def test_sound_is_no_video(tmp_path):
  path = tmp_path / 'sound.mp4'
  with av.open(str(path), 'w') as out:
    stream = out.add_stream('aac', rate=44100)
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), 'fltp', 'mono'
    )
    frame.sample_rate = 44100
    out.mux(stream.encode(frame))
    out.mux(stream.encode())
  with pytest.raises(UserError, match='holds no video'):
    read_video(path)


def test_refused_writes_leave_the_old_file(mp4, clip, tmp_path):
  before = mp4.read_bytes()
  for frames, fps in ((clip[:0], 16), (clip, 0), (clip[0], 16)):
    with pytest.raises(UserError):
      write_video(mp4, frames, fps)
  (tmp_path / 'file').write_text('x')
  with pytest.raises(UserError, match='cannot write'):
    write_video(tmp_path / 'file' / 'a.mp4', clip, 16)
  with pytest.raises(TypeError):  # a value that is no JSON, found while writing
    write_video(mp4, clip, 16, {'bad': object()})
  assert mp4.read_bytes() == before
  assert sorted(os.listdir(tmp_path)) == ['clip.mp4', 'file']


def test_images(tmp_path):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (6, 4, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read_image(tmp_path / 'a.png'), pixels)
  smooth = np.full((16, 16, 3), (200, 30, 90), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6  # turned
  Image.fromarray(smooth[:8]).save(tmp_path / 'a.jpg', quality=95, exif=exif)
  read = read_image(tmp_path / 'a.jpg')
  assert read.shape == (16, 8, 3)
  assert np.abs(read.astype(int) - (200, 30, 90)).max() < 6
  Image.new('LA', (3, 2), (255, 0)).save(tmp_path / 'clear.png')
  assert read_image(tmp_path / 'clear.png').max() == 0
  Image.new('L', (3, 2), 77).save(tmp_path / 'grey.png')
  assert read_image(tmp_path / 'grey.png').shape == (2, 3, 3)


def test_damaged_images(tmp_path):
  buffer = io.BytesIO()
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  Image.fromarray(noise).save(buffer, 'PNG')
  for name, data in {
    'half.png': buffer.getvalue()[:3000],
    'empty.jpg': b'',
    'text.png': b'hello',
  }.items():
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
      read_image(tmp_path / name)
  with pytest.raises(UserError, match='There is no file'):
    read_image(tmp_path / 'none.png')
  one, other = Image.fromarray(noise), Image.fromarray(255 - noise)
  for name in ('moving.png', 'moving.webp'):
    one.save(tmp_path / name, save_all=True, append_images=[other])
    with pytest.raises(UserError, match=f'{name}.*an animation'):
      read_image(tmp_path / name)


def test_fit_covers_and_crops_the_centre():
  frames = np.zeros((2, 20, 60, 3), np.uint8)
  frames[:, :, 20:40] = 255
  fitted = fit(frames, 10, 10)
  assert fitted.shape == (2, 10, 10, 3)
  assert fitted.min() > 230
  assert fit(frames, 10, 30)[:, :, :8].max() < 10
  assert fit(frames, 40, 40).shape == (2, 40, 40, 3)
  assert fit(frames[0], 7, 5).shape == (7, 5, 3)
  np.testing.assert_array_equal(fit(frames, 20, 60), frames)


def test_fit_undoes_enlarging(clip):
  large = clip.repeat(8, 1).repeat(8, 2)
  np.testing.assert_array_equal(fit(large, 32, 32), clip)


def test_gif_and_sheet(tmp_path, clip):
  write_gif(tmp_path / 'a.gif', clip, 16)
  frames, _ = read_video(tmp_path / 'a.gif', 16)
  assert frames.shape == (33, 256, 256, 3)
  small = fit(frames, 32, 32).astype(int)
  assert np.abs(small - clip).mean() < 3
  write_sheet(
    tmp_path / 'a.png', [clip, clip[:5]], ['one', 'two'], columns=6, scale=2
  )
  sheet = read_image(tmp_path / 'a.png')
  assert sheet.shape == (2 * (64 + 2 + 14) + 2, 6 * 66 + 2, 3)
  last = sheet[16:80, 2 + 5 * 66 : 66 + 5 * 66]
  np.testing.assert_array_equal(last[::2, ::2], clip[-1])
  with pytest.raises(UserError):
    write_sheet(tmp_path / 'b.png', [])
