# shellcheck shell=bash
# counts.sh - runs programs and adds up their `N passed, N failed, N skipped` lines.  To be sourced by bash scripts.

passed=0 failed=0 skipped=0
count_line='^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$'

# count_in FILE STATUS - adds the last such line of FILE, the output of a program that ended with
# STATUS.  A program that failed and counted no failure, or nothing at all, counts as one.
count_in()
{
    local line
    line=$(grep -aE "$count_line" "$1" | tail -n 1) || line=
    if [[ $line =~ $count_line ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
        [[ $2 == 0 || ${BASH_REMATCH[2]} != 0 ]] || failed=$((failed + 1))
    else
        failed=$((failed + 1))
    fi
}

counts()
{
    echo "$passed passed, $failed failed, $skipped skipped"
}

# run_all JOBS LOGS NAME... - calls `run_program NAME`, which ends in such a line, for each, JOBS of them at once, and
# adds up what they count.  Of several, each one's output comes when it has ended; LOGS is where it is until then.
run_all()
{
    local jobs=$1 logs=$2 name
    local -A running=() # names, by process
    for name in "${@:3}"; do
        ((${#running[@]} < jobs)) || await_one
        if ((jobs == 1)); then
            { run_program "$name" 2>&1 | tee "$logs/$name.shown" | grep --line-buffered -avE "$count_line"; } &
        else
            run_program "$name" >"$logs/$name.shown" 2>&1 &
        fi
        running[$!]=$name
    done
    while ((${#running[@]})); do await_one; done
}

# await_one - the next of run_all's `running` to end.
await_one()
{
    local pid status=0
    wait -n -p pid || status=$?
    local shown=$logs/${running[$pid]}.shown
    unset "running[$pid]"
    ((jobs == 1)) || grep -avE "$count_line" "$shown" || true
    count_in "$shown" "$status"
    rm -f "$shown"
}
