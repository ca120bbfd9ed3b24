#!/usr/bin/env bash
# The tiny model in all orders: generated, verified, measured and reported.
#
#   launch/evaluation_set.sh                      on the CPU
#   launch/evaluation_set.sh --accelerator=cuda   on a GPU, or =tpu
#   launch/evaluation_set.sh --markdown=FILE      the table goes there too
#
# What is done already is skipped: run it again at any time. Ends with a table
# of wall times, clips per minute and the numbers of every order.
#
# UNITEMP_PROMPTS  prompts per order (default 256)
# UNITEMP_OUT      where all of it goes (default out/evaluation_set)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

markdown=''
for argument in "$@"; do
  case "$argument" in
    --markdown=?*)
      markdown="${argument#--markdown=}"
      from_caller markdown
      [[ -d "$(dirname "$markdown")" ]] ||
        fail "there is no folder $(dirname "$markdown")."
      ;;
    *) read_accelerator "$argument" --markdown=FILE ;;
  esac
done

prompts="${UNITEMP_PROMPTS:-256}"
[[ "$prompts" =~ ^[1-9][0-9]{0,5}$ ]] ||
  fail "UNITEMP_PROMPTS=$prompts is no whole number from 1 on."
enter_accelerated

out="${UNITEMP_OUT:-out/evaluation_set}"
mkdir -p "$out"

# Runs a step and notes when it began, and how long it took if it succeeded.
step() {
  local name="$1" began="$SECONDS"
  shift
  echo "== $name"
  printf 'begin\t%s\t%s\n' "$name" "$prompts" >>"$out/steps.tsv"
  "$@"
  printf 'end\t%s\t%s\t%s\n' "$name" "$prompts" "$((SECONDS - began))" \
    >>"$out/steps.tsv"
}

generate() {
  unitemp evaluate generate --suite=inbetween --manifest="$out/real" \
    --order=all --out="$out/set" --batch_size=32
}

# Clips that were damaged since they were made are made again, once.
verify() {
  if ! unitemp evaluate verify "$out/set" --repair; then
    generate
    unitemp evaluate verify "$out/set"
  fi
}

measure() {
  unitemp evaluate folder "$out/set/videos" --real="$out/real" \
    --reference="$out/set/real" --out="$out/measured" \
    --workers="$(getconf _NPROCESSORS_ONLN)"
  cp "$out/measured/metrics.json" "$out/set/metrics.json"
}

step 'real clips' python launch/held_out_clips.py "$out/real" "$prompts"
step generate generate
step verify verify
step measure measure
step report unitemp report "$out/set"
python launch/evaluation_set_table.py "$out" "$prompts" ${markdown:+"$markdown"}
