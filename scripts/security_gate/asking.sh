# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: how the lines ask nodes, over HTTPS, by the command line and through the mesh.

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
  35 | 55 | 56) owner_opens "$folder" ;;
  *) return 1 ;;
  esac
}

opens() { [ "$(status "$1" /api/runtime-cloud/state --header "authorization: Bearer $2")" = "$3" ]; }

owner_opens() { opens "$1" "$(<"$1/state/admin.token")" 200; }

# The options of curl by which somebody shows a certificate, from a folder and a name in it.
shows() { printf '%s\n' --cert "$1/$2.pem" --key "$1/$2.key"; }

peer_is() {
  "$bin" peers list --project "$1" --json |
    jq -e --arg id "$2" --arg trust "$3" --arg life "$4" \
      '.[] | select(.runtime_id == $id and .trust_state == $trust and .lifecycle_state == $life)' >/dev/null
}

# What alice of a site asks of a target at her own node; what follows is put into the body.
asked() {
  local origin="$1" target="$2" action="$3" payload="$4"
  jq -n --arg site "${origin%%-*}" --arg via "${origin##*-}" --arg target "$target" --arg action "$action" \
    --argjson payload "$payload" --arg id "gate-$RANDOM-$RANDOM" '{
      api_version: "1.0", request_id: $id, connected_via: $via, target_runtimes: [$target],
      actor: "spiffe://trust/\($site)/alice", action_type: $action, payload: $payload }'
}

# Sends a body as alice of the node's site. The answer is left in answer.json; anything but 200 is no answer.
sends() {
  local origin="$1" step="$2" body="$3" options
  mapfile -t options < <(shows "alice-${origin%%-*}" actor-alice)
  [ "$(status "$origin" "/api/runtime-cloud/actions/$step" "${options[@]}" \
    --header 'content-type: application/json' --data "$body")" = 200 ]
}

# The code of what came of a dispatch, and who decided.
came_of_it() {
  jq -r '(if .ok then "ok" else (.results[0].denial_code // .preflight.denial_code) end) + " " + (.results[0].stage // "origin")' \
    answer.json
}

# Asks for a plan, dispatches by it, and compares the code and, where it matters, who decided. A peer's word or a reload that comes
# between the two makes the plan another one: it is made anew, as anybody would do.
crosses() {
  local origin="$1" target="$2" action="$3" payload="$4" wanted="$5" stage="${6:-}" body got
  for _ in {1..20}; do
    body="$(asked "$origin" "$target" "$action" "$payload")"
    sends "$origin" preflight "$body" || return 1
    body="$(jq --arg plan "$(jq -r .plan_hash answer.json)" '. + { plan_hash: $plan }' <<<"$body")"
    sends "$origin" dispatch "$body" || return 1
    got="$(came_of_it)"
    [ "${got%% *}" = conflict ] || break
  done
  [ "$got" = "$wanted ${stage:-${got##* }}" ]
}

reads() { crosses "$1" "$2" status_read '{}' ok; }

pings() { crosses "$1" "$2" cmd_invoke '{"command":"ping"}' "${@:3}"; }
