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

accelerator=''
for argument in "$@"; do
  case "$argument" in
    --accelerator=cuda | --accelerator=tpu)
      accelerator="${argument#--accelerator=}"
      ;;
    -h | --help)
      sed -n '2,10s/^# \{0,1\}//p' launch/quickstart.sh
      exit 0
      ;;
    *)
      fail "unknown argument '$argument'; use --accelerator=cuda," \
        "--accelerator=tpu or none."
      ;;
  esac
done

enter_environment "$accelerator"
if [[ -z "$accelerator" ]]; then
  export JAX_PLATFORMS=cpu
fi

out="${UNITEMP_OUT:-out/quickstart}"
unitemp generate --orders=all --num_prompts="${UNITEMP_PROMPTS:-8}" --seed=0 \
  --out="$out"
unitemp report "$out"
