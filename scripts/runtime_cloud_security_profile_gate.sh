#!/usr/bin/env bash
# Shows on real nodes what the security profiles promise, one verdict a line: a plant of two nodes, and the routers of two sites
# in profile wan, each with an authority of its own. All links are inside TLS.
#
#   scripts/runtime_cloud_security_profile_gate.sh              every line
#   scripts/runtime_cloud_security_profile_gate.sh --only ban   this line, may be repeated; the others are shown as left out
#
# Environment:
#   TRUST_RUNTIME_BIN     a built binary; without it the release build is made first
#   TRUST_GATE_DEADLINE_S how long each thing may take, in seconds [30]
#
# Exit codes: 0 every line passed, 1 a line failed, 2 wrong usage, a missing prerequisite, or a node that did not start.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"

deadline_s="${TRUST_GATE_DEADLINE_S:-30}"
scratch=""
pids=()
passed=0
failed=0
left_out=0
only=()

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"; }

main() {
  parse "$@"
  need_commands curl jq python3 || exit 2
  find_binary
  trap clean_up EXIT
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/trust-runtime-gate.XXXXXX")"
  cd "$scratch"

  for site in north south evil; do
    "$bin" identity init-site --ca "ca-$site" --site "$site" >/dev/null
    "$bin" identity issue --ca "ca-$site" --actor alice --out "alice-$site" >/dev/null
  done
  node plant north a ""
  node plant north b "$(mesh_of north-a)"
  node wan north g "" south 'listen = "127.0.0.1:0"'
  node wan south s "" north "connect = [\"$(jq -r '.mesh[1]' north-g/ready.json)\"]"

  line preconditions "a profile without its preconditions does not start, and says what is missing" unmet_preconditions
  line plant-links "nodes of a plant link inside TLS and trust each other" until_true peer_is north-a b trusted online
  line mesh-strangers "a mesh listener in plant speaks to nobody without a certificate" strangers_do_not_link
  line router-without-tls "a router without TLS links with no other site, and says so" partner_wants_tls
  line partner-address "a partner's address lets in the partner's nodes, and nobody of the own site" partner_alone_is_let_in
  line site-links "the routers of two sites link inside TLS and trust each other by the anchors of each site" until_true peer_is north-g south/s trusted online
  line old-tls "the listener speaks TLS 1.3 and nothing older" old_tls_is_refused
  line anonymous "nobody is let in without a credential" anonymous_is_refused
  line certificate "a certificate names its actor, and the grant says what that one may" certificate_is_granted
  line foreign-certificate "a certificate of another authority does not get through the handshake" foreign_certificate_is_refused
  line token "a token opens what its role allows until it is revoked" token_lives_and_dies
  line token-elsewhere "a token of one site opens nothing at the other" token_is_local
  line read-crosses "a read crosses sites" until_true crosses status_read '{}' ok
  line write-denied "a write between sites is denied by default" crosses_ping permission_denied origin
  append north-g '[[runtime.cloud.wan.allow_write]]' 'action = "cmd_invoke/ping"' 'target = "south/s"'
  line write-at-origin "allowed at the origin alone it is denied by the target" until_true crosses_ping permission_denied target
  append south-s '[[runtime.cloud.wan.accept_write]]' 'action = "cmd_invoke/ping"' 'actor = "north/alice"'
  line write-at-both "exact rules at both ends allow it" until_true crosses_ping ok target
  line explain "the rules explain themselves offline" rules_explain
  restore south-s
  line rule-taken-back "a rule that is taken back counts on the running node" until_true crosses_ping permission_denied target
  line bad-file "a bad file changes nothing and is named" bad_file_changes_nothing
  "$bin" identity ban --ca ca-north --id spiffe://trust/north/alice --reason gate >/dev/null
  line ban "a ban shuts an actor out of running nodes" until_true banned
  line alive "every node is still there" all_are_there
  line audit "the audit log verifies on every node" audit_verifies
  line audit-edited "an edited audit log is found out, and where" edited_audit_is_found
  finish
}

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --only)
      known_lines | grep -qxF -- "${2:-}" || refuse "no such line: '${2:-}'. There are: $(known_lines | paste -sd' ')"
      only+=("$2")
      shift
      ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown argument: $1" ;;
    esac
    shift
  done
}

refuse() {
  usage >&2
  echo "security gate: $1" >&2
  exit 2
}

known_lines() { sed -nE 's/^  line ([a-z-]+) ".*/\1/p' "${BASH_SOURCE[0]}"; }

# --- Nodes -----------------------------------------------------------------------------------------------------------

find_binary() {
  bin="${TRUST_RUNTIME_BIN:-}"
  if [ -z "$bin" ]; then
    need_commands cargo || exit 2
    (cd "$root" && cargo build --release --locked --quiet) || { echo "gate: the build failed" >&2; exit 2; }
    bin="$root/target/release/trust-runtime"
  fi
  bin="$(realpath "$bin")"
}

# Writes the settings of a node with a certificate, starts it and waits until it serves.
node() {
  local profile="$1" site="$2" name="$3" folder="$2-$3"
  "$bin" identity issue --ca "ca-$site" --node "$site/$name" --ip 127.0.0.1 --out "$folder/tls" >/dev/null
  (umask 077 && settings "$@" >"$folder/runtime.toml")
  "$bin" play --project "$folder" --ready-file "$folder/ready.json" >"$folder/log" 2>&1 &
  pids+=("$!")
  until_true test -s "$folder/ready.json" || { cat "$folder/log" >&2; exit 2; }
  cp "$folder/runtime.toml" "$folder/runtime.toml.first"
}

settings() {
  local profile="$1" site="$2" name="$3" dials="$4" partner="${5:-}" way="${6:-}"
  cat <<TOML
[bundle]
version = 1
[resource]
name = "$name"
[runtime.identity]
site = "$site"
source = "files"
svid_path = "tls/node-$name.pem"
key_path = "tls/node-$name.key"
bans_path = "$scratch/ca-$site/bans.txt"
anchors = [
  { site = "north", path = "$scratch/ca-north/anchors-north.pem" },
  { site = "south", path = "$scratch/ca-south/anchors-south.pem" },
]
[[runtime.identity.grant]]
actor = "$site/alice"
role = "operator"
[runtime.control]
auth_token = "$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
[runtime.web]
listen = "127.0.0.1:0"
auth = "token"
tls = true
[runtime.tls]
mode = "self-managed"
[runtime.discovery]
enabled = false
[runtime.mesh]
listen = "127.0.0.1:0"
connect = [${dials:+"\"$dials\""}]
tls = true
TOML
  [ -z "$partner" ] || cat <<TOML
role = "router"
plugin_versions = { trust-runtime = "0.1.0" }
[[runtime.mesh.partner]]
site = "$partner"
$way
TOML
  printf '[runtime.cloud]\nprofile = "%s"\n' "$profile"
}

web_of() { jq -r .web "$1/ready.json"; }
mesh_of() { jq -r '.mesh[0]' "$1/ready.json"; }

# Adds lines to a node's settings; restore takes everything back that was added to that node.
append() {
  local folder="$1"
  shift
  printf '%s\n' "" "$@" >>"$folder/runtime.toml"
}

restore() { cp "$1/runtime.toml.first" "$1/runtime.toml"; }

# curl with the anchors of the node's site. Gives the HTTP status.
status() {
  local folder="$1" path="$2"
  shift 2
  curl --silent --max-time 10 --cacert "ca-${folder%%-*}/anchors-${folder%%-*}.pem" --output answer.json \
    --write-out '%{http_code}' "$@" "$(web_of "$folder")$path"
}

# Whether a node hangs up on a caller in the handshake, and is there for others: with TLS 1.3 a client learns of it when it sends
# or reads. A node that has died, or only says nothing, has refused nobody.
hangs_up() {
  local folder="$1" code=0
  shift
  status "$folder" /livez "$@" >/dev/null || code=$?
  case "$code" in
  35 | 55 | 56) opens "$folder" "$(<"$folder/state/admin.token")" 200 ;;
  *) return 1 ;;
  esac
}

alice() { printf '%s\n' --cert alice-north/actor-alice.pem --key alice-north/actor-alice.key; }

# --- Lines -----------------------------------------------------------------------------------------------------------

unmet_preconditions() {
  mkdir -p bare
  printf '[bundle]\nversion = 1\n[runtime.cloud]\nprofile = "plant"\n' >bare/runtime.toml
  local code=0
  "$bin" play --project bare >bare/log 2>&1 || code=$?
  [ "$code" -eq 3 ] && grep -q runtime.web.tls bare/log && grep -q runtime.identity.source bare/log
}

partner_wants_tls() {
  sed 's/^tls = true$/tls = false/' north-g/runtime.toml >north-g/plain.toml
  mkdir -p plain && mv north-g/plain.toml plain/runtime.toml
  ! "$bin" validate --project plain >plain/log 2>&1 && grep -q 'wanted runtime.mesh.tls = true' plain/log
}

# Who is let in is waited for; who is not is hung up on.
partner_alone_is_let_in() {
  local address
  address="$(jq -r '.mesh[1]' north-g/ready.json)"
  waits_for "$address" south-s/tls/node-s || return 1
  local code=0
  waits_for "$address" north-b/tls/node-b || code=$?
  [ "$code" -eq 3 ]
}

# Ends with 3 where the connection was made and then hung up.
waits_for() {
  python3 - "${1%:*}" "${1##*:}" ca-north/anchors-north.pem "$2" <<'PY'
import socket, ssl, sys
host, port, anchors, own = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.create_default_context(cafile=anchors)
context.load_cert_chain(own + ".pem", own + ".key")
with socket.create_connection((host, port), 5) as raw:
    with context.wrap_socket(raw, server_hostname=host) as secure:
        secure.settimeout(1)
        try:
            sys.exit(0 if secure.recv(1) else 3)
        except TimeoutError:
            sys.exit(0)
        except (ssl.SSLError, ConnectionError):
            sys.exit(3)
PY
}

peer_is() {
  "$bin" peers list --project "$1" --json |
    jq -e --arg id "$2" --arg trust "$3" --arg life "$4" \
      '.[] | select(.runtime_id == $id and .trust_state == $trust and .lifecycle_state == $life)' >/dev/null
}

# Plain Zenoh is not answered, and a handshake without a certificate ends.
strangers_do_not_link() {
  local address
  address="$(mesh_of north-a)"
  python3 - "${address%:*}" "${address##*:}" ca-north/anchors-north.pem <<'PY'
import socket, ssl, sys
host, port, anchors = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with socket.create_connection((host, port), 5) as plain:
    plain.sendall(b"\x05\x00" + bytes(5))
    plain.settimeout(10)
    try:
        answer = plain.recv(64)
    except ConnectionError:
        answer = b""
    assert not answer or answer[0] == 21, answer  # an alert of TLS at most
context = ssl.create_default_context(cafile=anchors)
with socket.create_connection((host, port), 5) as raw:
    try:
        with context.wrap_socket(raw, server_hostname=host) as secure:
            secure.settimeout(10)
            secure.sendall(b"\x05\x00" + bytes(5))
            assert not secure.recv(64)
    except (ssl.SSLError, ConnectionError):
        pass
PY
}

old_tls_is_refused() {
  [ "$(status north-a /livez)" = 200 ] && hangs_up north-a --tls-max 1.2
}

anonymous_is_refused() { [ "$(status north-a /api/runtime-cloud/state)" = 401 ]; }

certificate_is_granted() {
  mapfile -t options < <(alice)
  [ "$(status north-a /api/runtime-cloud/state "${options[@]}")" = 200 ] || return 1
  [ "$(jq -r .context.identity answer.json)" = spiffe://trust/north/alice ] || return 1
  [ "$(jq -r .context.role answer.json)" = operator ]
}

# An authority that nobody knows ends the handshake; another site's, which is known, names somebody for whom a node of this
# site does not vouch.
foreign_certificate_is_refused() {
  hangs_up north-a --cert alice-evil/actor-alice.pem --key alice-evil/actor-alice.key || return 1
  [ "$(status north-a /api/runtime-cloud/state --cert alice-south/actor-alice.pem --key alice-south/actor-alice.key)" = 401 ]
}

token_lives_and_dies() {
  local made token id
  made="$("$bin" token create --project north-a --role viewer --actor bob --json)"
  token="$(jq -r .token <<<"$made")" id="$(jq -r .id <<<"$made")"
  until_true opens north-a "$token" 200 || return 1
  [ "$(status north-a /api/runtime-cloud/control/reload --header "authorization: Bearer $token" \
    --header 'content-type: application/json' --data '{}')" = 403 ] || return 1
  "$bin" token revoke "$id" --project north-a >/dev/null
  until_true opens north-a "$token" 401
}

opens() { [ "$(status "$1" /api/runtime-cloud/state --header "authorization: Bearer $2")" = "$3" ]; }

token_is_local() { opens north-a "$(<north-a/state/admin.token)" 200 && opens south-s "$(<north-a/state/admin.token)" 401; }

# Dispatches from north to south as alice, and compares the code and who decided.
crosses() {
  local action="$1" payload="$2" wanted="$3" stage="${4:-}" plan body got
  mapfile -t options < <(alice)
  body="$(jq -n --arg action "$action" --argjson payload "$payload" --arg id "gate-$RANDOM-$SECONDS" '{
    api_version: "1.0", request_id: $id, connected_via: "g", target_runtimes: ["south/s"],
    actor: "spiffe://trust/north/alice", action_type: $action, payload: $payload }')"
  options+=(--header 'content-type: application/json')
  [ "$(status north-g /api/runtime-cloud/actions/preflight "${options[@]}" --data "$body")" = 200 ] || return 1
  plan="$(jq -r .plan_hash answer.json)"
  body="$(jq --arg plan "$plan" '. + { plan_hash: $plan }' <<<"$body")"
  [ "$(status north-g /api/runtime-cloud/actions/dispatch "${options[@]}" --data "$body")" = 200 ] || return 1
  got="$(jq -r 'if .ok then "ok" else (.results[0].denial_code // .preflight.denial_code) end' answer.json)"
  [ "$got" = "$wanted" ] || return 1
  [ -z "$stage" ] || [ "$(jq -r '.results[0].stage // "origin"' answer.json)" = "$stage" ]
}

crosses_ping() { crosses cmd_invoke '{"command":"ping"}' "$@"; }

rules_explain() {
  "$bin" policy explain --project north-g --actor north/alice --action cmd_invoke/ping --target south/s \
    --role operator --side outbound >explained || return 1
  grep -q 'runtime.toml:' explained
  local code=0
  "$bin" policy explain --project north-g --actor north/alice --action cmd_invoke/stop --target south/s --side outbound >explained 2>&1 || code=$?
  [ "$code" -ne 0 ] && grep -q permission_denied explained
}

bad_file_changes_nothing() {
  append north-a '[runtime.nonsense]'
  local code=0
  "$bin" ctl reload --project north-a --json >reloaded.json 2>/dev/null || code=$?
  restore north-a
  [ "$code" -eq 3 ] && [ "$(jq -r .ok reloaded.json)" = false ] && opens north-a "$(<north-a/state/admin.token)" 200
}

banned() {
  mapfile -t options < <(alice)
  hangs_up north-a "${options[@]}"
}

all_are_there() {
  local pid
  for pid in "${pids[@]}"; do kill -0 "$pid" || return 1; done
}

audit_verifies() {
  for folder in north-a north-b north-g south-s; do
    "$bin" audit verify --project "$folder" >/dev/null || return 1
  done
}

# One bit of one record, in a copy. There is one to edit whichever lines were left out.
edited_audit_is_found() {
  "$bin" ctl config-set log.level info --project south-s >/dev/null || return 1
  stop_nodes
  cp -r south-s edited
  python3 - edited/state/control.db <<'PY' || return 1
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
table = next(name for name in tables if "audit" in name or "chain" in name)
columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
text = next(name for name in columns if name in ("record", "body", "entry", "draft"))
row, body = db.execute(f"SELECT rowid, {text} FROM {table} ORDER BY rowid LIMIT 1").fetchone()
kind = bytes if isinstance(body, bytes) else str
raw = bytearray(body if kind is bytes else body.encode())
raw[len(raw) // 2] ^= 1
db.execute(f"UPDATE {table} SET {text} = ? WHERE rowid = ?", (bytes(raw) if kind is bytes else raw.decode("utf-8", "replace"), row))
db.commit()
PY
  ! "$bin" audit verify --project edited >verdict 2>&1 && grep -q 'edited at record 1' verdict
}

# --- Verdicts --------------------------------------------------------------------------------------------------------

# Runs a check and prints its verdict and its time. One that was not asked for is left out, and that is said.
line() {
  local name="$1" what="$2" begin=$SECONDS
  shift 2
  if [ "${#only[@]}" -gt 0 ] && [[ " ${only[*]} " != *" $name "* ]]; then
    left_out=$((left_out + 1))
    printf 'LEFT OUT    %s\n' "$what"
    return
  fi
  if "$@"; then
    passed=$((passed + 1))
    printf 'PASS %3d s  %s\n' $((SECONDS - begin)) "$what"
  else
    failed=$((failed + 1))
    printf 'FAIL %3d s  %s\n' $((SECONDS - begin)) "$what"
  fi
}

until_true() {
  local end=$((SECONDS + deadline_s))
  until "$@" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

finish() {
  printf '%d passed, %d failed%s\n' "$passed" "$failed" "$([ "$left_out" -eq 0 ] || echo ", $left_out left out")"
  [ "$failed" -eq 0 ]
}

# Only what was started here, by id.
stop_nodes() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}

clean_up() {
  local code=$?
  stop_nodes
  if [ "$code" -ne 0 ] && [ -n "$scratch" ]; then
    echo "gate: kept $scratch" >&2
  elif [ -n "$scratch" ]; then
    rm -rf "$scratch"
  fi
}

main "$@"
