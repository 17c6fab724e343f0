#!/usr/bin/env bash
# Draw a picture for each line of a file; the same list gives the same pictures, and only those that are missing.
#   examples/draw-list.sh prompts.txt pictures/
#
# The same as a loop, which loads the model anew for every picture:
#   n=0; while read -r prompt; do mmgen draw "$prompt" --seed 2 -o "pictures/$((n += 1)).png"; done < prompts.txt
set -euo pipefail
list=${1:?usage: draw-list.sh PROMPTS.txt FOLDER} folder=${2:?usage: draw-list.sh PROMPTS.txt FOLDER}
mmgen draw --quiet --prompts "$list" --seed 2 -o "$folder/{index:03d}.png"
