# shellcheck shell=bash
# lib.sh - what deploy/demo-steps and tests/host/e2e do with an agent and its guests.  To be
# sourced by bash scripts with `set -euo pipefail`.  Set first: project (this checkout), state_dir,
# run_dir, import_dir.

: "${project:?}" "${state_dir=}" "${run_dir=}" "${import_dir=}"
agent_pid=

# Is there KVM with hardware behind it?  (A /dev/kvm without it does not run a distribution's kernel.)
kvm_is_hardware()
{
    [[ -w /dev/kvm ]] && grep -qwE 'vmx|svm' /proc/cpuinfo
}

# api METHOD PATH [BODY] - prints the answer's body; where the answer is an error, to stderr, and the
# status is not 0.
api()
{
    local method=$1 path=$2 body=${3-} answer
    local request=(--silent --show-error --fail-with-body --max-time 600 --request "$method"
                   --unix-socket "$run_dir/warren.sock" "http://warren$path")
    [[ ! $body ]] || request+=(--header 'Content-Type: application/json' --data-binary "$body")
    answer=$(curl "${request[@]}" 2>&1) || { echo "$method $path: $answer" >&2; return 1; }
    [[ ! $answer ]] || printf '%s\n' "$answer"
}

# agent_start LOG [OPTION...] - returns when it is ready; its log is appended to LOG.
agent_start()
{
    local log=$1
    mkdir -p "$state_dir" "$run_dir"
    "$project/build/warrend" --state-dir "$state_dir" --run-dir "$run_dir" \
        --import-dir "$import_dir" "${@:2}" >>"$log" 2>&1 </dev/null &
    agent_pid=$!
    for _ in {1..100}; do
        api GET /readyz >/dev/null 2>&1 && return
        kill -0 "$agent_pid" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 20 "$log" >&2
    echo "the agent did not get ready" >&2
    return 1
}

# Ends the agent with SIGNAL; returns when it is gone.  VMs go on.
agent_stop()
{
    [[ $agent_pid ]] || return 0
    kill -s "$1" "$agent_pid" 2>/dev/null || true
    wait "$agent_pid" 2>/dev/null || true
    agent_pid=
}

# vm_get VM FILTER - one value of a VM by its jq filter.
vm_get()
{
    api GET "/v1/vms/$1" | jq -r "$2"
}

# The last 64 KiB of a VM's console, without the control characters that terminals obey.
vm_console()
{
    api GET "/v1/vms/$1/console?tail=65536" | tr -d '\r\000' | sed 's/\x1b\[[0-9;?]*[a-zA-Z]//g'
}

# wait_until SECONDS COMMAND... - until COMMAND succeeds; its output counts for nothing.
wait_until()
{
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.5
    done
}

# import_debian CALL - the kernel, initrd and root disk of deploy/build-guest-disk in import_dir, as
# the images debian-kernel, debian-initrd and debian.  CALL is api, or what shows its work.
import_debian()
{
    local path='/v1/images/debian' source="\"source\":\"$import_dir"
    "$1" PUT "$path-kernel?wait=120" "{\"kind\":\"kernel\",$source/vmlinuz\"}" &&
        "$1" PUT "$path-initrd?wait=120" "{\"kind\":\"initrd\",$source/initrd.img\"}" &&
        "$1" PUT "$path?wait=300" "{\"kind\":\"disk\",$source/root.raw\",\"format\":\"raw\"}"
}
