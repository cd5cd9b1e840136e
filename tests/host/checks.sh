# shellcheck shell=bash
# checks.sh - counts checks and prints a line for each.  To be sourced by bash scripts.

passed=0 failed=0 skipped=0 stopped=

# check NAME COMMAND... - in this shell, so that it may set variables.
check()
{
    local name=$1 start=$SECONDS status=0
    shift
    # -e has no effect in COMMAND here: checks chain what must succeed.
    "$@" >/run/check.out 2>&1 || status=$?
    if ((status == 0)); then
        passed=$((passed + 1))
        echo "ok $name ($((SECONDS - start)) s)"
    else
        failed=$((failed + 1))
        echo "FAIL $name: $(tail -n 30 /run/check.out)"
    fi
    return 0
}

# The same for what everything after it needs: ends the script if it fails.
need()
{
    local before=$failed
    check "$@"
    ((failed == before)) || { stopped=1; exit 1; }
}

# finish LOG - to be run at exit: the last line, and LOG's end if anything failed.
finish()
{
    local status=$? left
    mapfile -t left < <(jobs -pr) # an agent that a failure left running would hold our output open
    ((${#left[@]} == 0)) || kill "${left[@]}" || true
    if ((failed || status)); then
        echo "--- the end of $1:"
        tail -n 60 "$1" || true
        [[ $stopped || $status == 0 ]] || failed=$((failed + 1))
        [[ ! $stopped ]] || echo "--- stopped: what follows needs what failed"
    fi
    echo "$passed passed, $failed failed, $skipped skipped"
    ((failed == 0)) || exit 1
    exit 0
}
