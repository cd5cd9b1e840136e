# shellcheck shell=bash
# counts.sh - adds up `N passed, N failed, N skipped` lines.  To be sourced by bash scripts.

passed=0 failed=0 skipped=0

# count_in FILE STATUS - adds the last such line of FILE, the output of a program that ended with
# STATUS.  A program that failed and counted no failure, or nothing at all, counts as one.
count_in()
{
    local line
    line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$1" | tail -n 1) || line=
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
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
