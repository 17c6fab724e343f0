#!/usr/bin/env bash
# Write a text file beside each picture of a folder. Run it again after adding pictures: what is done stays.
#   examples/caption-folder.sh photos/
#
# The same as a loop, which loads the model anew for every picture:
#   for picture in photos/*.jpg; do mmgen caption "$picture" > "${picture%.*}.txt"; done
set -euo pipefail
mmgen caption --quiet "${1:?usage: caption-folder.sh FOLDER}" --sidecar
