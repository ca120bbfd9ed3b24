"""What the file names of other systems say about their clips.

Rules read in the systems' own inference scripts. Self-Forcing writes
`prompt[:100]-i.mp4`, or `index-i_regular.mp4` (or `_ema`) with
`--save_with_index`; CausVid `output_007.mp4` and `long_video_output_007.mp4`;
LongLive puts `rank3-` before Self-Forcing's names and may end them with
`_lora` or `_lora_dp0_sp4`, and lists the prompt of every block in a text file
beside the clip. VBench-like folders hold `prompt-i.mp4`.
"""

import dataclasses
import re
import unicodedata

# Prompts of names are cut off by Self-Forcing and LongLive at 100 characters,
# for VBench 2.0 at 180.
CUTS = (100, 180)
_MODEL = r'(?:regular|ema|lora)'


@dataclasses.dataclass(frozen=True)
class Name:
  """What a file name tells."""

  prompt: str  # text, '' if the name has none
  cut: bool  # whether the prompt may go on beyond the name
  index: int | None  # place in the list of prompts, or None
  sample: int  # number of the clip of that prompt


# Kind -> patterns, the first that matches a whole stem wins. Groups: p is the
# prompt, n the index, s the sample.
_PATTERNS = {
  'self_forcing': (rf'(?P<n>\d+)-(?P<s>\d+)_{_MODEL}', r'(?P<p>.+)-(?P<s>\d+)'),
  'causvid': (r'(?:long_video_)?output_(?P<n>\d+)',),
  'longlive': (
    rf'rank\d+-(?P<n>\d+)-(?P<s>\d+)_{_MODEL}(?:_.*)?',
    rf'rank\d+-(?P<p>.+)-(?P<s>\d+)(?:_{_MODEL}(?:_.*)?)?',
  ),
  'folder': (
    r'(?P<n>\d+)-(?P<s>\d+)',
    r'(?P<p>.+)-(?P<s>\d+)',
    r'(?P<n>\d+)',
    r'(?P<p>.+)',
  ),
}
KINDS = tuple(_PATTERNS)


def parse(kind: str, stem: str) -> Name | None:
  """Reads a file name without its ending; None if the rule does not fit it.

  Args:
    kind: one of KINDS.
    stem: for example 'a dog runs-3'.
  """
  for pattern in _PATTERNS[kind]:
    match = re.fullmatch(pattern, stem, flags=re.DOTALL)
    if match:
      found = match.groupdict()
      prompt = found.get('p') or ''
      return Name(
        prompt=prompt,
        cut=len(prompt) in CUTS,
        index=int(found['n']) if found.get('n') else None,
        sample=int(found.get('s') or 0),
      )
  return None


def guess(stem: str) -> str:
  """The kind whose names look most like this one, 'folder' if none does."""
  # What one kind alone writes; most names fit the patterns that are left out.
  for kind, count in (('causvid', 1), ('longlive', 2), ('self_forcing', 1)):
    if any(re.fullmatch(p, stem) for p in _PATTERNS[kind][:count]):
      return kind
  return 'folder'


def canonical(prompt: str) -> str:
  """The part of a prompt that survives becoming a file name.

  Unicode in one form, any run of white space one blank, what file systems do
  not hold an underscore, no blanks and dots at the end.
  """
  text = unicodedata.normalize('NFC', prompt)
  text = re.sub(r'[/\\:*?"<>|]', '_', ' '.join(text.split()))
  return text.rstrip('. ')


def read_blocks(text: str) -> list[str]:
  """The prompts of LongLive's text file, `[0,1] a` and `[2] b`, in order.

  Returns:
    One prompt per line; [] if a line is not of that form.
  """
  prompts = []
  for line in text.splitlines():
    match = re.fullmatch(r'\[\d+(?:,\d+)*\] (.*)', line.strip())
    if line.strip() and not match:
      return []
    if match:
      prompts.append(match[1])
  return prompts
