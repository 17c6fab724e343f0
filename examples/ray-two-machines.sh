#!/usr/bin/env bash
# Caption shards on two machines: this one is the head of a Ray cluster, which the other joins. Both have mmgen[ray] and
# see the model; only this one sees the pictures. The same again does what is missing.
#   examples/ray-two-machines.sh other-machine 'shards/*.tar' captions.jsonl
set -euo pipefail
usage='usage: ray-two-machines.sh MACHINE SHARDS FILE.jsonl'
other=${1:?$usage} shards=${2:?$usage} rows=${3:?$usage} head=$(hostname -I | cut -d' ' -f1):${RAY_PORT:-6379}
(: < "/dev/tcp/${head/:/\/}") 2> /dev/null || ray start --head --port="${head#*:}" --disable-usage-stats > /dev/null
ssh "$other" ray start --address="$head" > /dev/null
mmgen caption --quiet "$shards" --ray "$head" --item-timeout 300 --jsonl "$rows"
