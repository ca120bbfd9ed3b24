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

for argument in "$@"; do
  read_accelerator "$argument"
done
enter_accelerated studio
exec unitemp studio --out="${UNITEMP_OUT:-out/studio}"
