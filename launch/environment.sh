# Sourced by the other scripts: one virtual environment, made once.
# shellcheck shell=bash
#
# UNITEMP_VENV    where the environment lies (default: .venv in the repository)
# UNITEMP_PYTHON  the interpreter it is made with (default: the first of
#                 python3.12, python3.11, python3 that is new enough)

# Makes a path of the user's, in the variable named $1, one from here: it is
# relative to where the script was called, which it has left for the repository.
from_caller() {
  if [[ -n "${!1:-}" && "${!1}" != /* && "${OLDPWD:-$PWD}" != "$PWD" ]]; then
    printf -v "$1" '%s' "$OLDPWD/${!1}"
  fi
}
for variable in UNITEMP_OUT UNITEMP_RUNS UNITEMP_PICTURES; do
  from_caller "$variable"
done

# Prints one sentence on standard error and stops.
fail() {
  echo "$(basename "$0"): error: $*" >&2
  exit 2
}

# Prints the comment that the script begins with, and stops.
show_help() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "launch/$(basename "$0")"
  exit 0
}

# Reads an argument of a script that runs on an accelerator, into `accelerator`
# ('' without), and on the CPU otherwise. $2: what else the script takes.
accelerator=''
read_accelerator() {
  case "$1" in
    --accelerator=cuda | --accelerator=tpu)
      accelerator="${1#--accelerator=}"
      ;;
    -h | --help) show_help ;;
    *)
      fail "unknown argument '$1'; use --accelerator=cuda," \
        "--accelerator=tpu${2:+, $2} or none."
      ;;
  esac
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local candidate
  if [[ -n "${UNITEMP_PYTHON:-}" ]]; then
    is_new_enough "$UNITEMP_PYTHON" ||
      fail "UNITEMP_PYTHON=$UNITEMP_PYTHON is no Python 3.11 or newer."
    echo "$UNITEMP_PYTHON"
    return
  fi
  for candidate in python3.12 python3.11 python3; do
    if is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed but none was found; install it," \
    "or name one: UNITEMP_PYTHON=/path/to/python3.12 $0"
}

# Makes the environment and installs the package with the extras named in $1
# (such as "test" or "cuda", empty for none), unless that was done before with
# the same setup.py. Puts the environment first on PATH.
enter_environment() {
  local extras="$1" venv="${UNITEMP_VENV:-.venv}" python stamp marker
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python="$(find_python)"
    echo "Making the virtual environment $venv with $python."
    "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' ||
      echo "Note: 3.11 and 3.12 are tested; $python is newer." >&2
    "$python" -m venv "$venv" ||
      fail "$python could not make $venv; on Debian or Ubuntu," \
        "install the package python3-venv and run this again."
  fi
  is_new_enough "$venv/bin/python" ||
    fail "$venv holds a Python older than 3.11; remove that folder" \
      "or set UNITEMP_VENV to another one."
  PATH="$(cd "$venv/bin" && pwd):$PATH"
  export PATH

  # Editable: a change of the code needs no new installation, one of setup.py
  # does. The stamp also names this folder, in case it was moved.
  stamp="$venv/.unitemp-${extras:-plain}"
  marker="$(pwd) $(cksum <setup.py)"
  if [[ ! -f "$stamp" || "$(<"$stamp")" != "$marker" ]]; then
    echo "Installing the packages (once, a few minutes)."
    python -m pip install -qq --disable-pip-version-check --no-input \
      -e ".${extras:+[$extras]}" ||
      fail "the packages could not be installed; the reason stands above." \
        "Running this again continues."
    echo "$marker" >"$stamp"
  fi
}

# The environment for `accelerator`, with the extras named in $1 besides; jax
# keeps to the CPU without one.
enter_accelerated() {
  local extras="${1:-}"
  enter_environment "$extras${extras:+${accelerator:+,}}$accelerator"
  if [[ -z "$accelerator" ]]; then
    export JAX_PLATFORMS=cpu
  fi
}
