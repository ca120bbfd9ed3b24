"""Runs the cloud's command line tools, or says what would be run."""

import dataclasses
import shlex
import shutil
import subprocess
import sys

from pod.errors import PodError


@dataclasses.dataclass(frozen=True)
class Done:
  """A finished command."""

  code: int
  out: str
  err: str


class Shell:
  """Runs commands; with `dry_run` prints them and takes them for successes."""

  def __init__(self, dry_run=False):
    self.dry_run = dry_run

  def ask(self, command) -> Done:
    """Runs a command whose failure is an answer too."""
    if self.dry_run:
      print(shlex.join(command))
      return Done(0, '', '')
    self._find(command[0])
    # Bytes that are no text come back as they were: a log is cut anywhere.
    done = subprocess.run(
      command,
      capture_output=True,
      encoding='utf-8',
      errors='surrogateescape',
      check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)

  def do(self, command, doing: str) -> str:
    """Runs a command that must succeed; shows its output if it does not.

    Raises:
      PodError: it failed.
    """
    print(f'{doing} ...', flush=True)
    done = self.ask(command)
    if done.code:
      sys.stderr.write(done.out + done.err)
      raise PodError(
        f'{doing} failed with exit code {done.code}; the reason stands above, '
        f'the command was: {shlex.join(command)}',
        code=1,
      )
    return done.out

  def watch(self, command) -> int:
    """Runs a command that prints as it goes; returns its exit code."""
    if self.dry_run:
      return self.ask(command).code
    self._find(command[0])
    return subprocess.run(command, check=False).returncode

  def _find(self, program):
    if shutil.which(program) is None:
      raise PodError(
        f'{program} is not installed or not on PATH; install it '
        '(launch/README.md says from where) and log in.'
      )
