#!/usr/bin/env bash
# Draw a picture for each line of a file; the same list gives the same pictures.
#   examples/draw-list.sh prompts.txt pictures/
set -euo pipefail
list=${1:?usage: draw-list.sh PROMPTS.txt FOLDER} folder=${2:?usage: draw-list.sh PROMPTS.txt FOLDER}
mkdir -p "$folder"

number=0
while read -r prompt || [ -n "$prompt" ]; do # the last line may lack its end
    number=$((number + 1))
    picture=$(printf '%s/%03d.png' "$folder" "$number")
    [ -e "$picture" ] || mmgen draw --quiet --seed "$number" -o "$picture" "$prompt"
done < "$list"
