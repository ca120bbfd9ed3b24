"""One training on a queued resource, from nothing to its end.

What is there already is used: the request, the machines, the sources on them,
the training that runs. So the same command continues after anything.
"""

import time

from pod import parts, queued
from pod.errors import PodError

# Exit codes of `unitemp` that another attempt would only repeat.
_FINAL = {2: 'the input is bad', 4: 'the training diverged'}
_PATIENCE = 10  # questions without an answer, or with some hosts gone
_QUICK = 600.0  # seconds; a crash sooner than this after a start is suspicious


def wait_until_active(pod, poll, say=print, sleep=time.sleep):
  """Requests the machines if need be and waits for them.

  A request that was preempted or failed is replaced; one that fails again and
  again is given up.

  Raises:
    PodError: the request failed three times in a row.
  """
  said, failures = None, 0
  while True:
    state = pod.state()
    if state != said:
      say(f'{pod.nodes[0]}: {state}')
      said = state
    if state == queued.ACTIVE:
      return
    if state == 'FAILED':
      failures += 1
      if failures == 3:
        raise PodError(
          'the request for machines failed 3 times; ask gcloud compute tpus '
          'queued-resources describe why: quota, zone or type.',
          code=1,
        )
    if state in queued.DEAD:
      pod.delete()
    elif state == queued.ABSENT:
      pod.create()
    else:
      sleep(poll)


class Follower:
  """Prints the log of a running training and says how it ended."""

  def __init__(self, pod, poll, say=print, sleep=time.sleep, parts=False):
    self._parts = parts
    self._pod, self._poll = pod, poll
    self._say, self._sleep = say, sleep
    self._offset, self._told = 0, ''

  def _print_log(self):
    data = self._pod.log(self._offset).encode('utf-8', 'surrogateescape')
    self._offset += len(data)
    if data:
      self._say(data.decode('utf-8', 'replace').rstrip('\n'))
    # Of all hosts: the first one may have nothing more to do.
    line = parts.progress(self._pod.tails(10)) if self._parts else ''
    if line not in ('', self._told):
      self._told = line
      self._say(line)

  def follow(self):
    """Returns 'finished', 'stopped', 'lost' or 'exited N' once it is over."""
    silent = uneven = 0
    while True:
      if self._pod.state() != queued.ACTIVE:
        return 'lost'
      statuses = self._pod.statuses()
      self._print_log()
      if statuses is None:
        silent += 1
        if silent >= _PATIENCE:
          return 'lost'
      else:
        silent = 0
        if 'running' not in statuses:
          return outcome(statuses)
        uneven = uneven + 1 if set(statuses) != {'running'} else 0
        if uneven >= _PATIENCE:
          # Some hosts ended and the others wait for them.
          if not self._parts:
            self._pod.stop()
          uneven = 0
      self._sleep(self._poll)


def outcome(statuses):
  """Returns how a training ended of which no host runs any more."""
  codes = [s.split()[1] for s in statuses if s.startswith('exited')]
  bad = sorted(code for code in codes if code != '0')
  for code in map(str, _FINAL):
    if code in bad:
      return f'exited {code}'
  if bad:
    return f'exited {bad[0]}'
  if len(codes) == len(statuses):
    return 'finished'
  return 'stopped' if 'stopped' in statuses else 'lost'


def train(pod, arguments, archive, options, say=print, sleep=time.sleep):
  """Brings a training to its end, over preemptions and crashes.

  Args:
    pod: a `queued.QueuedResource`.
    arguments: of `unitemp`; they must resume by themselves.
    archive: returns the path of the packed sources.
    options: `poll` seconds and `max_restarts`.
    say: prints a line.
    sleep: waits for so many seconds.

  Raises:
    PodError: bad input, a diverged training, or too many restarts.
  """
  quick = 0
  for attempt in range(options.max_restarts + 1):
    wait_until_active(pod, options.poll, say, sleep)
    began = time.monotonic()
    try:
      pod.set_up(archive())
      pod.start(arguments)
    except PodError:
      if pod.state() == queued.ACTIVE:
        raise
      how = 'lost'  # Taken away in the middle of it.
    else:
      many = parts.HOST in ' '.join(arguments)
      how = Follower(pod, options.poll, say, sleep, many).follow()
    if how == 'finished':
      last = parts.last_arguments(arguments)
      if last and pod.now(last):
        raise PodError(
          'clips are missing or damaged, as stands above; run the command '
          'again, which makes what is missing.',
          code=1,
        )
      say('the training finished')
      return
    code = int(how.split()[1]) if how.startswith('exited') else 0
    if code:
      say(pod.tails(30))
    if code in _FINAL:
      raise PodError(
        f'the training ended with exit code {code}: {_FINAL[code]}; the last '
        'lines of all hosts stand above.',
        code=code,
        ended=True,
      )
    quick = quick + 1 if code and time.monotonic() - began < _QUICK else 0
    if quick == 3:
      raise PodError(
        f'the training crashed 3 times in a row soon after its start, with '
        f'exit code {code}; the last lines of all hosts stand above.',
        code=1,
        ended=True,
      )
    say(f'the training was {how}; resuming, attempt {attempt + 2}')
  raise PodError(
    f'gave up after {options.max_restarts} restarts; run the command again to '
    'go on, or raise --max_restarts.',
    code=1,
  )
