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
# shellcheck source=scripts/demo.sh
. "$root/scripts/demo.sh"

demo=quickstart
web_a="${TRUST_DEMO_WEB_A:-18081}"
web_b="${TRUST_DEMO_WEB_B:-18082}"
mesh_a="${TRUST_DEMO_MESH_A:-5201}"
mesh_b="${TRUST_DEMO_MESH_B:-5202}"
deadline_s="${TRUST_DEMO_DEADLINE_S:-30}"

main() {
  parse_once "$@"
  for name in web_a web_b mesh_a mesh_b deadline_s; do
    [[ "${!name}" =~ ^[1-9][0-9]{0,4}$ ]] || die 2 "$name: wanted a number from 1 to 99999, got '${!name}'"
  done
  find_binary
  need_ports "$web_a" "$web_b" "$mesh_a" "$mesh_b"
  make_scratch

  start_nodes
  show_state
  show_preflight
  show_read
  show_config
  show_chain
  finish
}

# --- The two nodes ---------------------------------------------------------------------------------------------------

start_nodes() {
  say "1. Two runtimes on this machine, profile dev."
  copy_example runtime-a 18081 "$web_a" 5201 "$mesh_a"
  copy_example runtime-b 18082 "$web_b" 5202 "$mesh_b"
  start_node runtime-a
  start_node runtime-b
  wait_until "runtime-a serves" runtime-a is_ready runtime-a
  wait_until "runtime-b serves" runtime-b is_ready runtime-b
  echo "   runtime-a  $(base runtime-a)  mesh 127.0.0.1:$mesh_a  process ${pids[runtime-a]}"
  echo "   runtime-b  $(base runtime-b)  mesh 127.0.0.1:$mesh_b  process ${pids[runtime-b]}"
}

# The example as it stands in the repository, with the ports asked for.
copy_example() {
  local name="$1" web="$2" web_wanted="$3" mesh="$4" mesh_wanted="$5"
  mkdir -p "$scratch/$name"
  sed -e "s/127\.0\.0\.1:$web\"/127.0.0.1:$web_wanted\"/" -e "s/127\.0\.0\.1:$mesh\"/127.0.0.1:$mesh_wanted\"/" \
    "$root/examples/runtime_cloud/$name-dev.toml" >"$scratch/$name/runtime.toml"
}

base() {
  case "$1" in
  runtime-a) echo "http://127.0.0.1:$web_a" ;;
  runtime-b) echo "http://127.0.0.1:$web_b" ;;
  esac
}

# --- What is shown ---------------------------------------------------------------------------------------------------

fleet_is_seen() {
  ask --fail "$(api runtime-a)/state" | jq -e '
    ([.topology.nodes[] | select(.lifecycle_state == "online") | .runtime_id] | sort) == ["runtime-a", "runtime-b"]
    and any(.topology.edges[]; .source == "runtime-a" and .target == "runtime-b")' >/dev/null
}

show_state() {
  say "2. What runtime-a sees: both runtimes and the links between them."
  wait_until "both runtimes are online and linked" runtime-a fleet_is_seen
  get "$(api runtime-a)/state" | jq '{
    connected_via: .context.connected_via,
    nodes: [.topology.nodes[] | {runtime_id, lifecycle_state, health_state, trust_state, config_state}],
    edges: [.topology.edges[] | {source, target, channel_type, state, latency_ms_p95}]
  }'
}

show_preflight() {
  say "3. Preflight through runtime-a: may this actor read the status of runtime-b?"
  local answer
  answer="$(post runtime-a actions/preflight "$(cat "$root/examples/runtime_cloud/dispatch-status-read.json")")"
  jq '{allowed, denial_code, decisions} | del(..|nulls)' <<<"$answer"
  expect "the read is allowed and nothing is denied" '.allowed == true and (has("denial_code") | not)' "$answer"
}

show_read() {
  say "4. Dispatch it: runtime-a signs, runtime-b decides again, answers and keeps the record."
  local answer audit_id
  answer="$(post runtime-a actions/dispatch "$(cat "$root/examples/runtime_cloud/dispatch-status-read.json")")"
  jq '{ok, results: [.results[] | del(.receipt)]}' <<<"$answer"
  expect "runtime-b answered" '.ok == true and .results[0].runtime_id == "runtime-b"' "$answer"
  expect "the answer names its audit record" '.results[0].audit_id | type == "string"' "$answer"
  audit_id="$(jq -r '.results[0].audit_id // ""' <<<"$answer")"
  show_record runtime-b req-status-read-1 "$audit_id"
}

show_config() {
  say "5. Change a live setting of runtime-b from runtime-a: a write, decided at both ends."
  local body answer audit_id
  body="$(jq -n '{
    api_version: "1.0", request_id: "req-demo-cfg-1", connected_via: "runtime-a", target_runtimes: ["runtime-b"],
    actor: "spiffe://trust/default-site/engineer-1", action_type: "cfg_apply",
    payload: {params: {"log.level": "debug"}}
  }')"
  answer="$(post runtime-a actions/dispatch "$body")"
  jq '{ok, results: [.results[] | del(.receipt)]}' <<<"$answer"
  expect "the setting was applied" '.ok == true and .results[0].response.keys == ["log.level"]' "$answer"
  audit_id="$(jq -r '.results[0].audit_id // ""' <<<"$answer")"
  show_record runtime-b req-demo-cfg-1 "$audit_id"
}

# The link from an answer to the target's audit log, by the request id that the caller chose.
show_record() {
  local node="$1" request_id="$2" audit_id="$3"
  echo "   The record at $node, found by the request id $request_id:"
  record_is_there() {
    ask --fail "$(api "$node")/audit?request_id=$request_id" |
      jq -e --arg id "$audit_id" 'any(.records[]; .audit_id == $id)' >/dev/null
  }
  # The record of a read is written soon after the answer; nobody waits for it.
  wait_until "the record $audit_id is in the audit log" runtime-b record_is_there
  get "$(api "$node")/audit?request_id=$request_id" |
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

finish() {
  judge
  [ "$once" = no ] || return 0
  cat <<TEXT

Both nodes stay up until Ctrl+C. Try, in another terminal:

  curl -s $(api runtime-b)/state | jq .topology.nodes
  $trust_runtime peers list --project $scratch/runtime-a
  $trust_runtime ctl config-get --project $scratch/runtime-b
  kill -9 ${pids[runtime-b]}    # and look at the state of runtime-a again
TEXT
  # runtime-b may be killed for the sake of the experiment; the demo ends with runtime-a, or with Ctrl+C.
  wait "${pids[runtime-a]}" || true
}

main "$@"
