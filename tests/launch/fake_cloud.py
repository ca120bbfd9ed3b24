"""Stand-ins for gcloud, xpk and kubectl, and for what runs on the hosts.

Every call is recorded. Hosts are folders on this machine in which the real
launch/tpu_worker.sh runs; only Python's environment, `unitemp` and the mount
are made up. What happens is read from files that a test writes:

  on_create  the states of a new queued resource, one per question, the last
             one for good
  behaviour  what `unitemp` does in each attempt: finish, stopped, hang (until
             SIGTERM), preempt (the machines go away), exit N, or parts: what
             set.py does; behaviour.I is of host I alone

A program knows that its machine has gone when the folder it runs in is not the
one of that name any more: the next machine has the same name.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

GCLOUD = r"""
echo "gcloud $*" >>"$FAKE/calls"
each_host() {
  local i
  for i in $hosts; do
    mkdir -p "$FAKE/hosts/$i"
    (cd "$FAKE/hosts/$i" && HOME="$PWD" HOST="$i" TPU_WORKER_ID="$i" "$@") ||
      exit 1
  done
}
hosts="$(seq 0 $((HOSTS - 1)))"
command=''
for word in "$@"; do
  case "$word" in
    --command=*) command="${word#--command=}" ;;
    --worker=0) hosts=0 ;;
  esac
done
case "$*" in
  *'buckets describe'*) [[ -d "$FAKE/bucket" ]] ;;
  *'buckets create'*) mkdir "$FAKE/bucket" ;;
  *'queued-resources describe'*)
    if [[ ! -s "$FAKE/state" ]]; then
      echo 'ERROR: (gcloud) NOT_FOUND: no such resource' >&2
      exit 1
    fi
    head -n 1 "$FAKE/state"
    if [[ "$(wc -l <"$FAKE/state")" -gt 1 ]]; then
      sed -i 1d "$FAKE/state"
    fi
    ;;
  *'queued-resources create'*) cp "$FAKE/on_create" "$FAKE/state" ;;
  *'queued-resources delete'*)
    # A host that was just killed may still be writing.
    until rm -rf "$FAKE/state" "$FAKE/hosts"; do sleep 0.1; done
    ;;
  *'storage cp'*|*'storage rsync'*)
    target="$FAKE/bucket/${@: -1}"
    target="$FAKE/bucket/${target#*gs://runs/}"
    mkdir -p "$(dirname "$target")"
    cp -rT "${@: -2:1}" "$target"
    ;;
  *'tpu-vm scp'*)
    [[ "$(head -n 1 "$FAKE/state")" == ACTIVE ]] || exit 1
    each_host cp "$5" "$6" .
    ;;
  *'tpu-vm ssh'*)
    [[ "$(head -n 1 "$FAKE/state")" == ACTIVE ]] || exit 1
    # Of the launcher: a slow host may not have begun its own before it goes.
    [[ "$command" != *' start '* ]] || echo >>"$FAKE/attempts"
    export ATTEMPT="$(cat "$FAKE/attempts" 2>/dev/null | wc -l)"
    each_host bash -c "$command"
    ;;
  *) exit 64 ;;
esac
"""

PYTHON = r"""
case "$*" in
  *'-m venv '*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$FAKE/bin/python3.12" "$folder/bin/python"
    cp "$FAKE/bin/unitemp" "$folder/bin/unitemp"
    ;;
  *install*) echo "host $HOST: pip ${*: -1}" >>"$FAKE/calls" ;;
esac
"""

UNITEMP = r"""
if [[ "$1 $2" == 'evaluate folder' && "$*" != *--shard=* ]]; then
  echo "host $HOST: joins with $*" >>"$FAKE/calls"
  exit 0
fi
if [[ "$1 $2" == 'evaluate verify' ]]; then
  exec python3 "$FAKE/set.py" verify "$3"
fi
echo "host $HOST: unitemp $*" >>"$FAKE/calls"
echo "host $HOST: of ${TPU_PROCESS_BOUNDS:-all} processes" >>"$FAKE/calls"
script="$FAKE/behaviour"
[[ ! -f "$script.$HOST" ]] || script="$script.$HOST"
what="$(sed -n "${ATTEMPT:-1}p" "$script")"
echo "step 5/10 on host $HOST"
case "$what" in
  parts*) exec python3 "$FAKE/set.py" "$what" "$@" ;;
  finish) echo 'finished at step 10: checkpoints/10' ;;
  stopped) echo 'stopped at step 5: checkpoints/5'; exit 143 ;;
  hang)
    trap 'echo "stopped at step 7: checkpoints/7"; exit 143' TERM
    while [[ . -ef "$HOME/unitemp/source" ]]; do sleep 0.05; done
    ;;
  preempt)
    echo SUSPENDED >"$FAKE/state"
    while [[ . -ef "$HOME/unitemp/source" ]]; do sleep 0.05; done
    ;;
  exit*) echo 'unitemp: error: something is wrong' >&2; exit "${what#exit }" ;;
esac
"""

XPK = r"""
echo "xpk $*" >>"$FAKE/calls"
case "$*" in
  *'workload create'*) echo "$*" >"$FAKE/workload" ;;
  *'workload delete'*) rm -f "$FAKE/workload" ;;
  *wait-for-job*) exit "$(cat "$FAKE/xpk_code")" ;;
  *'workload list'*)
    echo 'Jobset Name  Created Time'
    [[ ! -f "$FAKE/workload" ]] || echo 'mine  2026-01-01'
    ;;
esac
"""

PROGRAMS = {
  'gcloud': GCLOUD,
  'xpk': XPK,
  'kubectl': 'echo "kubectl $*" >>"$FAKE/calls"',
  'python3.12': PYTHON,
  'unitemp': UNITEMP,
  'gcsfuse': 'rmdir "${@: -1}" && ln -s "$FAKE/bucket" "${@: -1}"',
  'hostname': 'echo "host-$HOST"',
  'mountpoint': '[[ -L "${@: -1}" ]]',
}


class FakeCloud:
  """A copy of the launch folder beside a made-up cloud."""

  def __init__(self, folder, hosts=1):
    self.folder = folder
    (folder / 'bin').mkdir()
    for name, body in PROGRAMS.items():
      path = folder / 'bin' / name
      path.write_text(f'#!/usr/bin/env bash\n{body}')
      path.chmod(0o755)
    python = folder / 'bin' / 'python3'  # Of what stands for `unitemp`.
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    self.repository = folder / 'repository'
    shutil.copytree(
      ROOT / 'launch',
      self.repository / 'launch',
      ignore=shutil.ignore_patterns('__pycache__'),
    )
    shutil.copytree(
      *(f / 'unitemp_jax' / 'cli' for f in (ROOT, self.repository)),
      ignore=shutil.ignore_patterns('__pycache__'),
    )
    for name in ('setup.py', 'c.py'):
      (self.repository / name).write_text('')
    subprocess.run(['git', 'init', '-q', self.repository], check=True)
    self.hosts = hosts
    self.script('on_create', 'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE')
    self.script('behaviour', 'finish')
    self.script('xpk_code', '0')

  def script(self, name, *lines):
    """Writes one of the files that say what happens."""
    (self.folder / name).write_text(''.join(f'{line}\n' for line in lines))

  def run(self, verb, *flags, training=('train', '--config=c.py'), timeout=120):
    """Runs launch/tpu_pod.py; returns the finished process."""
    sizes = {1: 'v6e-8', 4: 'v6e-16'}
    path = f'{self.folder / "bin"}:{os.environ["PATH"]}'
    command = [sys.executable, self.repository / 'launch' / 'tpu_pod.py', verb]
    command += ['--name=mine', '--project=p', '--zone=us-east1-c']
    command += [f'--type={sizes[self.hosts]}', '--bucket=runs', '--poll=0.02']
    environment = {k: v for k, v in os.environ.items() if 'UNITEMP' not in k}
    return subprocess.run(
      [*command, *flags, *(('--', *training) if training else ())],
      env={
        **environment,
        'PATH': path,
        'FAKE': str(self.folder),
        'HOSTS': str(self.hosts),
      },
      capture_output=True,
      text=True,
      timeout=timeout,
    )

  def calls(self, *words):
    """Returns the recorded calls that contain all of `words`."""
    path = self.folder / 'calls'
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if all(word in line for word in words)]
