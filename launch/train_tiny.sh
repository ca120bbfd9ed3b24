#!/usr/bin/env bash
# Trains the tiny model from nothing: VAE, latents, teacher, student, export.
#
#   launch/train_tiny.sh                 hours on 2 cores
#   launch/train_tiny.sh --size=test     seconds per stage, nothing to look at
#
# Every stage resumes where it stopped and is skipped when it is finished: run
# the script again at any time.
#
# UNITEMP_RUNS  where runs and data go (default runs)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

size=''
for argument in "$@"; do
  case "$argument" in
    --size=test) size=':test' ;;
    -h | --help)
      sed -n '2,10s/^# \{0,1\}//p' launch/train_tiny.sh
      exit 0
      ;;
    *) fail "unknown argument '$argument'; use --size=test or none." ;;
  esac
done

enter_environment ''
runs="${UNITEMP_RUNS:-runs}"

data=("--config.data.dir=$runs/data")
latents=(
  "${data[@]}"
  "--config.latents.dir=$runs/latents"
  "--config.latents.vae=$runs/tiny_vae_decoder/weights/vae.safetensors"
  "--config.teacher=$runs/tiny_teacher/weights/teacher.safetensors"
)
init="--config.student_init=$runs/tiny_student_init/weights/student.safetensors"

train() {
  local stage="$1"
  shift
  unitemp train --config="configs/$stage.py$size" --workdir="$runs/$stage" "$@"
}

train tiny_vae "${data[@]}"
train tiny_vae_decoder "${data[@]}" \
  "--config.pretrained=$runs/tiny_vae/weights/vae.safetensors"
unitemp encode --config="configs/tiny_teacher.py$size" "${latents[@]}"
train tiny_teacher "${latents[@]}"
train tiny_student_init "${latents[@]}"
train tiny_distill "${latents[@]}" "$init"
unitemp export --config="configs/tiny_distill.py$size" "${latents[@]}" "$init" \
  --student="$runs/tiny_distill/weights/student.safetensors" \
  --out="$runs/model"
