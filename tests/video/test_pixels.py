"""What a file says about its pixels is heeded: each with its right value."""

import fractions

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageCms, PngImagePlugin

from unitemp_jax.errors import UserError
from unitemp_jax.video.read import read_image, read_video
from unitemp_jax.video.write import write_video

RED = (200, 30, 90)  # BT.601 and BT.709 are far apart for it
BT601, BT709, UNTAGGED, TV, PC = 6, 1, 2, 1, 2


def flat(height, width, colour=RED, frames=2):
  return np.full((frames, height, width, 3), colour, np.uint8)


def tags(path):
  """Matrix, range, primaries and transfer that a file names."""
  with av.open(str(path)) as container:
    context = container.streams.video[0].codec_context
    next(container.decode(video=0))
    return (
      *(int(context.colorspace), int(context.color_range)),
      *(int(context.color_primaries), int(context.color_trc)),
    )


def write_raw(path, frames, matrix, tagged, full=False, ratio=None, **colours):
  """Writes H.264 with a matrix and a range, told or not."""
  with av.open(str(path), 'w') as out:
    stream = out.add_stream('libx264', rate=10, options={'crf': '1'})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    if tagged:
      context = stream.codec_context
      context.colorspace, context.color_range = matrix, PC if full else TV
      for name, value in colours.items():
        setattr(context, name, value)
    if ratio:
      stream.sample_aspect_ratio = fractions.Fraction(ratio)
    for frame in frames:
      picture = VideoReformatter().reformat(
        av.VideoFrame.from_ndarray(frame),
        format='yuv420p',
        dst_colorspace=5 if matrix == BT601 else matrix,
        dst_color_range=PC if full else TV,
      )
      out.mux(stream.encode(picture))
    out.mux(stream.encode())


def off(path, colour=RED):
  """Largest difference from a colour."""
  return int(np.abs(read_video(path)[0].astype(int) - colour).max())


@pytest.mark.parametrize(
  ('height', 'matrix'), [(256, BT601), (480, BT601), (720, BT709), (800, BT709)]
)
def test_what_is_written_is_tagged_and_comes_back(height, matrix, tmp_path):
  path = tmp_path / 'a.mp4'
  write_video(path, flat(height, 128), 10, scale=1)
  assert tags(path) == (matrix, TV, BT709, BT709)
  assert off(path) <= 3
  # As a player takes it that knows nothing of tags but the size.
  with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
  told = VideoReformatter().reformat(
    frame, format='rgb24', src_colorspace=1 if height >= 720 else 5
  )
  assert np.abs(told.to_ndarray().astype(int) - RED).max() <= 3


@pytest.mark.parametrize('height', [240, 720])
@pytest.mark.parametrize('tagged', [True, False])
@pytest.mark.parametrize('matrix', [BT601, BT709])
def test_matrices(matrix, tagged, height, tmp_path):
  """As tagged at any size, and by the size where there are no tags."""
  path = tmp_path / 'a.mp4'
  write_raw(path, flat(height, 320), matrix, tagged)
  assert (tags(path)[0] == UNTAGGED) == (not tagged)
  by_size = BT709 if height >= 720 else BT601
  if tagged or matrix == by_size:
    assert off(path) <= 3
  else:  # The control: the wrong matrix is seen.
    assert off(path) > 15


@pytest.mark.parametrize('full', [True, False])
def test_ranges(full, tmp_path):
  """Black, white and grey, in the range that the file names."""
  path = tmp_path / 'a.mp4'
  for level in (0, 131, 255):
    write_raw(path, flat(64, 64, (level,) * 3), BT601, True, full)
    assert tags(path)[1] == (PC if full else TV)
    assert off(path, (level,) * 3) <= 2


@pytest.mark.parametrize(
  ('colours', 'words'),
  [
    ({'color_trc': 16}, 'HDR (PQ)'),
    ({'color_trc': 18, 'color_primaries': 9}, 'HDR (HLG)'),
    ({'color_trc': 8}, 'linear light'),
    ({'color_trc': 14, 'color_primaries': 9}, 'wide colours (BT.2020)'),
    ({'color_trc': 13, 'color_primaries': 12}, 'Display P3'),
    ({'color_trc': 1, 'color_primaries': 1}, ''),
    ({'color_trc': 13, 'color_primaries': 6}, ''),
  ],
)
def test_what_a_screen_cannot_show_is_refused(colours, words, tmp_path):
  path = tmp_path / 'a.mp4'
  write_raw(path, flat(64, 96), BT709, True, **colours)
  assert tags(path)[3] == colours['color_trc']
  if not words:
    assert off(path) <= 3
    return
  with pytest.raises(UserError) as error:
    read_video(path)
  assert words in str(error.value) and 'a.mp4' in str(error.value)


def test_clips_that_memory_does_not_hold_are_refused(tmp_path):
  path = tmp_path / 'a.mp4'
  write_video(path, flat(64, 64, frames=9), 10, scale=1)
  assert len(read_video(path, 20)[0]) == 18
  most = 9 * 64 * 64 * 3
  assert len(read_video(path, most=most)[0]) == 9
  with pytest.raises(UserError, match='cut it'):
    read_video(path, 20, most)


@pytest.mark.parametrize(('gamma', 'wanted'), [(1, 186), (1 / 2.2, 128)])
def test_a_picture_in_linear_light(gamma, wanted, tmp_path):
  info = PngImagePlugin.PngInfo()
  info.add(b'gAMA', round(100_000 * gamma).to_bytes(4))
  for mode in ('RGB', 'L'):
    picture = Image.new(mode, (8, 8), (128,) * 3 if mode == 'RGB' else 128)
    picture.save(tmp_path / 'a.png', pnginfo=info)
    assert np.abs(read_image(tmp_path / 'a.png') - float(wanted)).max() <= 1


@pytest.mark.parametrize(
  ('ratio', 'size'), [('4/3', (64, 128)), ('1/2', (128, 96)), (None, (64, 96))]
)
def test_pixels_that_are_not_square_are_stretched(ratio, size, tmp_path):
  path = tmp_path / 'a.mp4'
  write_raw(path, flat(64, 96), BT601, True, ratio=ratio)
  assert read_video(path)[0].shape[1:3] == size


def test_what_is_transparent_in_a_video_lies_on_black(tmp_path):
  """Hidden colours stay hidden; half of white is grey."""
  frames = np.full((2, 8, 12, 4), 255, np.uint8)
  frames[:, :, :4, 3] = 0
  frames[:, :, 4:8, 3] = 128
  with av.open(str(tmp_path / 'a.mov'), 'w') as out:
    stream = out.add_stream('png', rate=10)
    stream.height, stream.width, stream.pix_fmt = 8, 12, 'rgba'
    for frame in frames:
      out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgba')))
    out.mux(stream.encode())
  read = read_video(tmp_path / 'a.mov')[0]
  assert read.shape == (2, 8, 12, 3)
  assert read[0, 0, ::4, 0].tolist() == [0, 128, 255]


def test_pictures_of_16_bits(tmp_path):
  """A grey of 131 in 255 was read as 254."""
  levels = np.array([[0, 131, 255]], np.uint16) * 257
  Image.fromarray(levels).save(tmp_path / 'a.png')
  Image.fromarray(levels.astype(np.int32)).save(tmp_path / 'b.tif')
  Image.fromarray((levels / 65535).astype(np.float32)).save(tmp_path / 'c.tif')
  for name in ('a.png', 'b.tif', 'c.tif'):
    read = read_image(tmp_path / name)
    assert read.shape == (1, 3, 3)
    assert read[0, :, 0].tolist() == [0, 131, 255], name
    assert (read == read[..., :1]).all()
  Image.fromarray(np.array([[7.0]], np.float32)).save(tmp_path / 'd.tif')
  with pytest.raises(UserError, match='outside black and white'):
    read_image(tmp_path / 'd.tif')


def test_palettes_greys_and_one_bit(tmp_path):
  picture = Image.new('RGB', (3, 2), RED)
  picture.convert('P', palette=Image.Palette.ADAPTIVE).save(tmp_path / 'p.png')
  assert np.abs(read_image(tmp_path / 'p.png').astype(int) - RED).max() <= 2
  clear = Image.new('P', (3, 2), 1)
  clear.putpalette([255, 255, 255, *RED])
  clear.save(tmp_path / 'clear.png', transparency=1)
  assert read_image(tmp_path / 'clear.png').max() == 0
  Image.new('LA', (3, 2), (200, 128)).save(tmp_path / 'la.png')
  assert set(read_image(tmp_path / 'la.png').ravel()) == {100}
  Image.new('1', (3, 2), 1).save(tmp_path / 'bit.png')
  assert read_image(tmp_path / 'bit.png').min() == 255


def test_colour_profiles(tmp_path):
  """Colours of another profile are converted; those of sRGB stay exact."""
  picture = Image.new('RGB', (3, 2), RED)
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  picture.save(tmp_path / 'srgb.png', icc_profile=srgb)
  assert set(map(tuple, read_image(tmp_path / 'srgb.png')[0])) == {RED}
  # The profile of a device whose red is green and whose green is red.
  swapped = srgb.replace(b'rXYZ', b'????').replace(b'gXYZ', b'rXYZ')
  swapped = swapped.replace(b'????', b'gXYZ')
  swapped = swapped.replace('sRGB'.encode('utf-16-be'), bytes(8))
  picture.save(tmp_path / 'other.png', icc_profile=swapped)
  read = read_image(tmp_path / 'other.png').astype(int)
  assert np.abs(read - (30, 200, 90)).max() <= 2
  clear = Image.new('RGBA', (3, 2), (*RED, 255))
  clear.save(tmp_path / 'clear.png', icc_profile=swapped)
  read = read_image(tmp_path / 'clear.png').astype(int)
  assert np.abs(read - (30, 200, 90)).max() <= 2
  lab = ImageCms.createProfile('LAB')
  other = ImageCms.ImageCmsProfile(lab).tobytes()
  picture.save(tmp_path / 'broken.png', icc_profile=other)  # Does not fit.
  picture.save(tmp_path / 'garbage.png', icc_profile=b'garbage')
  for name in ('broken.png', 'garbage.png'):
    assert set(map(tuple, read_image(tmp_path / name)[0])) == {RED}


@pytest.mark.parametrize('turn', range(1, 9))
def test_orientations(turn, tmp_path):
  """All eight of a camera: the marked corner comes back to the upper left."""
  wanted = np.zeros((4, 6), np.uint8)
  wanted[0, 0] = 255
  undo = {
    **{1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2)},
    **{4: np.flipud, 5: np.transpose, 6: np.rot90},
    **{7: lambda x: np.rot90(x.T, 2), 8: lambda x: np.rot90(x, 3)},
  }
  exif = Image.Exif()
  exif[0x0112] = turn
  stored = np.ascontiguousarray(undo[turn](wanted))
  Image.fromarray(stored).save(tmp_path / 'a.png', exif=exif)
  np.testing.assert_array_equal(read_image(tmp_path / 'a.png')[..., 0], wanted)


def test_a_large_picture_is_read_in_silence(tmp_path, monkeypatch, recwarn):
  Image.new('L', (11, 11)).save(tmp_path / 'a.png')
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
  assert read_image(tmp_path / 'a.png').shape == (11, 11, 3)
  assert not recwarn
  with Image.open(tmp_path / 'a.png'):
    assert recwarn  # Control.
