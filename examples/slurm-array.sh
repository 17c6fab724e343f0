#!/usr/bin/env bash
#SBATCH --array=1-8 --gpus-per-task=1
# Caption shards with an array of Slurm jobs, an eighth each; the same again does what is missing.
#   sbatch examples/slurm-array.sh 'shards/*.tar' parts/ && mmgen export parts/*.jsonl -o captions.parquet
set -euo pipefail
shards=${1:?usage: slurm-array.sh SHARDS FOLDER} parts=${2:?usage: slurm-array.sh SHARDS FOLDER}
mkdir -p "$parts"
part="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
mmgen caption --quiet "$shards" --shard "$part" --jsonl "$parts/$SLURM_ARRAY_TASK_ID.jsonl"
