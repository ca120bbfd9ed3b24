#!/usr/bin/env bash
# What the first minutes on an accelerator should answer, in one resumable run.
#
#   launch/device_check.sh --accelerator=cuda   on a GPU
#   launch/device_check.sh --accelerator=tpu    also searches attention tiles
#   launch/device_check.sh                      on the CPU, every part at small size
#
# Writes PART.json and table.md, which can be pasted. A part that was finished is
# not run again; what no accelerator ran says "not run". With PyTorch in the
# environment the last part is `unitemp bench baselines`.
#
# UNITEMP_OUT           where to (default out/device_check)
# DEVICE_CHECK_LIMIT    seconds in all (default 480)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

for argument in "$@"; do
  read_accelerator "$argument"
done
enter_accelerated
wanted=gpu
[[ "$accelerator" == cuda ]] || wanted="${accelerator:-cpu}"
out="${UNITEMP_OUT:-out/device_check}"
mkdir -p "$out"
export JAX_COMPILATION_CACHE_DIR="$out/programs" # so that starts are cold
parts=(about attention forward backward stream train)
[[ "$accelerator" == tpu ]] && parts+=(tiles)
python -c 'import torch' 2>/dev/null && parts+=(baselines)

for part in "${parts[@]}"; do
  [[ -s "$out/$part.json" ]] && continue
  left=$((${DEVICE_CHECK_LIMIT:-480} - SECONDS))
  if ((left < 20)); then
    echo "device_check.sh: $part is left for another run: the time is over." >&2
    continue
  fi
  echo "$part ..."
  code=0
  timeout "$left" unitemp bench device "$part" "--out=$out" \
    "--accelerator=$wanted" >"$out/$part.log" 2>&1 || code=$?
  if ((code == 124)); then
    echo "device_check.sh: the time was over in $part; run it again." >&2
  elif ((code)); then
    echo "device_check.sh: $part failed; see $out/$part.log." >&2
  fi
done
unitemp bench device table "--out=$out"
