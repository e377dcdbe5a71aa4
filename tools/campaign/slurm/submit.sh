#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs a campaign as an array job of Slurm, and makes one report of it. See docs/slurm.md.
set -eu

if [ $# -lt 3 ]; then
    echo "usage: submit.sh PLAN.toml SHARDS DIRECTORY [options of firebreak campaign]" >&2
    exit 2
fi
plan=$1 shards=$2 out=$3
shift 3
case $shards in
'' | 0* | *[!0-9]*)
    echo "submit.sh: \"$shards\" is no number of shards; write 1 or more" >&2
    exit 2
    ;;
esac
if [ ! -r "$plan" ]; then
    echo "submit.sh: $plan cannot be read; name a plan, as seen from this directory" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
name=$(basename "$plan" .toml)

# Slurm copies a script away before it runs it, so each is told where everything is.
array=$(sbatch --parsable --job-name="$name" --array="1-$shards" --output="$out/shard-%a.log" \
    "$here/shard.sh" "$plan" "$shards" "$out" "$@")
array=${array%%;*}
# A shard with an unexpected case fails, and has results: whatever became of them, they are merged.
merge=$(sbatch --parsable --job-name="$name-merge" --dependency="afterany:$array" \
    --output="$out/merge.log" "$here/merge.sh" "$name" "$shards" "$out")
echo "shards: job $array, merge: job ${merge%%;*}; results: $out/$name.jsonl, $out/$name.html"
