"""Makes what is queued, one version at a time, and shows its blocks.

The queue is on disk (`project.py`). A version whose program was killed is made
first and continues after the blocks that it has.
"""

import dataclasses
import functools
import io
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unitemp_jax.errors import UserError
from unitemp_jax.generate import clips
from unitemp_jax.generate.pipeline import Pipeline
from unitemp_jax.parallel import locks
from unitemp_jax.parallel.mesh import enable_compile_cache
from unitemp_jax.studio import project as projects
from unitemp_jax.studio.project import Project, Version

_AGAIN = 30.0  # seconds until what could not be noted is tried again
_STARTS = 5  # of one version, so that one that ends the program is left
_LOSSLESS = 2**21  # pixels of a strip up to which it is a PNG


@dataclasses.dataclass
class Run:
  """The version under way."""

  project: str  # name of its project
  version: str  # name of its own
  said: str = 'loading the model'  # the program's last line about it
  # Its frames so far, in the order of their making: the first one, how many,
  # and a picture of them side by side.
  shown: list[tuple[int, int, bytes]] = dataclasses.field(default_factory=list)
  cancelled: bool = False  # stops after the next block
  began: float = dataclasses.field(default_factory=time.time)

  def about(self) -> dict[str, Any]:
    """What a page shows of it; pictures have addresses of their own."""
    shown = [[first, count] for first, count, _ in self.shown]
    names = ('project', 'version', 'said', 'began')
    return {name: getattr(self, name) for name in names} | {'shown': shown}


class Worker(threading.Thread):
  """The one thread that generates.

  Attributes:
    run_now: the version under way.
    wake: is set when something was queued.
  """

  def __init__(
    self,
    model: Path,
    listed: Callable[[], list[Project]],
    changed: Callable[[], None],
  ):
    """Starts nothing yet.

    Args:
      model: folder of the model, loaded when it is first needed.
      listed: all projects.
      changed: is called whenever a page has something new to show.
    """
    super().__init__(name='generate', daemon=True)
    self.run_now: Run | None = None
    self.wake = threading.Event()
    self._model, self._listed, self._changed = model, listed, changed
    self._pipeline: Pipeline | None = None
    self._left: dict[tuple[str, str], float] = {}  # version -> until when

  def run(self) -> None:
    """Makes versions until the process ends."""
    enable_compile_cache()
    while True:
      self.wake.clear()
      try:
        while found := self._next():
          self._make(*found)
      except Exception as error:  # The others are made all the same.
        logging.getLogger('unitemp').exception('fault', exc_info=error)
      self.wake.wait(_AGAIN)

  def _next(self) -> tuple[Project, Version] | None:
    """The version that was interrupted, or has waited longest."""
    waiting = [
      (project, version)
      for project in self._listed()
      for version in project.versions().values()
      if version.state in (projects.QUEUED, projects.RUNNING)
      and self._left.get((project.name, version.name), 0) <= time.monotonic()
    ]

    def rank(one: tuple[Project, Version]) -> tuple[bool, float]:
      record = one[1].record
      return record.state == projects.QUEUED, record.since

    return min(waiting, key=rank, default=None)

  def _make(self, project: Project, version: Version) -> None:
    name = version.name
    run = self.run_now = Run(project.name, name)
    result = {'state': projects.DONE}
    try:
      starts = version.record.starts + 1
      project.note(name, state=projects.RUNNING, starts=starts)
      self._changed()
      if starts > _STARTS:
        raise UserError(f'the program ended {_STARTS} times while making this.')
      if self._pipeline is None:
        self._pipeline = Pipeline.load(self._model)
      say, show = (functools.partial(f, run) for f in (self._say, self._show))
      say('the first block takes longest: programs are compiled')
      with locks.lock(project.folder / name):
        call, decode = project.remade(version)
        job = project.job(call, project.folder / name, decode)
        clips.run(self._pipeline, [job], report=say, show=show)
    except KeyboardInterrupt:
      result = {'state': projects.CANCELLED}
    except UserError as error:
      result = {'state': projects.FAILED, 'problem': str(error)}
    except Exception as error:  # One bad version must not end the others.
      result = {'state': projects.FAILED, 'problem': f'a fault: {error!r}'}
    try:
      project.note(name, **result)
    except (OSError, UserError):  # The folder is gone, or the disk full.
      self._left[project.name, name] = time.monotonic() + _AGAIN
    self.run_now = None
    self._changed()

  def _say(self, run: Run, line: str) -> None:
    run.said = line.removeprefix('clip 1 of 1: ')
    if run.cancelled:
      raise KeyboardInterrupt
    self._changed()

  def _show(self, run: Run, first: int, frames: np.ndarray, _: bool) -> None:
    out, picture = io.BytesIO(), Image.fromarray(np.concatenate(frames, axis=1))
    small = picture.width * picture.height < _LOSSLESS
    picture.save(out, 'PNG' if small else 'JPEG', quality=90)
    run.shown.append((first, len(frames), out.getvalue()))
    self._changed()

  def cancel(self, project: Project, name: str) -> None:
    """Stops a version after its next block, or takes it out of the queue."""
    run = self.run_now
    if run and (run.project, run.version) == (project.name, name):
      run.cancelled = True
      run.said = 'stopping after this block'
    elif project.versions()[name].state == projects.QUEUED:
      project.note(name, state=projects.CANCELLED)
    self._changed()

  def resume(self, project: Project, name: str) -> None:
    """Puts a version that was cancelled or failed into the queue again."""
    version = project.versions()[name]
    if version.state in (projects.CANCELLED, projects.FAILED):
      project.note(name, state=projects.QUEUED, since=time.time(), starts=0)
      self.wake.set()
      self._changed()
