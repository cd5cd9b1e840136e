# agent_lib.sh - sourced by the tests that run a real agent: its directories, network namespace and uids
# are the test's own, and all of it is gone at the end.
#
#   . tests/integration/agent_lib.sh
#   lib_begin NAME BUILD                     work directory $work, namespace, clean-up at exit
#   start_agent [OPTION...]                  waits until it answers; $agent_pid
#   stop_agent [SIGNAL]                      waits; its exit status is in $agent_status
#   api METHOD PATH [BODY [CURL OPTION...]]  $status and $body (and the file $work/headers)
#   check NAME COMMAND...                    ok if the command succeeds
#   wholly                                   of each thing all is there, or nothing (tests/fault/invariant.py)
#   run_sections SECTION... -- [WANTED...]   all of it from start_agent to the last line
#
#   host_boot_id=UUID                        what agents that are started from then on take for the host's boot
#   use_agent LETTER                         which of several agents (a, b, ...) is meant from here on
#   type_line ID WORDS                       for a guest that obeys
#   forget PATH...                           deletes below /v1/, by force, and checks it
#   strike CALL:N PATH BODY                  the agent killed at a step of what a POST begins
# shellcheck shell=bash disable=SC2034  # variables are for who sources this

passed=0 failed=0 skipped=0
agent=a
agent_options=() # of run_sections
declare -A agent_pids=()
host_boot_id=''
agent_pid=0 agent_status=0 status=0 body='' found=''

lib_begin() {
    test_name=$1
    build=$(realpath "$2")
    for program in "$build/warrend" "$build/guest.elf"; do
        [ -e "$program" ] || { echo "FAIL $program is not built: run make"; exit 1; }
    done
    for tool in curl jq ip nft nsenter; do
        command -v "$tool" >/dev/null || { echo "FAIL $tool is not installed"; exit 1; }
    done
    work=$(mktemp -d "${TMPDIR:-/tmp}/warren-$test_name-XXXXXX")
    chmod 755 "$work"
    # Programs that run at once have numbers of their own: the prefix has room for 4096.
    number=$$
    until ip netns add "warren-test-$((number % 4096))"; do
        number=$((number + 1))
        ((number < $$ + 100)) || { echo "FAIL cannot make a network namespace"; exit 1; }
    done
    namespace=warren-test-$((number % 4096))
    use_agent a
    trap lib_clean_up EXIT
    trap 'exit 130' INT TERM
    in_namespace ip link set lo up
    record_curls
    mkdir "$work/import"
    cp "$build/guest.elf" "$work/import/"
}

# All that curl says and hears, for tests/contract/check.mjs.  A program in front of it, not a function:
# one in the background would be a shell, whose end is not curl's.
record_curls() {
    local records
    records=$build/recorded/$test_name
    rm -rf "$records"
    mkdir -p "$records" "$work/bin"
    printf '#!/bin/sh\nexec %s --trace "%s/$$" "$@"\n' "$(command -v curl)" "$records" >"$work/bin/curl"
    chmod 755 "$work/bin/curl"
    PATH=$work/bin:$PATH
}

# Several runs may go on at once: names and users are of this program's number and this agent.
use_agent() {
    agent=$1
    prefix=$1$(printf '%03x' $((number % 4096)))
    uid_base=$((1000000000 + number % 100000 * 10000 + ($(printf '%d' "'$agent") - 97) * 1000))
    agent_pid=${agent_pids[$agent]:-0}
}

# Not `ip netns exec`, which mounts a /sys without cgroups.
in_namespace() { nsenter --net="/run/netns/$namespace" "$@"; }

# All processes of the test's user range and prefixes: VMMs, helpers, dnsmasqs.
lib_processes() { ps -eo pid=,uid=,stat= | awk -v from="$uid_base" '$2 >= from && $2 < from + 1000 && $3 !~ /^Z/ { print $1 }'; }

lib_clean_up() {
    local pid
    for pid in "${agent_pids[@]}"; do kill -KILL "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; done
    for uid_base in "${lib_uid_bases[@]}"; do
        for pid in $(lib_processes); do kill -KILL "$pid" 2>/dev/null; done
    done
    sleep 0.1
    for directory in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        for leaf in "$directory"/[a-z]"${prefix:1}"-vms/*/ "$directory"/[a-z]"${prefix:1}"-vms/; do
            [ -d "$leaf" ] && rmdir "$leaf" 2>/dev/null
        done
    done
    ip netns del "$namespace" 2>/dev/null
    awk -v under="$work/" 'index($5, under) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r mounted; do umount -l "$mounted"; done
    rm -rf "$work"
}
lib_uid_bases=()

state_dir() { echo "$work/$agent/state"; }
run_dir() { echo "$work/$agent/run"; }
socket() { echo "$work/$agent/run/warren.sock"; }

agent_under=() # a command that ends in executing the agent
start_agent() {
    mkdir -p "$work/$agent"
    lib_uid_bases+=("$uid_base")
    local enter=(nsenter --net="/run/netns/$namespace")
    if [ -n "$host_boot_id" ]; then
        echo "$host_boot_id" >"$work/boot_id"
        # shellcheck disable=SC2016  # the inner shell's
        enter+=(unshare --mount sh -c 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"' "$work/boot_id")
    fi
    # Not in_namespace: a function in the background would be a shell whose child is warrend.
    "${enter[@]}" "${agent_under[@]}" "$build/warrend" --state-dir "$(state_dir)" --run-dir "$(run_dir)" --import-dir "$work/import" \
        --prefix "$prefix" --uid-base "$uid_base" --uid-count 1000 "$@" >>"$work/$agent/log" 2>&1 &
    agent_pid=$!
    agent_pids[$agent]=$agent_pid
    wait_for 30 agent_answers || echo "     agent: $(timeout 2 tail -3 "$work/$agent/log")"
}

agent_answers() {
    [ -S "$(socket)" ] && curl -fsS -o /dev/null --max-time 5 --unix-socket "$(socket)" http://warren/healthz 2>/dev/null
}

stop_agent() {
    agent_pid=${agent_pids[$agent]}
    kill "-${1:-TERM}" "$agent_pid" 2>/dev/null
    wait "$agent_pid" 2>/dev/null
    agent_status=$?
    unset "agent_pids[$agent]"
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local until
    until=$(awk -v now="${EPOCHREALTIME/./}" -v seconds="$1" 'BEGIN { printf "%.0f", now + seconds * 1000000 }')
    shift
    while ! "$@"; do
        ((${EPOCHREALTIME/./} < until)) || return 1
        sleep 0.02
    done
}

# as_user UID COMMAND...: in the background, as one who may use the socket, which is opened to all for that, and
# nothing else; so its curl is not recorded.
as_user() {
    chmod 666 "$(socket)"
    PATH=${PATH#"$work/bin:"} exec setpriv --reuid "$1" --clear-groups "${@:2}"
}

api() {
    local method=$1 path=$2 data=("${@:3:1}") out
    [ $# -lt 3 ] || [ -z "$3" ] && data=() || data=(-H 'Content-Type: application/json' --data-binary "$3")
    [ "$method" != PATCH ] || [ ${#data[@]} -eq 0 ] || data[1]='Content-Type: application/merge-patch+json'
    out=$(curl -sS --max-time 60 --unix-socket "$(socket)" -X "$method" -D "$work/headers" -w '\n%{http_code}' \
        "${data[@]}" "${@:4}" "http://warren$path" 2>&1)
    status=${out##*$'\n'}
    body=${out%$'\n'*}
}

# field FILTER: of the last body, raw.
field() { jq -r "$1" <<<"$body" 2>/dev/null; }

ok() { passed=$((passed + 1)); echo "ok   $1"; }
fail() { failed=$((failed + 1)); echo "FAIL $1: ${2:-}"; }
skip() { skipped=$((skipped + 1)); echo "skip $1: $2"; }
check() {
    local name=$1
    shift
    found=
    if "$@"; then ok "$name"; else fail "$name" "$* (last answer: $status ${body:0:600}${found:+; found: $found})"; fi
}

is() { [ "$1" = "$2" ]; }
matches() { [[ $1 =~ $2 ]]; }
# Has the agent, or that program, been built with AddressSanitizer or ThreadSanitizer?
is_sanitized() { grep -qaE '__[at]san_init' "$build/${1:-warrend}"; }

# status_is STATUS [FILTER VALUE]...: of the last answer.  One jq for all of them, for what it costs is its start.
status_is() {
    local filters='' values=()
    [ "$status" = "$1" ] || return 1
    shift
    while [ $# -ge 2 ]; do
        filters+="${filters:+,}([$1 | if type == \"string\" then . else tojson end] | join(\"\n\"))"
        values+=("$2")
        shift 2
    done
    [ -z "$filters" ] || [ "$(jq "[$filters] == \$ARGS.positional" --args -- "${values[@]}" <<<"$body" 2>/dev/null)" = true ]
}

# vm_spec COMMAND_LINE [MORE_JSON]: a VM of the test guest.
vm_spec() {
    jq -nc --arg cmdline "$1" --argjson more "${2:-{\}}" \
        '{vcpus:1,memory_mib:8,boot:{kernel:"guest",cmdline:$cmdline}} * $more'
}

wait_vm() { api GET "/v1/vms/$1/wait?for=$2&timeout=${3:-20}"; }
console() { api GET "/v1/vms/$1/console?tail=65536"; }
console_has() { console "$1" && [[ $body =~ $2 ]]; }
# told_since REVISION FILTER VALUE: of networks one event since then, of a change; a status is seen before its event is kept.
told_since() {
    api GET "/v1/events?kind=network&after=$1" '' -H 'Accept: application/json'
    status_is 200 '.items | length' 1 '.items[0].type' changed "${@:2}"
}
# Again while nothing is taken: the VM is held for a moment, or what is done could not be traced.
type_line() { wait_for 20 types "$1" "$2"; }
types() {
    local code
    code=$(curl -sS -o /dev/null -w '%{http_code}' --max-time 20 --unix-socket "$(socket)" -X POST -H 'Content-Type: text/plain' \
        --data-binary "$2"$'\n' "http://warren/v1/vms/$1/console/input")
    [ "$code" != 409 ] && [ "$code" != 507 ]
}
vm_is() { api GET "/v1/vms/$1" && status_is 200 .status.state "$2"; }
ready_is() { api GET "/v1/$1" && status_is 200 .status.state ready; }
state_of() { api GET "/v1/$1" && status_is 200 .status.state "$2"; }
finds() { api GET /v1/node && status_is 200 "[.findings[] | select(.name == \"$1\" and .problem)] | length" "${2:-1}"; }
log_counts() { is "$(grep -c "$1" "$work/$agent/log")" "$2"; }
vm_pid() { api GET "/v1/vms/$1" && field .status.pid; }
is_gone() { api GET "/v1/$1" && status_is 404; }
disk_of() { echo "{\"disks\":[{\"name\":\"root\",\"volume\":\"$1\"}]}"; }
# Of a metric, with its labels as they are printed.
metric() { curl -s --unix-socket "$(socket)" http://warren/metrics | sed -n "s/^$1 //p"; }
metric_is() { found=$(metric "$1") && [ "$found" = "$2" ]; }
# Without the rings, of two fds each, that an agent makes for disks of later VMs whenever it has the time.
fds() { find "/proc/$1/fd" -mindepth 1 -printf '%l\n' | awk '/io_uring/ { rings++ } END { print NR - 2 * rings }'; }
# Of all its rings together; as many of them as its disks and a few more.
ring_completions() {
    local pid fd total=0
    pid=$(vm_pid "$1")
    for fd in /proc/"$pid"/fd/*; do
        [[ $(readlink "$fd") == *io_uring* ]] || continue
        total=$((total + $(awk '/^CqTail:/ { tail = $2 } END { print tail + 0 }' "/proc/$pid/fdinfo/${fd##*/}")))
    done
    echo "$total"
}

# All threads of a process are traced.
traced() { ! grep -L '^TracerPid:.*[1-9]' "/proc/$1"/task/*/status 2>/dev/null | grep -q .; }
thread_of() { grep -lx "$1" /proc/"$agent_pid"/task/*/comm | head -1 | cut -d/ -f5; }
thread_traced() { grep -q '^TracerPid:.*[1-9]' "/proc/$agent_pid/task/$1/status"; }
# inject_calls TID CALLS WHAT: into these calls of that thread of the agent, as strace takes it, until end_injection;
# sets $tracer.
inject_calls() {
    strace -qq -o /dev/null -e "trace=$2" -e "inject=$2:$3" -p "$1" 2>/dev/null &
    tracer=$!
    wait_for 20 thread_traced "$1"
}
end_injection() {
    kill "$tracer"
    wait "$tracer" 2>/dev/null
}
# hold_copies [US]: no copy between files goes on before end_injection, or each piece takes so long; sets $tracer.
hold_copies() {
    strace -f -qq -o /dev/null -e trace=copy_file_range -e inject=copy_file_range:delay_enter="${1:-600000000}" -p "$agent_pid" 2>/dev/null &
    tracer=$!
    wait_for 20 traced "$agent_pid"
}
# can_delay_copies NAME: else it is skipped.
can_delay_copies() {
    command -v strace >/dev/null && ! cp --reflink=always "$work/import/guest.elf" "$work/import/reflink" 2>/dev/null && return
    skip "$1" "needs strace, and a file system without reflinks"
    return 1
}

# An agent whose allocations can fail: one of its first thread, told by `arm` (tests/tools/fail_malloc.c).
# can_fail_malloc NAME: else it failed, or is skipped.
can_fail_malloc() {
    if ! make -s BUILD="$build" "$build/tests/fail_malloc.so" >&2; then
        fail "$1" "the preloaded library cannot be built"
        return 1
    fi
    if is_sanitized; then
        skip "$1" "the sanitizer has malloc"
        return 1
    fi
}
start_short() {
    head -c 4 /dev/zero >"$work/fail"
    LD_PRELOAD=$build/tests/fail_malloc.so FAIL_MALLOC=$work/fail start_agent "$@"
}
# arm N: the agent's Nth allocation from now on fails; 0 = none.
arm() {
    # shellcheck disable=SC2059  # the format is the bytes
    printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8)))" | dd of="$work/fail" conv=notrunc status=none
}
armed() { od -An -tu4 "$work/fail" | tr -d ' '; }

# strike CALL:N PATH BODY: the agent is killed when it makes CALL for the Nth time after POST PATH BODY, and another
# is started.  $answered: curl's status, 0 if there was an answer first ($work/answer); $struck: the steps that were met;
# $meanwhile: a command that is run while there is none.
strike() {
    local step=$1 pid=${agent_pids[$agent]} tracer
    strace -f -qq -o /dev/null -e "trace=${step%:*}" -e "inject=${step%:*}:signal=KILL:when=${step#*:}" -p "$pid" 2>/dev/null &
    tracer=$!
    wait_for 5 traced "$pid"
    curl -sS -o "$work/answer" --max-time 3 --unix-socket "$(socket)" -X POST -H 'Content-Type: application/json' \
        --data-binary "$3" "http://warren$2" 2>/dev/null
    answered=$?
    [ "$answered" = 0 ] || wait_for 0.2 test ! -e "/proc/$pid"
    [ -e "/proc/$pid" ] || struck="$struck $step"
    stop_agent KILL 2>/dev/null
    kill "$tracer" 2>/dev/null
    wait "$tracer" 2>/dev/null
    $meanwhile
    start_agent
}
answered=0 struck='' meanwhile=''

# What of this agent is still there though everything was deleted, one line each.
leftovers() {
    local lines directory
    in_namespace ip -o link | grep -o " $prefix-[0-9a-z-]*" | sed 's/^ /interface /'
    in_namespace nft list ruleset 2>/dev/null | grep -E "\"$prefix-[0-9a-f]+-[0-9]\" \." | sed 's/^/nft element /'
    lib_processes | while read -r pid; do
        case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in
        warren-api* | '') ;;
        *) echo "process $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c1-60)" ;;
        esac
    done
    for directory in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        [ -d "$directory/$prefix-vms" ] && find "$directory/$prefix-vms" -mindepth 1 -type d | sed 's/^/cgroup /'
    done
    lines=$(find "$(run_dir)/vms" "$(run_dir)/net" -mindepth 1 ! -name ip_forward ! -name 'sysctl*' 2>/dev/null)
    [ -z "$lines" ] || echo "$lines"
    find "$(state_dir)/images" "$(state_dir)/volumes" "$(state_dir)/snapshots" -mindepth 1 2>/dev/null
    grep " $work/$agent/" /proc/self/mountinfo | sed 's/^/mount /'
}
no_leftovers() {
    found=$(leftovers)
    [ -z "$found" ]
}
# Of the two places only one is there, so ls itself fails whatever it finds.
no_cgroup_left() {
    found=$(ls -d /sys/fs/cgroup{,/unified}/"$prefix-vms" 2>/dev/null)
    [ -z "$found" ]
}

lib_end() {
    check "without a word of sanitizers or crashes" eval "! grep -sE 'Sanitizer|runtime error|signal 11' $work/*/log"
    [ "$failed" -eq 0 ] || for log in "$work"/*/log; do echo "---- $log"; tail -n "${LOG_LINES:-30}" "$log"; done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}

put_vm() { api PUT "/v1/vms/$1${3:-}" "$2"; }
delete_vm() { api DELETE "/v1/vms/$1?force=true&wait=20"; }
forget() { for path in "$@"; do api DELETE "/v1/$path?force=true&wait=20"; check "DELETE $path" status_is 200; done; }
# header NAME: of the last answer.
header() { sed -n "s/^$1: //Ip" "$work/headers" | tr -d '\r'; }
answers_ping() { in_namespace ping -c1 -W"${2:-2}" -q "$1" >"$work/ping"; } # ADDRESS [SECONDS]
snapshot_files() { find "$(state_dir)/snapshots" -mindepth 1; }
# Of a guest with `tick`, which may be in the midst of one.
tick_numbers() { console "$1" && grep -o '^tick [0-9]*$' <<<"${body}cut" | cut -d' ' -f2; }
first_tick() { tick_numbers "$1" | head -n 1; }
last_tick() { tick_numbers "$1" | tail -n 1; }
# is_direct PID: a volume that it has open goes past the page cache.
is_direct() {
    local fd
    for fd in "/proc/$1/fd"/*; do
        [[ $(readlink "$fd") == */volumes/* ]] && (((8#$(sed -n 's/^flags:\t//p' "/proc/$1/fdinfo/${fd##*/}") & 8#40000) != 0)) && return
    done
    return 1
}
# generations_differ ID...: each was told of its generation id by an interrupt but the first, which began with its own.
generation_of() { console "$1" && grep -o 'generation 0x[0-9a-f]* 0x[0-9a-f]*' <<<"$body" | tail -n 1; }
generations_differ() {
    local id ids=$#
    for id in "${@:2}"; do console_has "$id" 'generation event interrupts [1-9]' || return; done
    [ "$(for id in "$@"; do generation_of "$id"; done | grep -v ' 0x0 0x0$' | sort -u | wc -l)" = "$ids" ]
}
ticks_beyond() { local now; now=$(last_tick "$1"); [ "${now:-0}" -gt "$2" ]; }
has_ticked() { [ -n "$(last_tick "$1")" ]; }
# Where it is; one that was just started, or restored, has not said it yet.
tick_of() { wait_for 10 has_ticked "$1" && last_tick "$1"; }
ticks_on() { wait_for 10 ticks_beyond "$1" "$(tick_of "$1")"; }
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

with_network='{"nics":[{"name":"eth0","network":"net"}]}'
with_all='{"disks":[{"name":"root","volume":"vol"}],"nics":[{"name":"eth0","network":"net"}]}'

# The kernel image, a network and a volume that all sections use.
set_up() {
    api PUT '/v1/images/guest?wait=20' "{\"kind\":\"kernel\",\"source\":\"$work/import/guest.elf\"}"
    check "image is imported" status_is 201 .status.state ready .status.kernel_format elf
    api PUT '/v1/networks/net?wait=20' '{"cidr":"10.91.0.0/24","mode":"isolated"}'
    check "network comes up" status_is 201 .status.state ready .status.gateway 10.91.0.1
    api PUT '/v1/volumes/vol?wait=20' '{"size_mib":4}'
    check "volume is made" status_is 201 .status.state ready
}

dnsmasqs() { for pid in $(lib_processes); do cat "/proc/$pid/comm" 2>/dev/null; done | grep -c '^dnsmasq'; }

# Invariant I: each thing wholly there or wholly absent; else a line for each that is not in $wholly_says.
wholly() {
    wholly_says=$(tests/fault/invariant.py --state-dir "$(state_dir)" --run-dir "$(run_dir)" --prefix "$prefix" \
        --uid-base "$uid_base" --uid-count 1000 --netns "$namespace" --agent-pid "${agent_pids[$agent]:-0}" 2>&1)
    local result=$?
    found=$wholly_says
    return $result
}
wholly_says=

# run_sections SECTION... -- [WANTED...] - the whole of a test program: its sections, or those wanted.
run_sections() {
    local sections=() section begin_ms
    while [ "$1" != -- ]; do sections+=("$1"); shift; done
    shift
    [ $# -eq 0 ] || sections=("$@")
    start_agent "${agent_options[@]}"
    set_up
    for section in "${sections[@]}"; do
        echo "---- $section"
        begin_ms=$(now_ms)
        "section_$section"
        echo "     $section: $(($(now_ms) - begin_ms)) ms"
    done
    echo "---- the end"
    for path in volumes/vol networks/net images/guest; do
        api DELETE "/v1/$path?wait=20"
        check "DELETE $path" status_is 200
    done
    check "nothing is left of it" wait_for 20 no_leftovers
    stop_agent TERM
    check "the agent ends with 0" [ "$agent_status" = 0 ]
    check "and its cgroup with it" no_cgroup_left
    lib_end
}
