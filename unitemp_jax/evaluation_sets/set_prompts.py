"""From a manifest and what lies beside it to the prompts of a suite."""

import collections
from collections.abc import Callable
from pathlib import Path

from unitemp_jax.errors import UserError
from unitemp_jax.evaluation_sets import manifests, suites
from unitemp_jax.evaluation_sets.manifests import Prompt


def find(
  suite_name: str,
  manifest: Path,
  *,
  long_prompts: Path | None = None,
  images: Path | None = None,
  captions: Path | None = None,
  prompt: str | None = None,
  say: Callable[[str], None] = print,
) -> list[Prompt]:
  """Reads the prompts of a suite.

  Args:
    suite_name: of `suites.SUITES`.
    manifest: see `manifests.read`, or a folder of clips for a suite with
      given clips.
    long_prompts: see `manifests.read`.
    images: folder of first frames; None = that of the manifest.
    captions: see `manifests.read_clips`.
    prompt: for clips without a caption.
    say: is told what the user should know.

  Raises:
    UserError: unreadable or unfitting files.
  """
  suite = suites.SUITES[suite_name]
  beside = {
    '--long_prompts': (long_prompts, suite.given != 'clip'),
    '--images': (images, suite.given == 'image'),
    '--captions': (captions, suite.given == 'clip'),
    '--prompt': (prompt, suite.given == 'clip'),
  }
  for option, (value, fits) in beside.items():
    if value is not None and not fits:
      raise UserError(f'--suite={suite_name} has no use for {option}.')
  if suite.given == 'clip':
    listed = manifests.read_clips(manifest, captions, prompt)
  else:
    listed = manifests.read(manifest, long_prompts)
  if suite.given == 'image':
    listed = manifests.with_images(listed, images or manifest.parent)
  found, joined = suites.arrange(suite, listed)
  if joined:
    counts = collections.Counter(entry.name for entry in listed)
    name, count = counts.most_common(1)[0]
    say(
      f'the manifest repeats {joined} of its {len(listed)} entries, such as '
      f'{name!r} ({count} times); each prompt is made once'
    )
  needs = suite_name in ('vbench', 'vbench_long')
  if needs and not any(entry.dimensions for entry in found):
    say(
      f'the manifest names no dimensions: {suite.samples(found[0])} samples '
      'for every prompt; with VBench_full_info.json temporal flickering gets 25'
    )
  return found
