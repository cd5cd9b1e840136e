# api_lib.sh - requests and what must be answered, for integration tests of the API that source it after agent_lib.sh.
# shellcheck shell=bash disable=SC2034,SC2154  # variables are for who sources it, or of agent_lib.sh

# judge NAME WHY COMMAND...: the command's success is the test's.
judge() {
    local name=$1 why=$2
    shift 2
    if "$@"; then ok "$name"; else fail "$name" "$why"; fi
}
brief() { printf '%s' "${1:0:90}"; }

# ask METHOD PATH [BODY] [CURL-ARGUMENT...]: sets $status, $body and the files $work/body and headers.
ask() {
    local method=$1 path=$2 content=${3-}
    shift 2
    [ $# -gt 0 ] && shift
    if [ "$method" = HEAD ]; then set -- --head "$@"; else set -- -X "$method" "$@"; fi
    if [ "$content" != "" ]; then
        set -- --data-binary "$content" "$@"
        [[ "$*" =~ [Cc]ontent-[Tt]ype: ]] || set -- -H 'content-type: application/json' "$@"
    fi
    : >"$work/body"
    : >"$work/headers"
    status=$(curl -s -m 60 --unix-socket "$(socket)" -D "$work/headers" -w '%{http_code}' "$@" \
        -o "$work/body" "http://w$path")
    body=$(tr -d '\0' <"$work/body")
}

# want STATUS METHOD PATH [BODY] [CURL-ARGUMENT...]
want() {
    local wanted=$1 name
    shift
    name=$(brief "$1 $2 ${3-}")
    ask "$@"
    judge "$name: $wanted" "got $status: $(brief "$body")" [ "$status" = "$wanted" ]
}

# want_json FILTER: the last body, by jq -e.
want_json() {
    if jq -e "$1" <<<"$body" >/dev/null 2>&1; then ok "$(brief "$1")"; else fail "$(brief "$1")" "in $body"; fi
}

# want_problem STATUS TYPE FIELD METHOD PATH [BODY] [CURL-ARGUMENT...]; FIELD "" = any.
want_problem() {
    local wanted=$1 type=$2 field=$3 name
    shift 3
    name=$(brief "$1 $2 ${3-}")
    ask "$@"
    if [ "$status" != "$wanted" ]; then
        fail "$name: $wanted" "got $status: $(brief "$body")"
    elif [ "$(header content-type)" != application/problem+json ]; then
        fail "$name: a problem document" "is $(header content-type)"
    elif ! jq -e --arg type "urn:warren:problem:$type" --arg field "$field" --argjson status "$wanted" \
        '.type == $type and .status == $status and (.title | length > 0) and (.detail | length > 0)
         and ($field == "" or .field == $field)' <<<"$body" >/dev/null; then
        fail "$name: $type, $field" "got $body"
    else
        ok "$name: $wanted $type $field"
    fi
}
