#!/usr/bin/env bash
# The studio, a timeline in a browser, with the model that comes along.
#
#   launch/studio.sh                      then open http://127.0.0.1:8400
#   launch/studio.sh --accelerator=cuda   on a GPU, or =tpu
#
# Projects are kept in out/studio (UNITEMP_OUT). Stop it at any time: what is
# queued goes on at the next start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

extras='studio'
case "${1:-}" in
  --accelerator=cuda | --accelerator=tpu) extras+=",${1#--accelerator=}" ;;
  '') export JAX_PLATFORMS=cpu ;;
  -h | --help)
    sed -n '2,8s/^# \{0,1\}//p' launch/studio.sh
    exit 0
    ;;
  *) fail "unknown argument '$1'; use --accelerator=cuda or --accelerator=tpu." ;;
esac
enter_environment "$extras"
exec unitemp studio --out="${UNITEMP_OUT:-out/studio}"
