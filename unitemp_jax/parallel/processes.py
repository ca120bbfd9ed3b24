"""Processes of a run: compilation cache, joining hosts, errors, preemption.

Each host runs one process, and all run the same program on their own devices.
An error that one of them has alone (a missing file, a lock that is taken) is
raised on all, so that none waits for a host that has given up.
"""

import contextlib
import os
import secrets
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from unitemp_jax.errors import UserError

_TEXT_BYTES = 512  # Of a reason that is told to the other hosts.
_GRACE = 60  # seconds that jax may take longer than we wait for it


def join(
  hosts: int,
  coordinator: str | None = None,
  host_index: int | None = None,
  timeout: int = 300,
) -> None:
  """Makes this process one of `hosts`; call it before anything else of jax.

  Without `coordinator` jax asks the platform: TPU pods, GKE, Slurm and MPI
  answer.

  Args:
    hosts: how many processes there must be in all; 1 joins nothing.
    coordinator: 'ADDRESS:PORT' of host 0.
    host_index: which host this is, 0 .. hosts - 1.
    timeout: seconds to wait for the others.

  Raises:
    UserError: the hosts do not find each other, or are not as many as said.
  """
  if hosts < 1 or (coordinator is None) != (host_index is None):
    raise UserError(
      f'{hosts} hosts cannot be joined: --hosts must be 1 or more, and '
      '--coordinator and --host_index are given both or neither.'
    )
  port = (coordinator or ':1').rpartition(':')[2]
  if not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 2**16):
    raise UserError(
      f'--coordinator={coordinator}: write ADDRESS:PORT, such as 10.0.0.2:8476.'
    )
  if hosts > 1:
    _initialize(hosts, coordinator, host_index, timeout)
  elif coordinator is not None:
    raise UserError(
      '--coordinator is for several hosts; say how many with --hosts=N.'
    )
  found = jax.process_count()
  if found != hosts:
    raise UserError(
      f'This process is one of {found} and not of {hosts}; give every host '
      f'--hosts={found}, or start the command on all hosts of the pod.'
    )
  if hosts > 1 and jax.default_backend() == 'cpu':
    # XLA for CPUs does not store which collective comes first, so that a host
    # with a program from the cache and one that compiled it wait for different
    # ones and are aborted. Each host has keys of its own there besides.
    jax.config.update('jax_enable_compilation_cache', False)


def _initialize(
  hosts: int, coordinator: str | None, host_index: int | None, timeout: int
) -> None:
  known = {}
  if coordinator is not None:
    if host_index is None or not 0 <= host_index < hosts:
      raise UserError(
        f'--host_index is {host_index}; it must be 0 .. {hosts - 1}, another '
        'one on each host.'
      )
    known = {
      'coordinator_address': coordinator,
      'num_processes': hosts,
      'process_id': host_index,
    }

  def sentence(reason):
    return (
      f'The {hosts} hosts cannot be joined ({reason}); start the same command '
      'on all of them, and where the platform is no TPU pod, GKE, Slurm or MPI '
      'add --coordinator=ADDRESS:PORT and --host_index=I.'
    )

  def give_up():
    # Where hosts are missing jax ends the process without saying which.
    print(
      f'[{socket.gethostname()}] error: '
      + sentence(f'not all came within {timeout} s'),
      file=sys.stderr,
      flush=True,
    )
    os._exit(2)

  watch = threading.Timer(timeout, give_up)
  watch.daemon = True
  watch.start()
  try:
    jax.distributed.initialize(**known, initialization_timeout=timeout + _GRACE)
  except (RuntimeError, ValueError, OSError) as error:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(sentence(reason[:300])) from error
  finally:
    watch.cancel()


def part_of(text: str | None) -> tuple[int, int]:
  """Which part of N this command makes, 'I/N'; by default this host's."""
  if text is None:
    return jax.process_index(), jax.process_count()
  try:
    part, parts = map(int, text.split('/'))
  except ValueError:
    part, parts = -1, 0
  if not 0 <= part < parts:
    raise UserError(f'--shard={text} is not I/N with 0 <= I < N, such as 0/4.')
  return part, parts


def check_devices(expected: int) -> None:
  """Refuses another number of devices than the config says; 0 says nothing."""
  found = jax.device_count()
  if expected and found != expected:
    raise UserError(
      f'There are {found} devices on {jax.process_count()} hosts, but '
      f'config.num_devices is {expected}; a host or chip is missing, or '
      'num_devices and mesh must be changed.'
    )


def log(text: str) -> None:
  """Prints a line on host 0."""
  if jax.process_index() == 0:
    print(text, flush=True)


@contextlib.contextmanager
def sync(doing: str) -> Iterator[None]:
  """Makes an error in the body on one host an error on all of them.

  Args:
    doing: what the body does, as the start of a sentence.

  Raises:
    UserError: the body failed elsewhere; names the host and its reason. Where
      it failed its own error is raised.
  """
  if jax.process_count() == 1:
    yield
    return
  own = None
  try:
    yield
  except Exception as error:
    own = error
  reasons = _gather_texts('' if own is None else _sentence(own))
  if own is not None:
    raise own
  for host, reason in enumerate(reasons):
    if reason:
      raise UserError(f'{doing} failed on host {host}: {reason}')


def _sentence(error: BaseException) -> str:
  text = str(error).strip()
  return text if isinstance(error, UserError) else repr(error)


def _gather_texts(text: str) -> list[str]:
  """Returns the text of every process, the beginning of it."""
  data = np.zeros(_TEXT_BYTES, np.uint8)
  encoded = text.encode()[:_TEXT_BYTES]
  data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  gathered = np.asarray(multihost_utils.process_allgather(data))
  return [
    row.tobytes().rstrip(b'\0').decode(errors='ignore') for row in gathered
  ]


def all_agree(answer: bool) -> bool:
  """Returns whether the answer is yes in every process."""
  if jax.process_count() == 1:
    return answer
  return bool(np.all(multihost_utils.process_allgather(np.asarray(answer))))


def check_shared(folder: Path) -> None:
  """Refuses a folder that exists on host 0 alone.

  Raises:
    UserError: a host does not see what host 0 writes into `folder`.
  """
  if jax.process_count() == 1:
    return
  token = np.frombuffer(secrets.token_bytes(8), np.uint8)
  token = np.asarray(multihost_utils.broadcast_one_to_all(token))
  path = folder / f'.shared-{token.tobytes().hex()}'
  with sync(f'Writing to {folder}'):
    if jax.process_index() == 0:
      path.touch()
  with sync(f'Looking into {folder}'):
    if not path.exists():
      raise UserError(
        f'{folder} is not the same folder on all hosts; choose a --workdir '
        'that they share, such as a mounted bucket or NFS.'
      )
  if jax.process_index() == 0:
    path.unlink()


def to_host(tree: Any) -> Any:
  """Returns `tree` as arrays that this process has whole.

  All processes must call it. Arrays of one process stay as they are.
  """

  def whole(leaf):
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
      return leaf
    if leaf.is_fully_replicated:
      return np.asarray(leaf.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

  return jax.tree.map(whole, tree)


def abort(error: BaseException, code: int) -> None:
  """Ends one of several processes at once; prints which one and why.

  An ordinary exit would wait for the others, which wait for this one.
  """
  text = _sentence(error)
  if not isinstance(error, UserError):
    text = ''.join(traceback.format_exception(error)).rstrip()
  name = f'host {jax.process_index()} of {jax.process_count()}'
  prefix = f'[{name}, {socket.gethostname()}] '
  lines = [prefix + line for line in f'error: {text}'.splitlines()]
  print('\n'.join(lines), file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(code)


class StopSignal:
  """SIGTERM and preemption handling: asks for a stop after the current step.

  A context. One process handles the signal itself. With several, jax's
  preemption service does, and makes all of them agree on the step to stop at.
  """

  def __enter__(self) -> 'StopSignal':
    self._asked = False
    self._previous = None
    self._single = jax.process_count() == 1
    if self._single and threading.current_thread() is threading.main_thread():
      self._previous = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(self, *_) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)

  def _ask(self, *_) -> None:
    self._asked = True

  def asked(self, step: int) -> bool:
    """Returns whether to stop after `step`; call it once for every step."""
    if self._single:
      return self._asked
    return multihost_utils.reached_preemption_sync_point(step)
