"""What a file says about its pixels is heeded: each with its right value."""

import fractions
import struct

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageCms, PngImagePlugin

from unitemp_jax.errors import UserError
from unitemp_jax.video import read
from unitemp_jax.video.read import (
  decode,
  has_sound,
  read_frames,
  read_image,
  read_video,
)
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
  with pytest.raises(UserError, match='too many frames'):
    read_video(path, 200_000)


@pytest.mark.parametrize(('gamma', 'wanted'), [(1, 186), (1 / 2.2, 128)])
def test_a_picture_in_linear_light(gamma, wanted, tmp_path):
  info = PngImagePlugin.PngInfo()
  info.add(b'gAMA', round(100_000 * gamma).to_bytes(4))
  grey = Image.new('RGB', (8, 8), (128,) * 3)
  deep = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
  for mode in ('RGB', 'L', 'LA', 'RGBA', 'P', 'I;16'):
    picture = deep if mode == 'I;16' else grey.convert(mode, palette=1)
    picture.save(tmp_path / 'a.png', pnginfo=info)
    read = read_image(tmp_path / 'a.png')
    assert np.abs(read - float(wanted)).max() <= 1, mode
  info.add(b'sRGB', b'\0')
  for picture in (grey, deep):
    picture.save(tmp_path / 'a.png', pnginfo=info)
    assert set(read_image(tmp_path / 'a.png').ravel()) == {128}


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


@pytest.mark.parametrize('codec', ['libvpx', 'libvpx-vp9'])
def test_what_is_transparent_in_webm_lies_on_black(
  codec, tmp_path, monkeypatch
):
  """The decoders of FFmpeg drop what is beside the colours."""
  path, planes = tmp_path / 'a.webm', np.full((160, 64), 255, np.uint8)
  planes[64:96] = 128  # No colour.
  planes[96:, :32] = 0  # The left is transparent.
  with av.open(str(path), 'w') as out:
    stream = out.add_stream(codec, rate=10, options={'auto-alt-ref': '0'})
    stream.height, stream.width, stream.pix_fmt = 64, 64, 'yuva420p'
    for number in range(9):
      frame = av.VideoFrame(64, 64, 'yuva420p')
      parts = (planes[:64], *np.split(planes[64:96].reshape(64, 32), 2))
      for plane, part in zip(frame.planes, (*parts, planes[96:]), strict=True):
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        lines[:, : plane.width] = part
        plane.update(lines)
      frame.pts = number
      out.mux(stream.encode(frame))
    out.mux(stream.encode())
  for start in (0, 0.5):
    for _, _, frame in decode(path, start=start):
      assert frame[:, :28].max() < 9 and frame[:, 36:].min() > 240
  assert len(read_video(path)[0]) == 9
  monkeypatch.setattr(read, '_CLEAR', {})
  assert read_video(path)[0].min() > 240  # The control.
  monkeypatch.setattr(read, '_CLEAR', {'vp8': 'no', 'vp9': 'no'})
  with pytest.raises(UserError, match='transparent, which needs'):
    read_video(path)


def test_transparency_that_is_not_decoded_is_refused(tmp_path):
  clear = [Image.new('RGBA', (32, 32), (x, 0, 0, 90)) for x in (0, 200, 90)]
  for name, pictures in (
    ('clear.avif', clear),
    ('a.avif', [picture.convert('RGB') for picture in clear]),
  ):
    path = tmp_path / name
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
  with pytest.raises(UserError, match=r'clear.avif: it is transparent'):
    read_video(path.with_name('clear.avif'))
  assert np.abs(read_video(path)[0][:, 9, 9, 0] - (0.0, 200, 90)).max() < 9
  path = tmp_path / 'a.mkv'  # A mov of one frame fails now and then.
  with av.open(str(path), 'w') as out:
    # Its only packet was refused now and then; one thread, nothing reordered.
    alone = 'log-level=none:bframes=0:pools=none:frame-threads=1'
    stream = out.add_stream('libx265', 10, {'x265-params': alone})
    stream.height, stream.width, stream.pix_fmt = 64, 64, 'yuv420p'
    picture = av.VideoFrame.from_ndarray(flat(64, 64)[0])
    picture.pts = 0
    out.mux([*stream.encode(picture), *stream.encode()])
  assert off(path) < 9
  # What x265 says of itself, as if it said that there is an alpha layer.
  data, text = path.read_bytes(), b'\x4e\x01\x05'
  path.write_bytes(data.replace(text, text.replace(b'\x05', b'\xa5')))
  with pytest.raises(UserError, match='transparent, which this PyAV does'):
    read_video(path)


def test_what_does_not_say_when_frames_are_shown_is_refused(tmp_path):
  with av.open(str(tmp_path / 'a.h264'), 'w') as raw:
    stream = raw.add_stream('libx264', rate=12)
    stream.width, stream.height, stream.pix_fmt = 32, 32, 'yuv420p'
    for pixels in flat(32, 32, frames=9):
      raw.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
    raw.mux(stream.encode())
  write_video(tmp_path / 'b.mp4', flat(32, 32, frames=9), 12)
  (tmp_path / 'list').write_text("ffconcat version 1.0\nfile 'b.mp4'\n")
  assert len(read_frames(tmp_path / 'b.mp4', 12)) == 9
  for name, why in (('a.h264', 'when its frames'), ('list', 'a list of files')):
    with pytest.raises(UserError, match=why):
      read_frames(tmp_path / name, 12)


def test_pictures_are_known_by_what_they_hold(tmp_path):
  """One picture is one frame, on black, in colours that a screen shows."""
  clear = np.full((32, 32, 4), 255, np.uint8)
  clear[:, :16, 3] = 0
  for name in ('a.png', 'a.avif', 'a.webp', 'a.tiff', 'a.gif'):
    Image.fromarray(clear).save(tmp_path / name)
    (tmp_path / name).rename(tmp_path / 'a.mp4')
    found = read_frames(tmp_path / 'a.mp4', 12)
    assert found.shape == (1, 32, 32, 3), name
    assert found[..., :14, :].max() < 9 and found[..., 18:, :].min() > 240
    assert not has_sound(tmp_path / 'a.mp4')
  moving = [Image.new('L', (32, 32), level) for level in (0, 255)]
  moving[0].save(
    tmp_path / 'b.gif', save_all=True, append_images=moving[1:], duration=100
  )
  write_video(tmp_path / 'c.mp4', flat(32, 32), 10)
  (tmp_path / 'c.mp4').rename(tmp_path / 'b.png')
  assert len(read_frames(tmp_path / 'b.gif', 10)) == 2
  Image.new('RGB', (32, 32)).save(tmp_path / 'a.avif')
  data = (tmp_path / 'a.avif').read_bytes()
  (tmp_path / 'a.heic').write_bytes(data.replace(b'ftypavif', b'ftypheic'))
  with pytest.raises(UserError, match='HEIC picture'):
    read_frames(tmp_path / 'a.heic', 12)
  assert len(read_frames(tmp_path / 'b.png', 10)) == 2


def test_pictures_in_memory_are_read_as_files(tmp_path):
  clear = Image.new('RGBA', (6, 4), (*RED, 100))
  deep = Image.fromarray(np.full((4, 6), 131 * 257, np.uint16))
  turned = Image.new('RGB', (6, 4), RED)
  turned.getexif()[0x0112] = 6
  for picture in (clear, deep, turned):
    picture.save(tmp_path / 'a.png', exif=picture.getexif())
    with Image.open(tmp_path / 'a.png') as opened:
      found = read_frames(opened, 12)[0]
    np.testing.assert_array_equal(found, read_image(tmp_path / 'a.png'))
    np.testing.assert_array_equal(found, read_frames(picture, 12)[0])
  assert found.shape == (6, 4, 3) and (found == RED).all()
  with pytest.raises(UserError, match='the given picture: its values'):
    read_frames(Image.new('F', (4, 4), 7), 12)


@pytest.mark.parametrize(
  ('primaries', 'curve', 'words'),
  [(9, 16, 'HDR (PQ)'), (12, 13, 'Display P3'), (1, 13, '')],
)
def test_colours_that_a_png_names(primaries, curve, words, tmp_path):
  info = PngImagePlugin.PngInfo()
  info.add(b'cICP', bytes([primaries, curve, 0, 1]))
  Image.new('RGB', (8, 8), RED).save(tmp_path / 'a.png', pnginfo=info)
  if not words:
    assert (read_image(tmp_path / 'a.png') == RED).all()
    return
  with pytest.raises(UserError) as error:
    read_image(tmp_path / 'a.png')
  assert words in str(error.value) and 'a.png' in str(error.value)


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
  Image.fromarray(levels).save(tmp_path / 'e.png', transparency=131 * 257)
  assert read_image(tmp_path / 'e.png')[0, :, 0].tolist() == [0, 0, 255]
  tags = {262: 0}  # White is 0.
  Image.fromarray(levels).save(tmp_path / 'f.tif', tiffinfo=tags)
  data = (tmp_path / 'f.tif').read_bytes()
  head = struct.pack('<HHI', 262, 3, 1)
  data = data.replace(head + b'\1', head + b'\0')
  (tmp_path / 'f.tif').write_bytes(data)
  assert read_image(tmp_path / 'f.tif')[0, :, 0].tolist() == [255, 124, 0]
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
  for mode in ('RGBA', 'P'):
    shown = picture.quantize(4) if mode == 'P' else picture.convert(mode)
    shown.save(tmp_path / 'b.png', icc_profile=swapped)
    read = read_image(tmp_path / 'b.png').astype(int)
    assert np.abs(read - (30, 200, 90)).max() <= 2, mode
  lab = ImageCms.createProfile('LAB')
  other = ImageCms.ImageCmsProfile(lab).tobytes()
  picture.save(tmp_path / 'broken.png', icc_profile=other)  # Does not fit.
  picture.save(tmp_path / 'garbage.png', icc_profile=b'garbage')
  for name in ('broken.png', 'garbage.png'):
    assert set(map(tuple, read_image(tmp_path / name)[0])) == {RED}


# Orientation in EXIF -> the stored of upright pixels, and a, b, c, d of the
# display matrix.
TURNS = {
  1: (lambda x: x, (1, 0, 0, 1)),
  2: (np.fliplr, (-1, 0, 0, 1)),
  3: (lambda x: np.rot90(x, 2), (-1, 0, 0, -1)),
  4: (np.flipud, (1, 0, 0, -1)),
  5: (lambda x: x.swapaxes(0, 1), (0, 1, 1, 0)),
  6: (np.rot90, (0, 1, -1, 0)),
  7: (lambda x: np.rot90(x.swapaxes(0, 1), 2), (0, -1, -1, 0)),
  8: (lambda x: np.rot90(x, 3), (0, -1, 1, 0)),
}


@pytest.mark.parametrize('turn', TURNS)
def test_orientations(turn, tmp_path):
  """All eight of a camera: the marked corner comes back to the upper left."""
  wanted = np.zeros((64, 96, 3), np.uint8)
  wanted[:32, :32] = 255
  store, (a, b, c, d) = TURNS[turn]
  stored = np.ascontiguousarray(store(wanted))
  exif = Image.Exif()
  exif[0x0112] = turn
  for name in ('a.png', 'a.jfif', 'a.tiff', 'a.webp', 'a.avif'):
    Image.fromarray(stored).save(tmp_path / name, exif=exif)
    (tmp_path / name).rename(tmp_path / 'a')  # An ending decides nothing.
    found = read_frames(tmp_path / 'a', 10)
    assert found.shape == (1, 64, 96, 3), name
    assert np.abs(found.astype(int) - wanted).mean() < 2, name
  path = tmp_path / 'a.mp4'
  write_video(path, np.stack([stored] * 2), 10, scale=1)
  data = path.read_bytes()

  def matrix(a, b, c, d):
    numbers = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    return b''.join(n.to_bytes(4, 'big', signed=True) for n in numbers)

  place = data.index(matrix(1, 0, 0, 1), data.index(b'tkhd'))
  path.write_bytes(data[:place] + matrix(a, b, c, d) + data[place + 36 :])
  found = read_video(path)[0]
  assert found.shape == (2, 64, 96, 3)
  assert np.abs(found.astype(int) - wanted).mean() < 2
  if turn > 1:  # The control.
    path.write_bytes(data)
    plain = read_video(path)[0]
    assert plain.shape != found.shape or (plain[:, 16, 16] < 9).all()


def test_a_large_picture_is_read_in_silence(tmp_path, monkeypatch, recwarn):
  Image.new('L', (11, 11)).save(tmp_path / 'a.png')
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
  assert read_image(tmp_path / 'a.png').shape == (11, 11, 3)
  assert not recwarn
  with Image.open(tmp_path / 'a.png'):
    assert recwarn  # Control.
