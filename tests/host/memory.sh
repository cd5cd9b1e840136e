# shellcheck shell=bash
# memory.sh - a node whose VMs were promised twice the memory that the host has for them: what
# tests/host/overcommit and tests/host/pressure look at.  To be sourced after deploy/lib.sh and checks.sh, with
# guests, the VMs that are to come to no harm, and import_dir set.

: "${project:?}" "${run_dir:?}" "${import_dir:?}" "${guests:?}"
# 3 guests of 512 MiB and a liar of 128 on 840: twice that, with what their VMMs need.
# shellcheck disable=SC2034  # size_mib is for who sources it
size_mib=512 host_mib=840
units=/sys/fs/cgroup/system.slice vms=/sys/fs/cgroup/warren-vms.service
figures=()

# figure NAME VALUE UNIT MOST - printed in the end.
figure()
{
    figures+=("$1 $2 $3 <=$4 $(awk -v value="$2" -v most="$4" 'BEGIN { print value <= most ? "ok" : "short" }')")
}

tell_figures()
{
    sed 's/^/# /' /run/levels || true
    ((${#figures[@]} == 0)) || printf '# %s\n' "${figures[@]}"
}

# disk_swap_is_there SIZE
disk_swap_is_there() { fallocate -l "$1" /var/swap && chmod 600 /var/swap && mkswap /var/swap && swapon -p 1 /var/swap; }
# Both kinds: what zram does not take goes to the disk.
swap_is_there()
{
    modprobe zram && echo 512M >/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon -p 10 /dev/zram0 &&
        disk_swap_is_there 1G
}

# By its units, as the package has it.
agent_starts()
{
    local file
    mkdir -p /usr/libexec/warren /etc/warren /etc/systemd/system/system.slice.d
    ln -s "$project/build/warrend" /usr/sbin/
    for file in build/warren-{api,fetch,vmm} deploy/systemd/warren-vms-holder; do ln -s "$project/$file" /usr/libexec/warren/; done
    cp "$project"/deploy/systemd/*.service /etc/systemd/system/
    cp "$project/deploy/systemd/system.slice.conf" /etc/systemd/system/system.slice.d/warren.conf
    systemd-sysusers "$project/deploy/systemd/warren.sysusers"
    printf '%s\n' "import-dir = $import_dir" "memory-ratio-percent = 200" \
        "memory-reserve-mib = $(($(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo) - host_mib))" >/etc/warren/warrend.conf
    systemctl daemon-reload && systemctl start warrend && wait_until 20 api GET /readyz
}

memory() { api GET /v1/node/memory | jq -r "$1"; }
of_vm() { memory ".vms[] | select(.id == \"$1\") | .$2"; }
# A VM's control group, by the VMM's process, and a file of it.
group_of() { echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(vm_get "$1" .status.pid)/cgroup")"; }
cgroup_of() { cat "$(group_of "$1")/$2"; }

promised_twice()
{
    memory '"\(.promised_mib) of \(.capacity_mib)"'
    [[ $(memory '.promised_mib >= 2 * .capacity_mib') == true ]]
}

# The kernel's word for it, as far as it is worth: the slice passes it on.
agent_is_protected()
{
    local least=$((64 << 20))
    grep -H . $units/{,warrend.service/}memory.{min,current}
    (($(<$units/memory.min) >= least && $(<$units/warrend.service/memory.min) >= least)) &&
        [[ $(<"/proc/$(systemctl show -P MainPID warrend)/oom_score_adj") == -900 ]]
}

# After all of it.
agent_was_protected()
{
    grep -H . $units/warrend.service/memory.{current,swap.current,events}
    (($(<$units/warrend.service/memory.swap.current) == 0)) && [[ $(systemctl show -P NRestarts warrend) == 0 ]]
}

liar_image() { api PUT '/v1/images/liar?wait=300' "{\"kind\":\"kernel\",\"source\":\"$import_dir/guest.elf\"}"; }
# lies HOW - a guest that says so, uses all of its memory all the time, and all that it gave away again.
lies()
{
    api PUT '/v1/vms/liar?wait=60' "{\"memory_mib\":128,\"memory_min_mib\":16,\"priority\":1,
        \"boot\":{\"kernel\":\"liar\",\"cmdline\":\"balloon:lie:120:$1\"}}" && wait_until 120 has_lied
}
has_lied() { [[ $(vm_console liar) == *"balloon lies"* ]]; }

other_lie()
{
    api DELETE '/v1/vms/liar?force=true&wait=60' && lies full && sleep 20 && memory tojson
    [[ $(vm_get liar .status.state) == running ]]
}

# So long, in us, all that is in the VM's control group waited for memory.
waited_us() { cgroup_of "$1" memory.pressure | sed -n 's/^full .*total=//p'; }
# figure_waited BEFORE VM
figure_waited() { figure "$2_waited" "$(awk -v us=$(($(waited_us "$2") - $1)) 'BEGIN { print us / 1e6 }')" s 2; }

# Every 3 s; what a guest can use, and is held to, is at least what it was guaranteed.
sample()
{
    while sleep 3; do memory 'tojson' || true; done >/run/samples 2>/dev/null
}
all_had_their_minimum()
{
    jq -c '.vms[] | select(.id != "liar") | select(.max_mib - .balloon_mib < .min_mib or (.high_mib > 0 and .high_mib < .min_mib) or .paused)' \
        /run/samples >/run/below
    wc -l /run/samples
    head -n 3 /run/below
    [[ -s /run/samples && ! -s /run/below ]]
}

# Of what a VM has filled of its guarantee the kernel took no more than it has itself for the VM, 13 MiB of one of 512
# as seen; and the group above passes on what is kept of each, though systemd takes that away when it is reloaded.
is_passed_on() { (($(<$vms/memory.low) == $(cat $vms/[0-9]*/memory.low | paste -sd+))); }
kept_their_guarantee()
{
    systemctl daemon-reload
    grep -H . $vms/{,[0-9]*/}memory.low
    jq -c '.vms[] | select(.resident_mib + 16 < .low_mib)' /run/samples >/run/below
    head -n 3 /run/below
    [[ ! -s /run/below ]] && wait_until 5 is_passed_on && (($(<$vms/memory.low) > 480 << 20))
}

# Whatever was said and done: nobody was killed, by no kernel and not by us.
nobody_was_harmed()
{
    local name
    for name in "${guests[@]}"; do
        [[ $(vm_get "$name" .status.state) == running && $(vm_get "$name" .status.restarts) == 0 ]] || { vm_get "$name" .status; return 1; }
    done
    ! dmesg | grep -iE "out of memory|oom-kill" && [[ $(memory '.actions.kill') == 0 ]]
}

# Told that it is about to run out while it has a third, the host climbs its rungs; before it comes to pauses that
# is taken back.
is_held() { grep -Hv max $vms/[0-9]*/memory.high; }
nobody_is_held() { ! is_held; }
are_held_to_their_share()
{
    local held
    api PATCH /v1/node '{"memory":{"thresholds":{"soft":{"enter_permille":480,"leave_permille":490},
        "hard":{"enter_permille":460,"leave_permille":470},"low":{"enter_permille":440,"leave_permille":450}}}}' >/dev/null || return
    wait_until 60 is_held || true
    held=$(is_held) || true
    api PATCH /v1/node '{"memory":{"thresholds":null}}' >/dev/null || return
    memory tojson
    grep -H '^high' $vms/[0-9]*/memory.events
    echo "held: $held"
    [[ $held ]] && grep -q '^high [1-9]' $vms/[0-9]*/memory.events && wait_until 60 nobody_is_held
}

# shows_in_metrics RUNG
shows_in_metrics()
{
    curl -sS --unix-socket "$run_dir/warren.sock" http://warren/metrics | grep -E '^warren_memory_(level|actions|pressure)' | tee /run/metrics
    grep -qE "rung=\"$1\"} [1-9]" /run/metrics
}

# Between ticks, because the kernel told that tasks wait for memory.
pressure_woke_the_balancer() { grep -E '^warren_memory_pressure_wakeups_total [1-9]' /run/metrics || { cat /proc/pressure/memory; return 1; }; }

# The longest that the host was low, beside the deadlines of all rungs (scheduler/balancer.c: 3 + 3 + 2 + 2 + 1 s); by the
# agent's log, which tells of a better level at once, where events wait 10 s.
levels_were_told()
{
    journalctl -u warrend -o short-unix | sed -nE "s/^([0-9.]+) .*the host's memory is ([a-z]+) .*: ([0-9]+ of [0-9]+ MiB).*/\1 \2 \3/p" >/run/levels
    figure low_level "$(awk 'was == "low" && $1 - at > most { most = $1 - at } { was = $2; at = $1 } END { print most + 0 }' /run/levels)" s 11
    curl -sS --unix-socket "$run_dir/warren.sock" -H 'Accept: application/json' 'http://warren/v1/events?kind=node&after=0&limit=1000' |
        jq -r '.items[] | .state' | grep '^memory-'
}

delete_all()
{
    local name
    for name in "${guests[@]}" liar; do api DELETE "/v1/vms/$name?force=true&wait=60" || return; done
}
