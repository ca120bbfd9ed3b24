#!/usr/bin/env bash
# From a fresh clone to videos in every order and a page that shows them.
#
#   launch/quickstart.sh                      on the CPU
#   launch/quickstart.sh --accelerator=cuda   on a GPU, or =tpu
#
# What is done already is skipped: run it again at any time.
#
# UNITEMP_PROMPTS  prompts per order (default 8)
# UNITEMP_OUT      where the videos go (default out/quickstart)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

for argument in "$@"; do
  read_accelerator "$argument"
done
enter_accelerated

out="${UNITEMP_OUT:-out/quickstart}"
unitemp generate --orders=all --num_prompts="${UNITEMP_PROMPTS:-8}" --seed=0 \
  --out="$out"
unitemp report "$out"
echo "For \`unitemp\` in this shell: source ${UNITEMP_VENV:-.venv}/bin/activate"
