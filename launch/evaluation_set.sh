#!/usr/bin/env bash
# The tiny model in all orders: generated, verified, measured and reported.
#
#   launch/evaluation_set.sh                      on the CPU
#   launch/evaluation_set.sh --accelerator=cuda   on a GPU, or =tpu
#
# What is done already is skipped: run it again at any time.
#
# UNITEMP_PROMPTS  prompts per order (default 256)
# UNITEMP_OUT      where all of it goes (default out/evaluation_set)
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
      sed -n '2,10s/^# \{0,1\}//p' launch/evaluation_set.sh
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

out="${UNITEMP_OUT:-out/evaluation_set}"
prompts="${UNITEMP_PROMPTS:-256}"
began=$SECONDS
python launch/held_out_clips.py "$out/real" "$prompts"
unitemp evaluate generate --suite=inbetween --manifest="$out/real" \
  --order=all --out="$out/set" --batch_size=32
generated=$SECONDS
unitemp evaluate verify "$out/set"
unitemp evaluate folder "$out/set/videos" --real="$out/real" \
  --reference="$out/set/real" --out="$out/measured"
unitemp report "$out/set"
echo "$((7 * prompts)) clips: $((generated - began)) s to generate," \
  "$((SECONDS - began)) s in all"
