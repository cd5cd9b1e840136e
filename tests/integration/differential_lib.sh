# differential_lib.sh - sourced behind agent_lib.sh by the tests of differential snapshots.
#
#   snapshot VM ID [MORE_JSON [QUERY]]
#   tracked VM ID                            a full one, on which the VM stands from then on
#   since VM ID PARENT [QUERY]               what changed since PARENT
#   restore VM ID [MORE_JSON]                a new VM, of the snapshot ID
# shellcheck shell=bash

snapshot() { api POST "/v1/vms/$1/snapshot${4-?wait=20}" "$(jq -nc --arg id "$2" "{id:\$id} + ${3:-{\}}")"; }
since() { snapshot "$1" "$2" "{parent:\"$3\"}" "${4-?wait=20}"; }
tracked() { snapshot "$1" "$2" '{track_changes:true}'; }
restore() { put_vm "$1" "$(vm_spec '' "${3:-{\}}" | jq -c --arg s "$2" '.boot = {snapshot: $s}')" '?wait=20'; }
