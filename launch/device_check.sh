#!/usr/bin/env bash
# What the first minutes on an accelerator should answer, in one resumable run.
#
#   launch/device_check.sh                          on the device that there is
#   launch/device_check.sh --accelerator=tpu        also searches attention tiles
#   launch/device_check.sh --accelerator=cpu        every part at small size
#
# Writes out/device_check/PART.json and table.md, which can be pasted. A part
# that was finished is not run again; what no accelerator ran says "not run".
# At most 8 minutes on one GPU (DEVICE_CHECK_LIMIT, seconds).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

accelerator='' limit="${DEVICE_CHECK_LIMIT:-480}"
out="${DEVICE_CHECK_OUT:-out/device_check}"
for word in "$@"; do
  case "$word" in
    --accelerator=*) accelerator="${word#*=}" ;;
    *)
      echo "device_check.sh: error: unknown argument $word; see its first lines." >&2
      exit 2
      ;;
  esac
done
mkdir -p "$out"
export JAX_COMPILATION_CACHE_DIR="$out/programs"  # so that starts are cold
parts=(about attention forward backward stream train)
[[ "$accelerator" == tpu ]] && parts+=(tiles)
python -c 'import torch' 2>/dev/null && parts+=(baselines)

began="$SECONDS"
for part in "${parts[@]}"; do
  [[ -s "$out/$part.json" ]] && continue
  left=$((limit - SECONDS + began))
  if ((left < 20)); then
    echo "device_check.sh: $part left for another run: $left s are left." >&2
    continue
  fi
  echo "$part ..."
  timeout "$left" unitemp bench device "$part" "--out=$out" \
    ${accelerator:+"--accelerator=$accelerator"} >"$out/$part.log" 2>&1 ||
    echo "device_check.sh: $part failed; see $out/$part.log." >&2
done
unitemp bench device table "--out=$out"
