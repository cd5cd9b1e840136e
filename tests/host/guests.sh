# shellcheck shell=bash
# guests.sh - Debian guests as tests see them.  To be sourced after deploy/lib.sh, with address
# declared: declare -A address=().

# guest VM SCRIPT - runs SCRIPT as root in the guest, over its network; its output, its exit status.
guest()
{
    local output
    output=$(curl -sS --fail --max-time "${guest_timeout:-30}" --data-binary "$2" \
        "http://${address[$1]}:8080/cgi-bin/run") || return
    [[ $output == *"exit "* ]] || { echo "no answer: $output"; return 1; }
    [[ ! ${output%exit *} ]] || printf '%s' "${output%exit *}"
    return "${output##*exit }"
}

# Which boot of the guest this is.
boot_id()
{
    guest_timeout=5 guest "$1" 'cat /proc/sys/kernel/random/boot_id'
}

login_shown()
{
    [[ $(vm_console "$1") == *"login:"* ]]
}

has_address()
{
    address[$1]=$(vm_get "$1" '.status.nics[0].ipv4') && [[ ${address[$1]} == *.*.*.* ]]
}

vm_is()
{
    local state
    state=$(vm_get "$1" .status.state)
    [[ $state == "$2" ]] || { echo "state is $state, not $2"; return 1; }
}

boots_to_login() { wait_until "${boot_timeout:-450}" login_shown "$1" || { vm_console "$1" | tail -n 30; return 1; }; }
gets_address() { wait_until "${address_timeout:-60}" has_address "$1" && wait_until "${address_timeout:-60}" boot_id "$1"; }
