#!/usr/bin/env bash
# An operator's check of a running CargoFlow, from the outside: needs bash and curl, nothing else.
set -uo pipefail
export LC_ALL=C

usage() {
  cat <<'TEXT'
Usage: ./health_check.sh [BASE_URL] [--replicas N] [--json] [--help]

Checks a running CargoFlow through its balancer (default http://localhost:8080):
liveness, every dependency, each replica, metrics, the cache, and how errors look.

  --replicas N   expect exactly N replicas (default: at least 2)
  --json         print {"ok":bool,"checks":[{"name","ok","detail"}]} instead of lines
  --help         show this

Exit status: 0 all checks pass, 1 one does not, 2 wrong usage.
NO_COLOR=1 turns colours off; so does output that is not a terminal.

Example: ./health_check.sh http://localhost:9090 --replicas 4
TEXT
}

refuse() {
  printf 'health_check.sh: %s\n' "$1" >&2
  exit 2
}

base_url=http://localhost:8080
expected_replicas=
as_json=false
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --json) as_json=true ;;
    --replicas)
      [ $# -ge 2 ] || refuse '--replicas needs a number'
      expected_replicas=$2
      shift
      ;;
    --replicas=*) expected_replicas=${1#*=} ;;
    http://* | https://*) base_url=${1%/} ;;
    *) refuse "what is '$1'? Try --help" ;;
  esac
  shift
done
if [ -n "$expected_replicas" ]; then
  case $expected_replicas in
    0* | *[!0-9]* | ????*) refuse "--replicas takes a number from 1 to 999, not '$expected_replicas'" ;;
  esac
fi
command -v curl >/dev/null 2>&1 || refuse 'curl is not installed'

green='' red='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  green=$'\033[32m' red=$'\033[31m' dim=$'\033[2m' plain=$'\033[0m'
fi

failed=0
json_checks=''

json_string() {
  printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'
}

# report NAME true|false DETAIL: one line, or one element of the JSON.
report() {
  local name=$1 ok=$2 detail=$3
  $ok || failed=$((failed + 1))
  if $as_json; then
    json_checks+="${json_checks:+,}{\"name\":\"$(json_string "$name")\",\"ok\":$ok,\"detail\":\"$(json_string "$detail")\"}"
  elif $ok; then
    printf '%s✓%s %-20s %s%s%s\n' "$green" "$plain" "$name" "$dim" "$detail" "$plain"
  else
    printf '%s✗%s %-20s %s\n' "$red" "$plain" "$name" "$detail"
  fi
}

# fetch PATH [CURL ARGUMENTS]: sets $status (000 if no whole answer came), $body and $problem (why none came).
fetch() {
  local path=$1 answer
  shift
  if answer=$(curl --silent --show-error --globoff --connect-timeout 3 --max-time 5 --write-out '\n%{http_code}' "$@" "$base_url$path" 2>&1); then
    status=${answer##*$'\n'} body=${answer%$'\n'*} problem=''
  else
    status=000 body='' problem=$(printf '%s\n' "$answer" | grep '^curl: ' | head -n 1)
  fi
}

# compact JSON: one line, no blanks around the colons that follow a name.
compact() {
  tr -d '\r\n' | sed -E 's/"[[:space:]]*:[[:space:]]*/":/g'
}

said() {
  if [ -n "$problem" ]; then printf '%s' "$problem"; else printf 'HTTP %s: %s' "$status" "$(printf '%s' "$body" | tr -d '\r\n' | cut -c 1-160)"; fi
}

check_liveness() {
  fetch /health
  if [ "$status" = 200 ]; then report liveness true 'HTTP 200'; else report liveness false "$(said)"; fi
}

check_readiness() {
  local text overall name state age
  fetch /ready
  text=$(printf '%s' "$body" | compact)
  # Without the outermost braces and all that stands in inner ones, the only status left is the overall one.
  overall=$(printf '%s' "$text" | sed -E -e 's/^[^{]*\{//' -e 's/\}[^}]*$//' -e ':inner' -e 's/\{[^{}]*\}//' -e 't inner' |
    grep -oE '"status":"[a-z]+"' | head -n 1 | cut -d '"' -f 4)
  if [ "$status" = 200 ] && [ "$overall" = pass ]; then report readiness true pass; else report readiness false "$(said)"; fi

  local found=false check
  while IFS= read -r check; do
    [ -n "$check" ] || continue
    found=true
    name=$(printf '%s' "$check" | cut -d '"' -f 2)
    state=$(printf '%s' "$check" | grep -oE '"status":"[a-z]+"' | head -n 1 | cut -d '"' -f 4)
    age=$(printf '%s' "$check" | grep -oE '"age_ms":[0-9]+' | head -n 1 | cut -d : -f 2)
    if [ "$state" = pass ]; then
      report "ready: $name" true "pass${age:+, seen $age ms ago}"
    else
      report "ready: $name" false "${state:-no status}: $check"
    fi
  done <<LIST
$(printf '%s' "$text" | grep -oE '"[A-Za-z0-9_.-]+":\{[^{}]*"status":"[^{}]*')
LIST
  $found || report 'ready: dependencies' false "/ready names none ($(said))"
}

check_replicas() {
  local requests=30 names count list
  [ -z "$expected_replicas" ] || requests=$((expected_replicas * 10 + 10))
  names=$(curl --silent --fail-early --connect-timeout 3 --max-time 5 --dump-header - --output /dev/null "$base_url/health?probe=[1-$requests]" 2>/dev/null |
    tr -d '\r' | grep -i '^x-replica:' | sed 's/^[^:]*:[[:space:]]*//' | sort -u)
  count=$(printf '%s' "$names" | grep -c .)
  list=$(printf '%s' "$names" | tr '\n' ' ' | sed 's/ $//; s/ /, /g')
  if [ -n "$expected_replicas" ]; then
    if [ "$count" -eq "$expected_replicas" ]; then report replicas true "$count seen: $list"; else report replicas false "$count seen, $expected_replicas expected: ${list:-none}"; fi
  elif [ "$count" -ge 2 ]; then
    report replicas true "$count seen: $list"
  else
    report replicas false "$count seen, at least 2 expected: ${list:-none}"
  fi
}

check_metrics() {
  local count
  fetch /metrics
  count=$(printf '%s\n' "$body" | grep -cE '^cargoflow_')
  if [ "$status" = 200 ] && [ "$count" -gt 0 ]; then
    report metrics true "$count cargoflow_ samples"
  elif [ "$status" = 200 ]; then
    report metrics false 'no cargoflow_ metric among them'
  else
    report metrics false "$(said)"
  fi
}

check_cache() {
  local text
  fetch /cache-stats
  text=$(printf '%s' "$body" | compact)
  if [ "$status" = 200 ] && [[ $text =~ ^[[:space:]]*\{.*\}[[:space:]]*$ ]]; then
    report cache true "$(printf '%s' "$text" | cut -c 1-100)"
  else
    report cache false "$(said)"
  fi
}

check_errors() {
  local id="health-check-$$-$RANDOM" text
  fetch /api/v1/there-is-no-such-path --include --header "X-Request-ID: $id"
  text=$(printf '%s' "$body" | tr -d '\r')
  if [ "$status" != 404 ]; then
    report errors false "an unknown path should be 404: $(said)"
  elif ! printf '%s' "$text" | grep -qiE '^content-type: *application/problem\+json'; then
    report errors false 'an unknown path is not answered as application/problem+json'
  elif ! printf '%s' "$text" | compact | grep -q "\"request_id\":\"$id\""; then
    report errors false 'the problem does not carry the request id'
  else
    report errors true 'problem+json with the request id'
  fi
}

$as_json || printf 'CargoFlow at %s\n' "$base_url"
check_liveness
check_readiness
check_replicas
check_metrics
check_cache
check_errors

if $as_json; then
  if [ "$failed" -eq 0 ]; then ok=true; else ok=false; fi
  printf '{"ok":%s,"checks":[%s]}\n' "$ok" "$json_checks"
elif [ "$failed" -eq 0 ]; then
  printf '%sAll checks pass.%s\n' "$green" "$plain"
else
  printf '%s%s failed.%s\n' "$red" "$failed" "$plain"
fi
[ "$failed" -eq 0 ]
