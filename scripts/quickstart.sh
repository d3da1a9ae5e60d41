#!/usr/bin/env bash
# Shows the main job from a fresh clone: two runtimes find each other, and the first one asks, acts and audits.
#
#   scripts/quickstart.sh          shows it, then leaves both nodes up until Ctrl+C
#   scripts/quickstart.sh --once   shows it, stops both nodes, and fails if anything was not as expected
#
# Environment:
#   TRUST_RUNTIME_BIN                           a built binary; without it the release build is made first
#   TRUST_DEMO_WEB_A, TRUST_DEMO_WEB_B          HTTP ports of the two nodes [18081, 18082]
#   TRUST_DEMO_MESH_A, TRUST_DEMO_MESH_B        mesh ports of the two nodes [5201, 5202]
#   TRUST_DEMO_DEADLINE_S                       how long each thing may take, in seconds [30]
#
# Exit codes: 0 as expected, 1 something was not, 2 wrong usage or a missing prerequisite.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"

web_a="${TRUST_DEMO_WEB_A:-18081}"
web_b="${TRUST_DEMO_WEB_B:-18082}"
mesh_a="${TRUST_DEMO_MESH_A:-5201}"
mesh_b="${TRUST_DEMO_MESH_B:-5202}"
deadline_s="${TRUST_DEMO_DEADLINE_S:-30}"

once=no
scratch=""
pid_a=""
pid_b=""
failures=0

usage() {
  sed -n '2,15p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
}

main() {
  parse "$@"
  for name in web_a web_b mesh_a mesh_b deadline_s; do
    [[ "${!name}" =~ ^[1-9][0-9]{0,4}$ ]] || die 2 "$name: wanted a number from 1 to 99999, got '${!name}'"
  done
  find_binary
  trap 'exit 130' INT
  trap 'exit 143' HUP TERM
  trap clean_up EXIT
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/trust-runtime-demo.XXXXXX")"

  start_nodes
  show_state
  show_preflight
  show_read
  show_config
  show_chain
  finish
}

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --once) once=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      die 2 "unknown argument: $1"
      ;;
    esac
    shift
  done
}

find_binary() {
  if [ -n "${TRUST_RUNTIME_BIN:-}" ]; then
    need_commands curl jq || exit 2
    [ -x "$TRUST_RUNTIME_BIN" ] || die 2 "TRUST_RUNTIME_BIN: $TRUST_RUNTIME_BIN is not an executable file"
    trust_runtime="$(cd "$(dirname "$TRUST_RUNTIME_BIN")" && pwd)/$(basename "$TRUST_RUNTIME_BIN")"
    return
  fi
  need_commands cargo curl jq || exit 2
  say "Building the release binary. The first time this takes some minutes."
  (cd "$root" && cargo build --release --locked --bin trust-runtime) || die 1 "the build failed"
  trust_runtime="$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")/release/trust-runtime"
  [ -x "$trust_runtime" ] || die 1 "the build left no $trust_runtime"
}

# --- The two nodes ---------------------------------------------------------------------------------------------------

start_nodes() {
  say "1. Two runtimes on this machine, profile dev."
  copy_example runtime-a 18081 "$web_a" 5201 "$mesh_a"
  copy_example runtime-b 18082 "$web_b" 5202 "$mesh_b"
  start_node runtime-a
  pid_a=$!
  start_node runtime-b
  pid_b=$!
  wait_until "runtime-a serves" "$pid_a" runtime-a is_ready a
  wait_until "runtime-b serves" "$pid_b" runtime-b is_ready b
  echo "   runtime-a  $(base a)  mesh 127.0.0.1:$mesh_a  process $pid_a"
  echo "   runtime-b  $(base b)  mesh 127.0.0.1:$mesh_b  process $pid_b"
}

# The example as it stands in the repository, with the ports asked for.
copy_example() {
  local name="$1" web="$2" web_wanted="$3" mesh="$4" mesh_wanted="$5"
  mkdir -p "$scratch/$name"
  sed -e "s/127\.0\.0\.1:$web\"/127.0.0.1:$web_wanted\"/" -e "s/127\.0\.0\.1:$mesh\"/127.0.0.1:$mesh_wanted\"/" \
    "$root/examples/runtime_cloud/$name-dev.toml" >"$scratch/$name/runtime.toml"
}

# In a process group of its own, so that Ctrl+C reaches this script alone, which then stops the nodes in order.
start_node() {
  set -m
  "$trust_runtime" play --project "$scratch/$1" >"$scratch/$1.log" 2>&1 </dev/null &
  set +m
}

# The node itself writes its ready file, so that no other program on the same port is taken for it.
is_ready() {
  [ -f "$scratch/runtime-$1/state/ready.json" ] && curl -sf -o /dev/null "$(base "$1")/readyz"
}

base() {
  case "$1" in
  a) echo "http://127.0.0.1:$web_a" ;;
  b) echo "http://127.0.0.1:$web_b" ;;
  esac
}

api() {
  echo "$(base "$1")/api/runtime-cloud"
}

# Waits for a condition, not for a time: ends early when the node has died, and late with the node's own words.
wait_until() {
  local what="$1" pid="$2" log="$3"
  shift 3
  local end=$((SECONDS + deadline_s))
  until "$@"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      sed 's/^/   | /' "$scratch/$log.log" >&2
      die 1 "$log ended before: $what"
    fi
    if [ "$SECONDS" -ge "$end" ]; then
      sed 's/^/   | /' "$scratch/$log.log" >&2
      die 1 "not within $deadline_s s: $what"
    fi
    sleep 0.1
  done
}

# --- What is shown ---------------------------------------------------------------------------------------------------

fleet_is_seen() {
  curl -sf "$(api a)/state" | jq -e '
    ([.topology.nodes[] | select(.lifecycle_state == "online") | .runtime_id] | sort) == ["runtime-a", "runtime-b"]
    and any(.topology.edges[]; .source == "runtime-a" and .target == "runtime-b")' >/dev/null
}

show_state() {
  say "2. What runtime-a sees: both runtimes and the links between them."
  wait_until "both runtimes are online and linked" "$pid_a" runtime-a fleet_is_seen
  curl -sf "$(api a)/state" | jq '{
    connected_via: .context.connected_via,
    nodes: [.topology.nodes[] | {runtime_id, lifecycle_state, health_state, trust_state, config_state}],
    edges: [.topology.edges[] | {source, target, channel_type, state, latency_ms_p95}]
  }'
}

show_preflight() {
  say "3. Preflight through runtime-a: may this actor read the status of runtime-b?"
  local answer
  answer="$(post a actions/preflight "$(cat "$root/examples/runtime_cloud/dispatch-status-read.json")")"
  jq '{allowed, denial_code, decisions} | del(..|nulls)' <<<"$answer"
  expect "the read is allowed and nothing is denied" '.allowed == true and (has("denial_code") | not)' "$answer"
}

show_read() {
  say "4. Dispatch it: runtime-a signs, runtime-b decides again, answers and keeps the record."
  local answer audit_id
  answer="$(post a actions/dispatch "$(cat "$root/examples/runtime_cloud/dispatch-status-read.json")")"
  jq '{ok, results: [.results[] | del(.receipt)]}' <<<"$answer"
  expect "runtime-b answered" '.ok == true and .results[0].runtime_id == "runtime-b"' "$answer"
  expect "the answer names its audit record" '.results[0].audit_id | type == "string"' "$answer"
  audit_id="$(jq -r '.results[0].audit_id // ""' <<<"$answer")"
  show_record b req-status-read-1 "$audit_id"
}

show_config() {
  say "5. Change a live setting of runtime-b from runtime-a: a write, decided at both ends."
  local body answer audit_id
  body="$(jq -n '{
    api_version: "1.0", request_id: "req-demo-cfg-1", connected_via: "runtime-a", target_runtimes: ["runtime-b"],
    actor: "spiffe://trust/default-site/engineer-1", action_type: "cfg_apply",
    payload: {params: {"log.level": "debug"}}
  }')"
  answer="$(post a actions/dispatch "$body")"
  jq '{ok, results: [.results[] | del(.receipt)]}' <<<"$answer"
  expect "the setting was applied" '.ok == true and .results[0].response.keys == ["log.level"]' "$answer"
  audit_id="$(jq -r '.results[0].audit_id // ""' <<<"$answer")"
  show_record b req-demo-cfg-1 "$audit_id"
}

# The link from an answer to the target's audit log, by the request id that the caller chose.
show_record() {
  local node="$1" request_id="$2" audit_id="$3"
  echo "   The record at runtime-$node, found by the request id $request_id:"
  record_is_there() {
    curl -sf "$(api "$node")/audit?request_id=$request_id" |
      jq -e --arg id "$audit_id" 'any(.records[]; .audit_id == $id)' >/dev/null
  }
  # The record of a read is written soon after the answer; nobody waits for it.
  wait_until "the record $audit_id is in the audit log" "$pid_b" runtime-b record_is_there
  curl -sf "$(api "$node")/audit?request_id=$request_id" |
    jq --arg id "$audit_id" '.records[] | select(.audit_id == $id)
      | {audit_id, chain, seq, actor, origin, action, target, outcome, hash}'
}

show_chain() {
  say "6. The audit chains of runtime-b, checked from its files alone."
  if "$trust_runtime" audit verify --project "$scratch/runtime-b"; then
    echo "   as expected: both chains are whole"
  else
    failed "the audit chains of runtime-b do not verify"
  fi
}

# --- Small parts -----------------------------------------------------------------------------------------------------

post() {
  curl -sS -X POST "$(api "$1")/$2" -H 'content-type: application/json' -d "$3"
}

expect() {
  local what="$1" condition="$2" answer="$3"
  if jq -e "$condition" >/dev/null 2>&1 <<<"$answer"; then
    echo "   as expected: $what"
  else
    failed "$what"
  fi
}

failed() {
  failures=$((failures + 1))
  echo "   NOT AS EXPECTED: $1" >&2
}

say() {
  printf '\n%s\n' "$1"
}

die() {
  echo "quickstart: $2" >&2
  exit "$1"
}

finish() {
  if [ "$failures" -gt 0 ]; then
    die 1 "$failures expectations were not met"
  fi
  say "All of it was as expected."
  [ "$once" = no ] || return 0
  cat <<TEXT

Both nodes stay up until Ctrl+C. Try, in another terminal:

  curl -s $(api b)/state | jq .topology.nodes
  $trust_runtime peers list --project $scratch/runtime-a
  $trust_runtime ctl config-get --project $scratch/runtime-b
  kill -9 $pid_b    # and look at the state of runtime-a again
TEXT
  # runtime-b may be killed for the sake of the experiment; the demo ends with runtime-a, or with Ctrl+C.
  wait "$pid_a" || true
}

# Ends only what this script started, by process id, and removes the scratch folder.
clean_up() {
  local status=$?
  trap - EXIT
  trap '' HUP INT TERM
  local pid
  for pid in "$pid_a" "$pid_b"; do
    [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "$pid_a" "$pid_b"; do
    [ -z "$pid" ] || wait_for_end "$pid"
  done
  if [ "$status" -ne 0 ] && [ "$status" -ne 130 ] && [ "$status" -ne 143 ]; then
    [ -z "$scratch" ] || echo "quickstart: the nodes' logs and folders are kept in $scratch" >&2
  elif [ -n "$scratch" ]; then
    rm -rf -- "$scratch"
  fi
  # Ctrl+C is how the demo is meant to end.
  [ "$status" -ne 130 ] || [ "$once" = yes ] || status=0
  exit "$status"
}

# A node stops within five seconds; one that does not is killed.
wait_for_end() {
  local end=$((SECONDS + 10))
  while kill -0 "$1" 2>/dev/null; do
    if [ "$SECONDS" -ge "$end" ]; then
      kill -KILL "$1" 2>/dev/null || true
      break
    fi
    sleep 0.1
  done
  wait "$1" 2>/dev/null || true
}

main "$@"
