"""What other programs read of the files that one video is written to."""

import fractions

import av
import chromium
import numpy as np
import pytest

from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.errors import UserError
from unitemp_jax.generate.clip_file import Output
from unitemp_jax.video import formats, write
from unitemp_jax.video.read import read_image, read_metadata, read_video
from unitemp_jax.video.sound import RATE, place, read_sound
from unitemp_jax.video.write import open_video

FPS, COUNT = 12, 13
TAGS = {
  'prompt': 'a red "seven" falls — ☂',
  'seed': 3,
  'plan': {'a': [1, None]},
}


def clip():
  """A bright bar moves down; the last frame is the first one."""
  frames = np.full((COUNT, 64, 64, 3), 40, np.uint8)
  for t in range(COUNT - 1):
    frames[t, 4 * t : 4 * t + 8] = (250, 120, 30)
  frames[-1] = frames[0]
  return frames


def tone(seconds, first=0.5):
  """Silence, then a tone."""
  sound = np.zeros((2, round(seconds * RATE)), np.float32)
  begin = round(first * RATE)
  sound[:, begin:] = np.sin(0.05 * np.arange(sound.shape[1] - begin)) / 2
  return sound


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A loop in every format, with sound where the format has any."""
  path = tmp_path_factory.mktemp('formats') / 'x.mp4'
  output = Output.parse('mp4,gif,webm,png,mkv', frame='last', repeat=3)
  sound = tone(COUNT / FPS)
  with (
    formats.open_others(
      *(path, output.formats, FPS, COUNT, True, TAGS),
      sound=sound,
      frame=output.frame,
      repeat=output.repeat,
    ) as others,
    open_video(path, FPS, TAGS, sound=sound) as append,
  ):
    for start in range(0, COUNT, 5):
      for each in (append, *others):
        each(clip()[start : start + 5])
  names = [f'x{ending}' for ending in ('.mp4', *output.endings(loops=True))]
  assert sorted(p.name for p in path.parent.iterdir()) == sorted(names)
  return path


def bar(frame):
  """Centre of the bar, in shares of the height."""
  rows = frame[..., 0].mean(axis=1)
  return np.flatnonzero(rows > rows.max() - 60).mean() / len(rows)


@pytest.mark.parametrize(
  'ending, turns, twin',
  [
    *(('.mp4', 1, 1), ('.mkv', 1, 1), ('.webm', 1, 0), ('.gif', 1, 0)),
    ('.loop.mp4', 3, 0),
  ],
)
def test_frames_of_a_loop(written, ending, turns, twin):
  frames, fps = read_video(written.with_suffix(ending))
  # GIF counts in hundredths of a second.
  np.testing.assert_allclose(fps, FPS, rtol=0.05 if ending == '.gif' else 0)
  assert len(frames) == turns * (COUNT - 1) + twin
  wanted = [bar(f) for f in clip()]
  for t, frame in enumerate(frames):
    place = t if twin else t % (COUNT - 1)
    assert abs(bar(frame) - wanted[place]) < 0.02
  # Negative control: neighbours are further apart than that.
  assert min(np.abs(np.diff(wanted[:-1]))) > 0.04


def test_pictures(written):
  folder = written.with_suffix('.frames')
  names = sorted(path.name for path in folder.iterdir())
  assert names == [f'{t:05d}.png' for t in range(COUNT - 1)]
  np.testing.assert_array_equal(read_image(folder / names[7]), clip()[7])
  last = read_image(written.with_suffix('.last.png'))
  np.testing.assert_array_equal(last, clip()[-1])
  exact, _ = read_video(written.with_suffix('.mkv'))
  np.testing.assert_array_equal(exact, clip())


@pytest.mark.parametrize(
  'ending, codec', [('.mp4', 'aac'), ('.webm', 'opus'), ('.mkv', 'pcm_s16le')]
)
def test_sound_is_as_long_and_where_it_was(written, ending, codec):
  path = written.with_suffix(ending)
  with av.open(str(path)) as container:
    (stream,) = container.streams.audio
    assert stream.codec_context.name == codec
    assert (stream.rate, stream.codec_context.channels) == (RATE, 2)
  sound = read_sound(path)
  begins = np.flatnonzero(abs(sound[0]) > 0.1)[0] / RATE
  np.testing.assert_allclose(begins, 0.5, atol=0.01)
  np.testing.assert_allclose(sound.shape[1] / RATE, COUNT / FPS, atol=0.03)


def test_gaps_of_a_sound_are_silence(tmp_path):
  """As a phone leaves them, or a cut: what follows keeps its time."""
  path, rate = tmp_path / 'gaps.mkv', 8000
  with av.open(str(path), 'w') as out:
    audio = out.add_stream('pcm_s16le', rate=rate)
    audio.layout = 'mono'
    for begin in (0.5, 0.75, 2):
      burst = np.full((1, rate // 4), 12_000, np.int16)
      frame = av.AudioFrame.from_ndarray(burst, 's16', 'mono')
      frame.sample_rate, frame.pts = rate, round(begin * rate)
      frame.time_base = fractions.Fraction(1, rate)
      out.mux(audio.encode(frame))
  sound = read_sound(path)
  # One channel is heard from both sides as loud as it was.
  np.testing.assert_allclose(sound[:, RATE * 3 // 4], 12 / 32.768, atol=0.01)
  loud = np.flatnonzero(abs(sound[0]) > 0.1) / RATE
  edges = [loud[0], *loud[1:][np.diff(loud) > 0.01], loud[-1]]
  np.testing.assert_allclose(edges, [0.5, 2, 2.25], atol=0.01)


def test_sound_is_placed():
  sound = np.ones((2, RATE), np.float32)
  placed = place(sound, 0.5, 2)
  assert placed.shape == (2, 2 * RATE)
  assert np.flatnonzero(placed[0])[[0, -1]].tolist() == [24_000, 71_999]
  assert place(sound, -0.75, 0.5).sum() == 2 * 12_000
  assert not place(sound, 3, 2).any()


@pytest.mark.parametrize('ending', ['.mp4', '.webm', '.loop.mp4'])
def test_tags_that_every_player_reads(written, ending):
  path = written.with_suffix(ending)
  with av.open(str(path)) as container:
    plain = {k.lower(): v for k, v in container.metadata.items()}
  assert plain['title'] == TAGS['prompt']
  found = read_metadata(path)
  assert {name: found[name] for name in TAGS} == TAGS


def test_playback_rate_and_quality(tmp_path):
  sizes = []
  for crf in (10, 40):
    path = tmp_path / f'{crf}.mp4'
    with open_video(path, 30, crf=crf) as append:
      noise = np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3))
      append(noise.astype(np.uint8))
    assert read_video(path)[1] == 30
    sizes.append(path.stat().st_size)
  assert sizes[0] > 2 * sizes[1]


def test_enlarged_pixels_are_no_worse_and_no_larger(tmp_path, monkeypatch):
  spec = FallingDigitsSpec(num_frames=33, size=32, split='test')
  [made] = sample_clips(spec, [0])['video']

  def written(name, threshold, crf=18):
    monkeypatch.setattr(write, '_BLOCK', threshold)
    path = tmp_path / f'{name}.mp4'
    write.write_video(path, made, FPS, crf=crf)
    shown = read_video(path)[0][:, 4::8, 4::8]
    error = np.square(shown - made.astype(float)).mean()
    return path.stat().st_size, error

  size, error = written('own', 8)
  usual, usual_error = written('usual', 99)
  assert size < usual and error < usual_error
  assert written('worse', 8, crf=30)[1] > 1.5 * usual_error  # Control.


@pytest.mark.parametrize(
  'names, fields, complaint',
  [
    ('mov', {}, "'mov'; use some of mp4, gif"),
    ('', {}, "''"),
    ('mp4', {'crf': 52}, '--crf=52'),
    ('mp4', {'playback_fps': float('nan')}, '--playback_fps=nan'),
    ('mp4', {'playback_fps': 0}, '--playback_fps=0'),
    ('gif', {'repeat': -1}, '--repeat=-1'),
  ],
)
def test_settings_that_cannot_be(names, fields, complaint):
  with pytest.raises(UserError) as error:
    Output.parse(names, **fields)
  assert complaint in str(error.value)


def test_a_folder_of_other_files_is_kept(tmp_path):
  folder = tmp_path / 'x.frames'
  folder.mkdir()
  (folder / 'mine.txt').write_text('mine')
  with (
    pytest.raises(UserError, match=r'x\.frames \(Directory not empty'),
    formats.open_others(tmp_path / 'x.mp4', ['png'], FPS, 1, False),
  ):
    pass
  assert (folder / 'mine.txt').read_text() == 'mine'


@pytest.mark.skipif(chromium.PATH is None, reason='Chromium is not here')
def test_chromium_plays_them(written, tmp_path):
  names = ('x.mp4', 'x.webm', 'x.loop.mp4')
  page = written.with_name('page.html')
  page.write_text(
    ''.join(f'<video src="{name}" muted></video>' for name in names)
    + '<img src="x.gif">'
  )
  with chromium.Browser(tmp_path) as browser:
    browser.open(page)
    browser.evaluate(
      'Promise.all([...document.querySelectorAll("video")].map(v => v.play()))'
    )
    every = '[...document.querySelectorAll("video")]'
    browser.wait(f'{every}.every(v => v.ended || v.error)')
    played = browser.evaluate(
      f'{every}.map(v => [v.error, v.videoWidth, v.duration])'
    )
    image = browser.evaluate('document.querySelector("img").naturalWidth')
    assert not browser.errors
  page.unlink()
  for (error, width, seconds), frames in zip(
    played, (COUNT, COUNT - 1, 3 * (COUNT - 1)), strict=True
  ):
    assert error is None and width == 256
    np.testing.assert_allclose(seconds, frames / FPS, atol=0.1)
  assert image == 256
