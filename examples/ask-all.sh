#!/usr/bin/env bash
# Ask one question about many pictures: path, tab, answer, a line each.
#   examples/ask-all.sh "what color is it?" photos/*.jpg > colors.tsv
set -euo pipefail
question=${1:?usage: ask-all.sh QUESTION PICTURE...}
shift

for picture in "$@"; do
    answer=$(mmgen ask --quiet --image "$picture" "$question")
    printf '%s\t%s\n' "$picture" "$answer"
done
