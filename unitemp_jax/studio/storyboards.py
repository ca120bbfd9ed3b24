"""A timeline as a storyboard: each prompt a scene, or a transition."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unitemp_jax.errors import UserError
from unitemp_jax.generate import storyboard, storyboard_file
from unitemp_jax.sampling.model_folder import ModelCard
from unitemp_jax.studio.timeline import Piece, Prompt, Timeline


def write(line: Timeline, files: Mapping[Piece, str]) -> str:
  """The storyboard of a timeline, in YAML.

  Args:
    line: the timeline.
    files: names of its pieces, as the storyboard's folder has them.

  Raises:
    UserError: a piece stands in a transition, or two transitions meet.
  """
  if not line.prompts:
    raise UserError('write a prompt: what the video shows from frame 0 on.')
  begins = [max(prompt.at - 1, 0) for prompt in line.prompts]
  ends = [*begins[1:], line.length - 1]
  count, left = len(begins), len(line.pieces)
  scenes, links = [], []
  for k, (prompt, begin, end) in enumerate(
    zip(line.prompts, begins, ends, strict=True)
  ):
    if prompt.link == (k == 0 or line.prompts[k - 1].link):
      raise _unlinked(line, prompt)
    made: dict[str, Any] = {'length': end - begin}
    if prompt.link:
      made |= {'from': f'scene {k}', 'to': f'scene {(k + 1) % count + 1}'}
      links.append(made | ({'prompt': prompt.text} if prompt.text else {}))
      continue
    at = {
      piece.at - begin: files[piece]
      for piece in line.pieces
      if begin + (4 if begin else 0) <= piece.at <= end + 1 - piece.count
    }
    left -= len(at)
    made |= {'name': f'scene {k + 1}', 'prompt': prompt.text}
    scenes.append(made | ({'at': at} if at else {}))
  if line.prompts[-1].link != line.loop:
    raise _unlinked(line, line.prompts[-1])
  if left:
    raise UserError('every picture and clip of a storyboard lies in one scene.')
  own = line.settings()
  board: dict[str, Any] = {'size': line.size} if line.size else {}
  board |= {k: own[k] for k in ('anchors', 'window') if k in own}
  board |= {'seed': line.seed, 'loop': line.loop}
  board |= {'scenes': scenes, 'transitions': links}
  return yaml.safe_dump(board, sort_keys=False, allow_unicode=True)


def _unlinked(line: Timeline, prompt: Prompt) -> UserError:
  if prompt.link:
    return UserError(
      f'the transition from frame {prompt.at} on leads from one scene to '
      'another; put a scene on both of its sides.'
    )
  return UserError(
    'between two scenes of a storyboard there is a transition: mark one '
    f'prompt as such{", also at the end of a loop" if line.loop else ""}.'
  )


def read(
  path: Path, card: ModelCard, sources: Mapping[str, tuple[str, int]]
) -> Timeline:
  """The timeline of a storyboard that a page sent.

  Args:
    path: of the file, alone in its folder.
    card: of the model.
    sources: source and frames by the name that the storyboard gives a file.

  Raises:
    UserError: it is wrong, or names a file that is not there.
  """

  def is_known(file: Path) -> bool:
    name = file.name
    if name not in sources or file != path.parent / name:
      raise UserError(
        f'the storyboard names {name!r}; put that file on the page first.'
      )
    return True

  board = storyboard_file.read(path, is_known)
  prompts, pieces, end = [], [], 0
  for stretch in storyboard.stretches(board, card):
    begin, end, what = stretch.begin, stretch.end, stretch.what
    at = begin + 1 if begin else 0
    if isinstance(what, storyboard_file.Transition):
      prompts.append(Prompt(at, what.prompt or '', link=True))
      continue
    prompts.append(Prompt(at, what.prompt))
    for given in what.conditioning:
      source, count = sources[given.path.name]
      at = storyboard.begin_of(given, what.name, np.empty(count), stretch, card)
      pieces.append(Piece(source, at, 0, count - 1))
  return Timeline(
    1 + end,
    tuple(prompts),
    tuple(pieces),
    'scenes',
    loop=board.loop,
    seed=board.seed,
    window=board.window or 0,
    anchors=-1 if board.anchors is None else board.anchors,
    size='{}x{}'.format(*board.size) if board.size else '',
  )
