#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Makes one run of the shards that are there, and its report. A shard that is missing is an error.
set -eu

name=$1 shards=$2 out=$3
firebreak=${FIREBREAK:-firebreak}
set --
index=1
while [ "$index" -le "$shards" ]; do
    set -- "$@" "$out/shard-$index.jsonl"
    index=$((index + 1))
done
"$firebreak" campaign merge "$@" -o "$out/$name.jsonl"
"$firebreak" campaign report "$out/$name.jsonl" -o "$out/$name.html" --junit "$out/$name.xml"
