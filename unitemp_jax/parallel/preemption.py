"""Notices that the machine is about to be taken away."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class StopSignal:
  """Context in which SIGTERM asks for a stop after the current step.

  One process catches the signal itself. With several, jax's preemption service
  catches it and makes all of them agree on the step to stop at.
  """

  def __enter__(self) -> 'StopSignal':
    self._asked = False
    self._previous = None
    self._alone = jax.process_count() == 1
    if self._alone and threading.current_thread() is threading.main_thread():
      self._previous = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(self, *_) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)

  def _ask(self, *_) -> None:
    self._asked = True

  def asked(self, step: int) -> bool:
    """Returns whether to stop after `step`; call it once for every step."""
    if self._alone:
      return self._asked
    return multihost_utils.reached_preemption_sync_point(step)
