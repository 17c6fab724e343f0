#!/usr/bin/env bash
# Write a text file beside each picture of a folder. Run it again after adding pictures: what is done stays.
#   examples/caption-folder.sh photos/
set -euo pipefail
folder=${1:?usage: caption-folder.sh FOLDER}

failed=0
for picture in "$folder"/*.png "$folder"/*.jpg "$folder"/*.webp; do
    [ -e "$picture" ] || continue # a pattern that matched nothing
    words=${picture%.*}.txt
    [ -s "$words" ] && continue
    if mmgen caption --quiet "$picture" > "$words"; then
        echo "$picture: $(cat "$words")"
    else
        rm -f "$words"
        failed=1
    fi
done
exit "$failed"
