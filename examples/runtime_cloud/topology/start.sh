#!/usr/bin/env bash
# Shows a fleet of five: a gateway, three machines and a panel, seen and worked with from any of them.
#
#   examples/runtime_cloud/topology/start.sh          shows it, then leaves the five up until Ctrl+C
#   examples/runtime_cloud/topology/start.sh --once   shows it, stops them, and fails if anything was not as expected
#
# Environment:
#   TRUST_RUNTIME_BIN        a built binary; without it the release build is made first
#   TRUST_DEMO_DEADLINE_S    how long each thing may take, in seconds [30]
#
# The ports 18091 to 18095 and 5211 to 5215 of this machine have to be free.
# Exit codes: 0 as expected, 1 something was not, 2 wrong usage or a missing prerequisite, such as a port.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../../.." && pwd)"
# shellcheck source=../../../scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=../../../scripts/demo.sh
. "$root/scripts/demo.sh"

demo=topology
deadline_s="${TRUST_DEMO_DEADLINE_S:-30}"
readonly nodes=(gateway press oven packer panel)

main() {
  parse_once "$@"
  [[ "$deadline_s" =~ ^[1-9][0-9]{0,4}$ ]] || die 2 "TRUST_DEMO_DEADLINE_S: wanted a number from 1 to 99999, got '$deadline_s'"
  need_commands python3 || exit 2
  find_binary
  need_ports {18091..18095} {5211..5215}
  make_scratch

  start_fleet
  show_fleet
  show_fan_out
  show_restart
  show_run
  show_loss
  finish
}

base() {
  case "$1" in
  gateway) echo "http://127.0.0.1:18091" ;;
  press) echo "http://127.0.0.1:18092" ;;
  oven) echo "http://127.0.0.1:18093" ;;
  packer) echo "http://127.0.0.1:18094" ;;
  panel) echo "http://127.0.0.1:18095" ;;
  esac
}

start_fleet() {
  say "1. Five runtimes on this machine, profile dev: a gateway, three machines and a panel."
  local node
  for node in "${nodes[@]}"; do
    mkdir -p "$scratch/$node"
    cp "$here/$node.toml" "$scratch/$node/runtime.toml"
    cp -R "$here/programs" "$scratch/$node/programs"
    start_node "$node"
  done
  for node in "${nodes[@]}"; do
    wait_until "$node serves" "$node" is_ready "$node"
    echo "   $node  $(base "$node")  process ${pids[$node]}"
  done
}

# Whether a node sees these runtimes online, and no others.
sees() {
  local node="$1"
  shift
  ask --fail "$(api "$node")/state" | jq -e --arg wanted "$*" '
    [.topology.nodes[] | select(.lifecycle_state == "online") | .runtime_id] | sort == ($wanted / " " | sort)' >/dev/null
}

# Whether all five are well, and the links of the panel were measured.
is_well() {
  ask --fail "$(api panel)/state" | jq -e '
    all(.topology.nodes[]; .health_state == "healthy")
    and ([.topology.edges[] | select(.source == "panel" and .latency_ms_p95 != null)] | length) == 4' >/dev/null
}

show_fleet() {
  say "2. Each of them sees all five, with their links."
  local node
  for node in "${nodes[@]}"; do
    wait_until "$node sees all five" "$node" sees "$node" "${nodes[@]}"
  done
  wait_until "all five are well" panel is_well
  get "$(api panel)/state" | jq -r '
    (.topology.nodes[] | "   \(.runtime_id)\t\(.lifecycle_state)\t\(.health_state)"),
    (.topology.edges[] | "   \(.source) -> \(.target)\t\(.state)\t\(.latency_ms_p95) ms")'
}

# An action of the engineer through the panel.
action() {
  jq -n --arg id "$1" --argjson targets "$2" --arg type "$3" --argjson payload "$4" '{
    api_version: "1.0", request_id: $id, connected_via: "panel", target_runtimes: $targets,
    actor: "spiffe://trust/default-site/engineer-1", action_type: $type, payload: $payload
  }'
}

show_fan_out() {
  say "3. The panel asks the four others how they are, in one dispatch."
  local answer
  answer="$(post panel actions/dispatch \
    "$(action req-topology-1 '["gateway", "press", "oven", "packer"]' status_read '{}')")"
  jq -r '.results[] | "   \(.runtime_id)\tok \(.ok)\t\(.audit_id)"' <<<"$answer"
  expect "all four answered" '.ok == true and (.results | length) == 4' "$answer"
}

press_runs() {
  ask --fail "$(api press)/state" | jq -e '
    any(.topology.nodes[]; .runtime_id == "press" and .workload.state == "running")' >/dev/null
}

press_pid() {
  get "$(api press)/state" | jq '.topology.nodes[] | select(.runtime_id == "press") | .workload.pid'
}

show_restart() {
  say "4. The panel restarts the program of the press."
  wait_until "the press runs its program" press press_runs
  local before answer
  before="$(press_pid)"
  answer="$(post panel actions/dispatch \
    "$(action req-topology-2 '["press"]' cmd_invoke '{"command": "restart"}')")"
  expect "the press has taken the command" '.ok == true' "$answer"
  is_another() {
    press_runs && [ "$(press_pid)" != "$before" ]
  }
  wait_until "another process presses" press is_another
  echo "   process $before was followed by $(press_pid)"
}

show_run() {
  say "5. The panel lets the oven bake; the packer follows the run by its bare id."
  local answer run
  answer="$(post panel actions/dispatch \
    "$(action req-topology-3 '["oven"]' cmd_invoke '{"command": "bake", "params": {"trays": 3}}')")"
  run="$(jq -r '.results[0].run_id // ""' <<<"$answer")"
  expect "the oven has begun a run" '.results[0].run_id | startswith("run_")' "$answer"
  get -H 'accept: application/x-ndjson' "$(base packer)/runs/$run/stream" |
    jq -r '"   \(.eventIndex)\t\(.type)\t\(.message // "")"'
  answer="$(get "$(base gateway)/runs/$run")"
  expect "the gateway knows what it brought" '.status == "completed" and .result.baked == 3' "$answer"
}

show_loss() {
  say "6. The packer is killed. All others notice, and see it again when it is back."
  kill -KILL "${pids[packer]}"
  wait "${pids[packer]}" 2>/dev/null || true
  local node
  for node in gateway press oven panel; do
    wait_until "$node misses the packer" "$node" sees "$node" gateway press oven panel
  done
  start_node packer
  for node in "${nodes[@]}"; do
    wait_until "$node sees all five again" "$node" sees "$node" "${nodes[@]}"
  done
  echo "   it was missed by all, and is seen by all"
}

finish() {
  judge
  [ "$once" = no ] || return 0
  cat <<TEXT

The five stay up until Ctrl+C. Try, in another terminal:

  curl -s $(api panel)/state | jq .topology
  curl -N $(api gateway)/state/stream    # the changes, as they come
  kill -9 ${pids[gateway]}    # the gateway: who still sees whom?
TEXT
  wait "${pids[panel]}" || true
}

main "$@"
