# fork_lib.sh - sourced behind agent_lib.sh by the tests of forks.
#
#   fork_vm ID IDS [QUERY]                   IDS: "a","b"
#   disk_of VOLUME                           more of a vm_spec: memory that can be forked, and that disk
#   does ID WORDS                            a guest that obeys runs them; true if all went well
#   says_again ID PATTERN N                  it has printed more than N such lines
#   agent_keeps_none                         of VMs that are gone the agent has nothing open
# shellcheck shell=bash disable=SC2034,SC2154  # variables are for who sources this, or its

shared='{"memory_mib":16,"memory_backing":"shared"}'
fork_vm() { local vm=$1 ids=$2; api POST "/v1/vms/$vm/fork${3:-}" "{\"ids\":[$ids]}"; }
restart_agent_hard() {
    stop_agent KILL
    start_agent
}

disk_of() { jq -c --arg volume "$1" '. + {disks:[{name:"root",volume:$volume}]}' <<<"$shared"; }
lines_of() { console "$1" && grep -c "$2" <<<"$body"; }
says_again() { [ "$(lines_of "$1" "$2")" -gt "$3" ]; }
# does VM WORDS: the words, and a flush, by which it is known that they are done.
does() {
    local before
    before=$(lines_of "$1" 'flush ok')
    type_line "$1" "$2 blk:flush"
    wait_for 10 says_again "$1" 'flush ok' "$before" && ! console_has "$1" 'bad|ioerr|unknown|usage'
}
agent_keeps_none() {
    found=$(readlink "/proc/$agent_pid/fd/"* | grep -E 'memfd:(guest-memory|fork-state)|/volumes/.|net/tun|vhost-net')
    [ -z "$found" ]
}
fork_snapshots() { api GET /v1/snapshots && field '[.items[] | select(.spec.mode == "fork")] | length'; }
volume_ids() { api GET '/v1/volumes?limit=1000' && field '[.items[].id] | join(" ")'; }
