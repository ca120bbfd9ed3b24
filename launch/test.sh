#!/usr/bin/env bash
# Lint, format, types and tests, in an environment made for them.
#
#   launch/test.sh                  everything but the slow tests
#   launch/test.sh -k report        arguments go to pytest
#   launch/test.sh -m slow          only the slow tests
#   launch/test.sh -n 0             in one process
#   launch/test.sh --tpu            with the TPU compiler (libtpu, 0.7 GB on disk)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

extras='test'
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  show_help
fi
if [[ "${1:-}" == --tpu ]]; then
  shift
  extras='test,tpu'
fi
enter_environment "$extras"
export JAX_PLATFORMS=cpu

ruff check .
ruff format --check .
mypy
# By files, since those share what they make.
python -m pytest -q -n 2 --dist loadfile --durations=10 -m 'not slow' "$@"
