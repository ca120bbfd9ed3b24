#!/usr/bin/env bash
# Runs every workflow once and makes the pictures and the table of the README.
#
#   launch/workflows.sh                the shipped model
#   launch/workflows.sh --model=DIR    another one
#
# The table and the pictures come from the same commands, which are the list
# below. Clips that are there already, made by the same command and model, are
# kept.
#
# UNITEMP_OUT       where the videos go (default out/workflows)
# UNITEMP_PICTURES  where the pictures go (default unitemp_jax/assets/readme)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

model=unitemp_jax/assets/tiny
for argument in "$@"; do
  case "$argument" in
    --model=*) model="${argument#--model=}" ;;
    -h | --help)
      sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) fail "unknown argument '$argument'; use --model=DIR or none." ;;
  esac
done

enter_environment ''
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
out="${UNITEMP_OUT:-out/workflows}"
pictures="${UNITEMP_PICTURES:-unitemp_jax/assets/readme}"
# Whatever a command is given is a real clip, or cut from one.
made_by="$(python launch/workflow_pictures.py given "$out/given" \
  --model="$model")"

# What it does | its name | the command
list() {
  cat <<'LIST'
Text to video|text|--prompt="a red seven falls" --length=33
The same, generated from its end|backward|--prompt="a red seven falls" --orders=backward
A picture, at any time of the video|image|--prompt="a red seven falls" --image=middle.png --at=16
A clip, extended both ways|extend|--prompt="a red seven falls" --extend=clip.mp4 --before=12 --after=12
Keyframes and clips at any times|keyframes|--prompt="a red seven falls" --keyframe=0:start.png --keyframe=16:middle.png --keyframe=-1:end.png
From one scene to another in one shot|transition|--prompt="a red seven falls and turns into a blue two" --transition --first=seven.png --last=two.png
A loop|loop|--prompt="a red seven hops up and down" --loop --length=33
A span made anew, the rest kept|regenerate|--prompt="a red seven falls" --regenerate=whole.mp4 --span=13:19
Long video, constant memory|long|--prompt="a red seven hops up and down" --long=121 --direction=backward --sinks=both
Prompt schedule|schedule|--prompt="a red seven hops up and down" --prompt_at=36:"a blue two hops up and down" --long=73
A looping story of several scenes|story|--storyboard=configs/storyboards/three_digits.yaml
LIST
}

table="$out/table.md"
{
  echo '| workflow | command | made by it |'
  echo '|---|---|---|'
} >"$table.tmp"
while IFS='|' read -r title name command; do
  echo "$name: unitemp generate $command"
  # Files of the list lie among what is given; the table shows short names.
  given="$out/given/"
  here="$(sed -E "s#([= :])([a-z]+\.(png|mp4))#\1$given\2#g" <<<"$command")"
  stamp="$({ echo "$made_by $command"; cat "$given"*; } | cksum)"
  folder="$out/$name-${stamp%% *}"
  eval "unitemp generate $here --model=$model --out=$folder"
  python launch/workflow_pictures.py picture "$folder" "$pictures/$name.gif" \
    --model="$model"
  echo "| $title | \`unitemp generate $command --out=out\` |" \
    "![$name]($pictures/$name.gif) |" >>"$table.tmp"
done < <(list)
mv "$table.tmp" "$table"
echo "$table"
