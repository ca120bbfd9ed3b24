"""Makes the animation of the studio in the README.

python tests/studio/make_animation.py unitemp_jax/assets/readme/studio.gif

Needs Chromium and the extras studio and test.
"""

import io
import pathlib
import shutil
import sys
import tempfile
import time

from conftest import Process
from PIL import Image
from playwright.sync_api import sync_playwright

from unitemp_jax.data.falling_digits import FallingDigitsSpec, sample_clips
from unitemp_jax.video.write import write_image

SIZE = {'width': 1000, 'height': 900}
WIDTH = 640  # of the animation


def main(path: str) -> None:
  """Generates between two pictures from both ends, and films it."""
  out = tempfile.mkdtemp()
  spec = FallingDigitsSpec(num_frames=33, size=32, split='test')
  clip = sample_clips(spec, [1])
  ends = [pathlib.Path(out) / name for name in ('first.png', 'last.png')]
  for end, frame in zip(ends, (4, 28), strict=True):
    write_image(end, clip['video'][0][frame])
  server = Process(pathlib.Path(out) / 'projects')
  try:
    with sync_playwright() as play:
      browser = play.chromium.launch(
        executable_path=shutil.which('chromium'), args=['--no-sandbox']
      )
      page = browser.new_page(viewport=SIZE)
      page.goto(server.url)
      pictures = film(page, ends, clip['caption'][0])
  finally:
    server.kill()
  assemble(pictures, path)


def film(page, ends, prompt: str) -> list[bytes]:
  """Screenshots of a person's first minutes."""
  pictures = []

  def look(count=1):
    pictures.extend([page.screenshot()] * count)

  def until(expression):
    while not page.evaluate(expression):
      time.sleep(0.05)

  page.wait_for_selector('#prompts .words')
  page.fill('#length', '65')
  page.fill('#prompts .words', prompt)
  for k, end in enumerate(ends):
    page.evaluate(f'studio.seek({64 * k})')
    with page.expect_file_chooser() as chooser:
      page.click('#add-file')
    chooser.value.set_files(end)
    until(f'studio.line.pieces.length === {k + 1}')
    look(3)
  page.evaluate('studio.edit((line) => { line.pieces[1].at = 64; })')
  page.select_option('#order', 'outside_in')
  until('studio.fits && document.querySelectorAll("#blocks div").length > 3')
  look(6)
  page.click('#generate')
  page.evaluate('scrollTo(0, 0)')
  seen = -1
  done = 'studio.state.versions[0]?.state === "done"'
  while not page.evaluate(done):
    shown = page.evaluate('studio.state.run?.shown.length ?? 0')
    if shown > seen:
      seen = shown
      look(2)
    time.sleep(0.05)
  time.sleep(1)
  for frame in range(0, 65, 3):
    page.evaluate(f'studio.seek({frame})')
    time.sleep(0.15)
    look()
  return pictures


def assemble(pictures: list[bytes], path: str) -> None:
  """Writes the animation, small and in few colours."""
  shown = []
  for one in pictures:
    image = Image.open(io.BytesIO(one)).convert('RGB')
    height = round(image.height * WIDTH / image.width)
    image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    shown.append(image)
  palette = shown[-8].quantize(240, Image.Quantize.MAXCOVERAGE)
  frames = [
    image.quantize(palette=palette, dither=Image.Dither.NONE) for image in shown
  ]
  frames[0].save(
    path,
    save_all=True,
    append_images=frames[1:],
    duration=220,
    loop=0,
    optimize=True,
  )
  print(path, pathlib.Path(path).stat().st_size // 1000, 'kB')


if __name__ == '__main__':
  main(*sys.argv[1:])
