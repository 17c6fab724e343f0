#!/usr/bin/env bash
# Ask one question about many pictures: path, tab, answer, a line each.
#   examples/ask-all.sh "what color is it?" photos/*.jpg > colors.tsv
#
# The same as a loop, which loads the model anew for every picture:
#   for picture in photos/*.jpg; do printf '%s\t%s\n' "$picture" "$(mmgen ask --image "$picture" "$question")"; done
set -euo pipefail
question=${1:?usage: ask-all.sh QUESTION PICTURE...}
shift
printf '%s\0' "$@" | mmgen ask --quiet --each "$question" --files-from - -0
