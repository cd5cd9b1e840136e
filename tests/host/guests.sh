# shellcheck shell=bash
# guests.sh - Debian guests as tests see them.  To be sourced after deploy/lib.sh, with address
# declared: declare -A address=().

: "${project:?}" "${run_dir:?}"

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

boot_is_new()
{
    local now
    now=$(boot_id "$1") && [[ $now != "$2" ]]
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

# Once the guest's end listens, which was started in the background.
vsock_comes_back()
{
    [[ $("$project/tests/tools/vsock_peer.py" connect "$run_dir/warren.sock" "$1" 7 200000) == "ok 200000" ]]
}

# Debian's own driver, from a guest whose only tool for it is perl: 40 is AF_VSOCK, and an address is a
# struct sockaddr_vm.  Again for the same guest: what listens there still does.
vsock_echoes_both_ways()
{
    local peer=$project/tests/tools/vsock_peer.py echo
    rm -f "$run_dir/vsock/echo.sock"
    "$peer" echo "$run_dir/vsock/echo.sock" &>/run/vsock-echo.log &
    echo=$!
    wait_until 60 test -S "$run_dir/vsock/echo.sock" &&
        guest "$1" 'ls /sys/bus/virtio/drivers/vmw_vsock_virtio_transport/virtio*/features' >/dev/null &&
        guest "$1" "perl -e '
            socket(S, 40, 1, 0) && connect(S, pack(\"SSLLx4\", 40, 0, 5000, 2)) or die \"connect: \$!\";
            my \$sent = join(\"\", map { chr(\$_ * 7 % 251) } 1 .. 200000);
            if (!fork) { print S \$sent; close(S); exit }
            my \$got = \"\"; my \$part;
            while (length(\$got) < 200000 && sysread(S, \$part, 65536)) { \$got .= \$part }
            die \"got \" . length(\$got) if \$got ne \$sent' 2>&1" &&
        guest "$1" "setsid perl -e '
            socket(S, 40, 1, 0) && bind(S, pack(\"SSLLx4\", 40, 0, 7, 0xffffffff)) && listen(S, 4) or die;
            while (accept(C, S)) { while (sysread(C, my \$part, 65536)) { syswrite(C, \$part) } close(C) }' \
            >/dev/null 2>&1 </dev/null &" &&
        wait_until 60 vsock_comes_back "$1" &&
        [[ $("$peer" connect "$run_dir/warren.sock" "$1" 8) == *guest-refused* ]]
    local result=$?
    kill $echo
    return $result
}
