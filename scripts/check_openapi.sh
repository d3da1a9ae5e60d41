#!/usr/bin/env bash
# Tries a real node against its own descriptions: Schemathesis makes requests that they allow and requests that they forbid,
# for the public listener and for the admin listener, and every answer must be one that they announce.
#
# What is not tried, and why:
#   GET /api/runtime-cloud/state/stream   never ends, and Schemathesis reads an answer to its end (tests/api/watch.rs has it)
#   POST .../control/shutdown, allowed    would end the node; it is tried by a caller who may not
#
# Environment:
#   TRUST_RUNTIME_BIN   the program [target/debug/trust-runtime]
#   CARGO_TARGET_DIR    where the tools are kept [target]
#
# Exit codes: 0 nothing was found, 1 something was, 2 a missing prerequisite.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/prerequisites.sh
. scripts/prerequisites.sh
# shellcheck source=scripts/bound.sh
. scripts/bound.sh

program="$(realpath -m "${TRUST_RUNTIME_BIN:-${CARGO_TARGET_DIR:-target}/debug/trust-runtime}")"
# The same requests each time.
readonly options=(--seed 1 --generation-database none --no-color --request-timeout 10 --wait-for-schema 10)
folder=""
node=""

main() {
  need_commands curl jq python3 setpriv || exit 2
  [ -x "$program" ] || {
    echo "missing: $program. Build it: cargo build --bin trust-runtime" >&2
    exit 2
  }
  tool="$(scripts/setup_schemathesis.sh)/bin/schemathesis"
  folder="$(mktemp -d)"
  trap finish EXIT
  play
  public
  admin
  kill -0 "$node" || {
    echo "check_openapi: the node has ended" >&2
    exit 1
  }
}

# --- The node --------------------------------------------------------------------------------------------------------

play() {
  "$program" identity init-site --ca "$folder/ca" --site default-site >/dev/null
  "$program" identity export-bundle --ca "$folder/ca" --out "$folder/bundle.json" >/dev/null
  # It holds a token.
  (umask 077 && settings >"$folder/runtime.toml")
  bound "$program" play --project "$folder" --ready-file "$folder/ready.json" >"$folder/log" 2>&1 &
  node=$!
  local tries
  for tries in $(seq 100); do
    [ ! -s "$folder/ready.json" ] || break
    kill -0 "$node" && [ "$tries" -lt 100 ] || {
      cat "$folder/log" >&2
      exit 1
    }
    sleep 0.1
  done
  web="$(jq -r .web "$folder/ready.json")"
  admin="$(jq -r .admin "$folder/ready.json")"
  master="$(token admin)"
  operator="$(token operator admin)"
  viewer="$(token viewer)"
  # The node reads a new token soon, and not at once.
  curl --silent --fail --retry 20 --retry-delay 1 --retry-all-errors --output /dev/null \
    --header "Authorization: Bearer $viewer" "$web/api/runtime-cloud/state"
}

settings() {
  cat <<TOML
[bundle]
version = 1

[resource]
name = "a"

[runtime.identity]
bundle_path = "bundle.json"

[runtime.web]
listen = "127.0.0.1:0"
auth = "token"
# It asks without a pause.
acts_per_s = 100000
reads_per_s = 100000

[runtime.control]
auth_token = "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"

[runtime.admin]
enabled = true
listen = "127.0.0.1:0"

[runtime.discovery]
enabled = false

[runtime.mesh]
listen = "127.0.0.1:0"
TOML
  agent hello hello.sh
  agent boom boom.py
  agent many many.py
}

agent() {
  printf '\n[[runtime.agent]]\nname = "%s"\nprogram = "%s"\ntimeout_ms = 60000\nwebhook = true\n' \
    "$1" "$PWD/examples/agents/$2"
}

token() {
  "$program" token create --project "$folder" --role "$1" --actor "$1-1" --audience "${2:-public}" --expires-days 1 --json | jq -r .token
}

finish() {
  local status=$?
  trap - EXIT
  if [ -n "$node" ] && kill "$node" 2>/dev/null; then
    wait "$node" || true
  fi
  [ "$status" -eq 0 ] || tail -n 40 "$folder/log" >&2 || true
  rm -rf "$folder"
  exit "$status"
}

# --- What is tried ---------------------------------------------------------------------------------------------------

public() {
  say "the public listener, with any names"
  try "$web" "$master" --max-examples 50 \
    --exclude-path /api/runtime-cloud/state/stream --exclude-path /api/runtime-cloud/control/shutdown
  say "the public listener, with an agent and a run that are there"
  try_known "$web" "$master" --max-examples 50 --include-path-regex '^/(agents|runs)/'
  say "the public listener, by a caller who may only look"
  try "$web" "$viewer" --max-examples 20 \
    --exclude-path /api/runtime-cloud/state/stream
}

admin() {
  say "the admin listener, with any names"
  try "$admin" "$operator" --max-examples 50
  say "the admin listener, with an agent and a run that are there"
  try_known "$admin" "$operator" --max-examples 50
  say "the admin listener, by a caller who may only look"
  try "$admin" "$viewer" --max-examples 10
}

say() {
  printf '\n--- %s\n' "$1"
}

try() {
  local base="$1" bearer="$2"
  shift 2
  # From a file, because the admin listener shows its description to nobody without a credential.
  describe "$base"
  (cd "$folder" && "$tool" run "$folder/openapi.json" --url "$base" --header "Authorization: Bearer $bearer" \
    "${options[@]}" "$@")
}

# The names of an agent, of an instance and of a run of theirs stand in the place of made-up ones.
try_known() {
  local base="$1" bearer="$2" run
  shift 2
  describe "$base"
  start hello '{}' >/dev/null
  # A run with events of its own, and a result that is no object.
  run="$(start many '{"n":20}')"
  printf '[parameters]\n"path.name" = "hello"\n"path.id" = "known"\n"path.runId" = "%s"\n' "$run" >"$folder/known.toml"
  (cd "$folder" && "$tool" --config-file known.toml run "$folder/openapi.json" --url "$base" \
    --header "Authorization: Bearer $bearer" "${options[@]}" "$@")
}

# Gives the run.
start() {
  curl --silent --fail --header "Authorization: Bearer $master" --header 'Content-Type: application/json' \
    --data "$2" "$web/agents/$1/known" | jq -r ._meta.runId
}

# The token of the node's owner is one of both listeners.
describe() {
  curl --silent --fail --header "Authorization: Bearer $(<"$folder/state/admin.token")" --output "$folder/openapi.json" "$1/openapi.json"
}

main "$@"
