#!/usr/bin/env bash
# Runs on every TPU host: launch/tpu_pod.py copies it there and calls it.
#
#   tpu_worker.sh setup ARCHIVE [BUCKET]  unpack, install, mount the bucket
#   tpu_worker.sh start VERB...           `unitemp VERB...` in the background
#   tpu_worker.sh now VERB...             `unitemp VERB...` in the foreground
#   tpu_worker.sh status                  one line: running, stopped, exited N
#   tpu_worker.sh log OFFSET              what was printed after that many bytes
#   tpu_worker.sh tail LINES              the last lines, with the host's name
#   tpu_worker.sh stop                    SIGTERM: save a checkpoint and end
#   tpu_worker.sh container VERB...       in GKE: install and run in this folder
#   tpu_worker.sh first VERB...           likewise, on the first host alone
#
# UNITEMP_HOME  where everything lies (default ~/unitemp)
set -euo pipefail

base="${UNITEMP_HOME:-$HOME/unitemp}"
# Stopped by SIGTERM, not done. xpk restarts a pod with this exit code.
exit_stopped=143

is_running() {
  local pid
  [[ -f "$base/pid" ]] || return 1
  pid="$(<"$base/pid")"
  # The number may belong to something else after a reboot.
  kill -0 "$pid" 2>/dev/null &&
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q tpu_worker
}

# TPU images come with a Python that is too old for current jax.
find_or_fetch_python() {
  local candidate
  for candidate in python3.12 python3.11 python3; do
    if "$candidate" -c \
      'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      return
    fi
  done
  python3 -m pip install --user --quiet uv
  python3 -m uv python install 3.12
  UNITEMP_PYTHON="$(python3 -m uv python find 3.12)"
  export UNITEMP_PYTHON
}

install_gcsfuse() {
  local list=/etc/apt/sources.list.d/gcsfuse.list
  local key=/usr/share/keyrings/cloud.google.asc
  local site=https://packages.cloud.google.com/apt
  curl -fsS "$site/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $site gcsfuse-$(lsb_release -c -s) main" |
    sudo tee "$list" >/dev/null
  sudo apt-get update -qq
  sudo apt-get install -y -qq gcsfuse
}

mount_bucket() {
  mkdir -p "$base/bucket"
  if mountpoint -q "$base/bucket"; then
    return
  fi
  command -v gcsfuse >/dev/null || install_gcsfuse
  gcsfuse --implicit-dirs "$1" "$base/bucket"
}

# Makes or finds the environment of the sources in this folder, and enters it.
enter() {
  find_or_fetch_python
  export UNITEMP_VENV="$base/venv"
  # shellcheck source=launch/environment.sh
  source launch/environment.sh
  enter_environment tpu
}

set_up() {
  local archive="$1" bucket="${2:-}" name
  name="$(basename "$archive")"
  mkdir -p "$base"
  if [[ ! -f "$base/source/.unpacked" ||
    "$(<"$base/source/.unpacked")" != "$name" ]]; then
    if is_running; then
      echo "A training is running from other sources; stop it first." >&2
      exit 2
    fi
    rm -rf "$base/source.new" && mkdir "$base/source.new"
    tar -xzf "$archive" -C "$base/source.new"
    echo "$name" >"$base/source.new/.unpacked"
    rm -rf "$base/source" && mv "$base/source.new" "$base/source"
  fi
  if [[ -n "$bucket" ]]; then
    mount_bucket "$bucket"
  fi
  cd "$base/source"
  enter
  echo "$(hostname) is ready"
}

start() {
  if is_running; then
    echo "$(hostname): already running"
    return
  fi
  rm -f "$base/exit_code"
  if [[ -f "$base/run.log" ]]; then
    mv "$base/run.log" "$base/run.log.old"
  fi
  setsid nohup bash "$base/source/launch/tpu_worker.sh" foreground "$@" \
    >"$base/run.log" 2>&1 </dev/null &
  echo $! >"$base/pid"
  echo "$(hostname): started"
}

# The number of this host among all: the cloud's own, after those of the slices
# before it. HOST in an argument stands for it.
host_number() {
  local site='http://metadata.google.internal/computeMetadata/v1/instance'
  local within="${TPU_WORKER_ID:-}" first="${UNITEMP_FIRST_HOST:-0}"
  if [[ -z "$within" ]]; then
    within="$(curl -fsS -H 'Metadata-Flavor: Google' \
      "$site/attributes/agent-worker-number")"
  fi
  if [[ -n "${UNITEMP_HOSTS_PER_SLICE:-}" ]]; then
    first=$((${MEGASCALE_SLICE_ID:-0} * UNITEMP_HOSTS_PER_SLICE))
  fi
  echo $((first + within))
}

# Keeps a host that makes its part from waiting for the others of its slice, all
# of which have four chips; see github.com/pytorch/xla/issues/7714.
leave_slice() {
  export TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1
  export TPU_VISIBLE_DEVICES=0,1,2,3
  unset MEGASCALE_COORDINATOR_ADDRESS MEGASCALE_NUM_SLICES MEGASCALE_SLICE_ID
}

# Runs `unitemp "$@"` and passes SIGTERM on to it; the code is in $code.
run_and_wait() {
  local child again number word
  local -a words=()
  code=0
  for word in "$@"; do
    if [[ "$word" == --shard=HOST/* ]]; then
      number="$(host_number)"
      word="--shard=$number/${word#--shard=HOST/}"
      leave_slice
    fi
    words+=("$word")
  done
  unitemp "${words[@]}" &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null || true' TERM
  wait "$child" || code=$?
  # A signal ends `wait` too: what counts is how the command itself ended.
  while kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
  done
  if [[ "$code" -eq 143 ]]; then
    again=0
    wait "$child" 2>/dev/null || again=$?
    if [[ "$again" -ne 127 ]]; then
      code="$again"
    fi
  fi
}

foreground() {
  export PATH="$base/venv/bin:$PATH"
  if [[ -d "$base/bucket" ]]; then
    # A new machine in place of a lost one need not compile again.
    export JAX_COMPILATION_CACHE_DIR="$base/bucket/compile_cache"
  fi
  cd "$base/source"
  run_and_wait "$@"
  if [[ -d "$base/bucket" ]]; then
    # The machine may be gone when somebody asks why.
    mkdir -p "$base/bucket/logs"
    cp "$base/run.log" "$base/bucket/logs/$(hostname).log" || true
  fi
  echo "$code" >"$base/exit_code.new"
  mv "$base/exit_code.new" "$base/exit_code"
  exit "$code"
}

now() {
  export PATH="$base/venv/bin:$PATH"
  cd "$base/source"
  unitemp "$@"
}

status() {
  local state
  if is_running; then
    state=running
  elif [[ ! -f "$base/exit_code" ]]; then
    state=lost
    [[ -f "$base/pid" ]] || state=idle
  elif [[ "$(<"$base/exit_code")" == "$exit_stopped" ]]; then
    state=stopped
  else
    state="exited $(<"$base/exit_code")"
  fi
  echo "UNITEMP_STATUS $(hostname) $state"
}

container() {
  enter
  run_and_wait "$@"
  exit "$code"
}

command="${1:-help}"
if [[ $# -gt 0 ]]; then
  shift
fi
case "$command" in
  setup) set_up "$@" ;;
  start) start "$@" ;;
  foreground) foreground "$@" ;;
  now) now "$@" ;;
  container) container "$@" ;;
  first) [[ "$(host_number)" -ne 0 ]] || container "$@" ;;
  status) status ;;
  log)
    if [[ -f "$base/run.log" ]]; then
      tail -c "+$(($1 + 1))" "$base/run.log"
    fi
    ;;
  tail)
    if [[ -f "$base/run.log" ]]; then
      tail -n "$1" "$base/run.log" | sed "s/^/[$(hostname)] /"
    fi
    ;;
  stop)
    if is_running; then
      kill -TERM "$(<"$base/pid")"
    fi
    ;;
  *)
    sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [[ "$command" == --help ]] || exit 2
    ;;
esac
