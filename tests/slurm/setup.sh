#!/usr/bin/env bash
# Start or stop a Slurm of one node on this machine, for the tests. Needs root and slurm-wlm.
#
#   setup.sh start FOLDER       start it unless it runs; its configuration is FOLDER/slurm.conf
#   setup.sh controller FOLDER  restart the controller alone, as an administrator would
#   setup.sh stop FOLDER        end it
#
# Everything lies in FOLDER. Clients find it with SLURM_CONF=FOLDER/slurm.conf.
set -euo pipefail

action=$1
folder=$(realpath -m "$2")
export SLURM_CONF=$folder/slurm.conf

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

configure() {
    mkdir -p "$folder/state" "$folder/spool"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_min_interval=0,bf_interval=1,batch_sched_delay=0
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=120
SlurmdTimeout=30
InactiveLimit=0
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:fake:2,gpu:other:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 DefaultTime=30 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=60 State=UP
CONF
    # Slurm wants a device file for every GPU; it hands out their numbers alone.
    printf 'Name=gpu Type=%s File=/dev/%s\n' fake null fake zero other full >"$folder/gres.conf"
}

is_up() { [ -f "$folder/$1.pid" ] && kill -0 "$(cat "$folder/$1.pid")" 2>/dev/null; }

end() {
    if is_up "$1"; then
        kill "$(cat "$folder/$1.pid")"
        for _ in $(seq 100); do is_up "$1" || break; sleep 0.1; done
    fi
}

wait_until_idle() {
    for _ in $(seq 150); do
        sinfo --noheader --format=%T 2>/dev/null | grep -qE '^(idle|mixed|allocated)' && return
        sleep 0.2
    done
    echo "the node did not come up; see $folder/slurmctld.log and $folder/slurmd.log" >&2
    exit 1
}

case $action in
start)
    [ -f "$folder/slurm.conf" ] || configure
    is_up slurmctld || slurmctld
    is_up slurmd || slurmd
    # A test may have left the node down.
    scontrol update "nodename=$(hostname -s)" state=resume 2>/dev/null || true
    wait_until_idle
    ;;
controller)
    end slurmctld
    slurmctld
    ;;
stop)
    scancel --partition=main,urgent 2>/dev/null || true
    # Processes of jobs outlive slurmd, so they end first.
    for _ in $(seq 150); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 0.1; done
    end slurmd
    end slurmctld
    ;;
*)
    echo "unknown action: $action" >&2
    exit 2
    ;;
esac
