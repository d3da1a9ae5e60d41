# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: who is let in over HTTPS, as whom, and what too many callers do to the others.

old_tls_is_refused() {
  [ "$(status north-a /livez)" = 200 ] && hangs_up north-a --tls-max 1.2
}

anonymous_is_refused() { [ "$(status north-a /api/runtime-cloud/state)" = 401 ]; }

certificate_is_granted() {
  local options
  mapfile -t options < <(shows alice-north actor-alice)
  [ "$(status north-a /api/runtime-cloud/state "${options[@]}")" = 200 ] || return 1
  [ "$(jq -r .context.identity answer.json)" = spiffe://trust/north/alice ] || return 1
  [ "$(jq -r .context.role answer.json)" = operator ]
}

# An authority that nobody knows ends the handshake; another site's, which is known, names somebody for whom a node of this
# site does not vouch.
foreign_certificate_is_refused() {
  local evil south
  mapfile -t evil < <(shows alice-evil actor-alice)
  mapfile -t south < <(shows alice-south actor-alice)
  hangs_up north-a "${evil[@]}" && [ "$(status north-a /api/runtime-cloud/state "${south[@]}")" = 401 ]
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

token_is_local() { owner_opens north-a && opens south-s "$(<north-a/state/admin.token)" 401; }

# Questions by one token, one after the other until there were too many: whoever has another credential does not notice, and that
# one may go on reading.
rates_are_kept() {
  local token body code=0
  token="$("$bin" token create --project north-a --role operator --actor alice --json | jq -r .token)"
  until_true opens north-a "$token" 200 || return 1
  body="$(asked north-a a cmd_invoke '{"command":"ping"}')"
  # 22 is an answer of 400 or above, with which it stops.
  timeout "$deadline_s" curl --silent --max-time 10 --cacert ca-north/anchors-north.pem --header "authorization: Bearer $token" \
    --header 'content-type: application/json' --data "$body" --output /dev/null --write-out '%{http_code}\n' --fail --fail-early \
    "$(web_of north-a)/api/runtime-cloud/actions/preflight#[1-100000]" >answered || code=$?
  [ "$code" -eq 22 ] && [ "$(uniq answered | paste -sd' ')" = '200 429' ] || return 1
  sends north-a preflight "$body" && opens north-a "$token" 200
}

# The first are told what is wrong with theirs, and further ones to come later; whoever has a right one does not notice.
guesses_are_put_off() {
  curl --silent --max-time 10 --cacert ca-west/anchors-west.pem --header 'authorization: Bearer guess' --output /dev/null \
    --write-out '%{http_code}\n' "$(web_of west-w)/api/runtime-cloud/state?guess=[1-400]" >guessed || return 1
  [ "$(head -n 1 guessed)" = 401 ] && [ "$(sort -u guessed | paste -sd' ')" = '401 503' ] && owner_opens west-w
}

# Two hundred who begin a handshake or a request and then only hold the line.
slow_callers_hold_up_nobody() {
  local code=0 holding
  : >held
  python3 - "$(web_of west-w)" ca-west/anchors-west.pem "$deadline_s" >held 2>/dev/null <<'PY' &
import signal, socket, ssl, sys
host, port = sys.argv[1].removeprefix("https://").rsplit(":", 1)
signal.alarm(2 * int(sys.argv[3]) + 10)
context = ssl.create_default_context(cafile=sys.argv[2])
lines = []
for number in range(200):
    line = socket.create_connection((host, int(port)), 5)
    if number % 2:
        line.sendall(b"\x16\x03\x01")
    else:
        line = context.wrap_socket(line, server_hostname=host)
        line.sendall(b"GET /api/runtime-cloud/state HTTP/1.1\r\nhost: ")
    lines.append(line)
print("held", flush=True)
signal.pause()
PY
  holding=$!
  until_true grep -q held held && owner_opens west-w && [ "$(status west-w /livez --max-time 2)" = 200 ] || code=1
  kill "$holding" 2>/dev/null
  wait "$holding" 2>/dev/null
  return "$code"
}

banned_actor_is_shut_out() {
  local options
  mapfile -t options < <(shows alice-north actor-alice)
  hangs_up north-a "${options[@]}"
}
