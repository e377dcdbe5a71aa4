#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# One shard of a campaign: task SLURM_ARRAY_TASK_ID of the array that submit.sh makes.
set -eu

plan=$1 shards=$2 out=$3
shift 3
index=${SLURM_ARRAY_TASK_ID:?shard.sh is a task of an array job; use submit.sh}
results=$out/shard-$index.jsonl
# A task that Slurm started again (a node was lost) goes on with what is there.
if [ -s "$results" ]; then
    set -- --resume "$@"
fi
exec "${FIREBREAK:-firebreak}" campaign "$plan" --shard "$index/$shards" \
    --jobs "${SLURM_CPUS_PER_TASK:-1}" --output "$results" "$@"
