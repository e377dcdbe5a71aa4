#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Runs a plan on this machine alone, then as shards by a Slurm that is started for it here, and fails
# if the two runs differ in anything but times. Needs root, and Debian's slurm-wlm and munge.
set -eu

if [ $# -lt 3 ]; then
    echo "usage: one-machine.sh PLAN.toml SHARDS DIRECTORY [options of firebreak campaign]" >&2
    exit 2
fi
plan=$1 shards=$2 out=$3
shift 3
for program in slurmctld slurmd sbatch munged; do
    command -v "$program" >/dev/null || {
        echo "one-machine.sh: no $program here; apt-get install slurm-wlm munge" >&2
        exit 2
    }
done
here=$(cd "$(dirname "$0")" && pwd)
firebreak=${FIREBREAK:-firebreak}
mkdir -p "$out"
out=$(cd "$out" && pwd)
# Sockets have short names, and munge wants directories that only it can write.
slurm=$(mktemp -d /tmp/firebreak-slurm.XXXXXX)
mkdir "$slurm/state" "$slurm/spool"
host=$(hostname -s)
cpus=$(nproc)

dd if=/dev/urandom of="$slurm/key" bs=1024 count=1 2>/dev/null
chmod 600 "$slurm/key"
cat >"$slurm/slurm.conf" <<CONF
ClusterName=firebreak
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$slurm/munge
CredType=cred/munge
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/spool
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/slurmd.pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$slurm/slurm.conf"

started=
leave() {
    for pid in $started; do
        kill "$pid" 2>/dev/null || true
    done
    rm -rf "$slurm"
}
trap leave EXIT
munged --foreground --force --socket="$slurm/munge" --key-file="$slurm/key" \
    --pid-file="$slurm/munge.pid" --log-file="$slurm/munge.log" --seed-file="$slurm/seed" &
started=$!
slurmctld -D -f "$SLURM_CONF" >/dev/null 2>&1 &
started="$started $!"
slurmd -D -f "$SLURM_CONF" -N "$host" >/dev/null 2>&1 &
started="$started $!"

turns=0
until sinfo --noheader --format=%T 2>/dev/null | grep -q idle; do
    turns=$((turns + 1))
    if [ $turns -gt 120 ]; then
        echo "one-machine.sh: Slurm does not get ready; its logs:" >&2
        tail -n 20 "$slurm"/*.log >&2
        exit 1
    fi
    sleep 1
done

"$here/submit.sh" "$plan" "$shards" "$out/slurm" "$@"
while [ -n "$(squeue --noheader)" ]; do
    sleep 1
done
name=$(basename "$plan" .toml)
[ -s "$out/slurm/$name.html" ] || {
    tail -n 20 "$out"/slurm/*.log >&2
    exit 1
}

"$firebreak" campaign "$plan" --output "$out/alone.jsonl" "$@" || [ $? -eq 1 ]
"$firebreak" campaign merge "$out/alone.jsonl" -o "$out/one.jsonl"
"$firebreak" campaign compare "$out/one.jsonl" "$out/slurm/$name.jsonl" -o "$out/compare.html"
