#!/usr/bin/env bash
# Make a picture book, a chapter for each hero: book/index.md, and the pictures in a folder a chapter. If it was stopped,
# the same again tells what is missing.
#   examples/picture-book.sh book/ "a red cat" "a blue boat"
set -euo pipefail
book=${1:?usage: picture-book.sh FOLDER HERO...}
shift

printf 'Tell a story about %s\n' "$@" | mmgen interleave --quiet --prompts - --seed 7 -o "$book/{index}" > /dev/null
number=0
for hero in "$@"; do
    number=$((number + 1))
    printf '# %s. The story of %s\n\n' "$number" "$hero"
    sed "s|](|]($number/|" "$book/$number/index.md" # pictures are named from the chapter's folder
    echo
done > "$book/index.md"
echo "$book/index.md"
