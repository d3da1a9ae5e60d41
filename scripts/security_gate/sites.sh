# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: what crosses from site to site, by whose rules, and on what word of a partner's anchors.

read_crosses() { until_true reads "$1" "$2"; }

# Nobody has a rule yet: the own site says no, and nothing is sent.
write_is_denied() { pings "$1" "$2" permission_denied origin; }

# The rules at both ends allow it, and the plan that it names is missing or another one's.
write_without_plan_is_refused() {
  local body
  body="$(asked north-g south/s cmd_invoke '{"command":"ping"}')"
  until_true pings north-g south/s ok target || return 1
  sends north-g dispatch "$body" && [ "$(came_of_it)" = 'contract_violation origin' ] || return 1
  sends north-g dispatch "$(jq '. + { plan_hash: "0000" }' <<<"$body")" && [ "$(came_of_it)" = 'conflict origin' ]
}

# South knows east by nothing but what it is brought: words the first time, then a signature of whoever was known.
bundle_is_taken_in_order() {
  local first second
  first="$("$bin" identity export-bundle --ca ca-east --out first.json --json | jq -r .words)" || return 1
  ends_with 2 imports first.json && ends_with 5 imports first.json --fingerprint 'topmost istanbul' || return 1
  imports first.json --fingerprint "$first" >/dev/null || return 1
  "$bin" identity rotate prepare --ca ca-east >/dev/null || return 1
  second="$("$bin" identity export-bundle --ca ca-east --out second.json --json | jq -r .words)" || return 1
  [ "$first" != "$second" ] && imports second.json >/dev/null || return 1
  ends_with 5 imports first.json && grep -q 'is known already' said || return 1
  ends_with 5 imports first.json --fingerprint "$first" && grep -q 'is known already' said
}

imports() { "$bin" identity import-bundle "$1" --site east --project south-s "${@:2}"; }

# The file's time is over: time is moved in what is kept of it.
stale_bundle_stops_writes() {
  local kept=south-s/state/bundles/west.json code=0
  append south-s '[[runtime.cloud.wan.allow_write]]' 'action = "cmd_invoke/ping"' 'target = "west/w"'
  append west-w '[[runtime.cloud.wan.accept_write]]' 'action = "cmd_invoke/ping"' 'actor = "south/alice"'
  until_true pings south-s west/w ok target || return 1
  cp "$kept" fresh.json
  jq '.file_expires_ms = .confirmed_ms' fresh.json >over.json && cp over.json "$kept"
  until_true pings south-s west/w stale_data origin && reads south-s west/w || code=1
  cp fresh.json "$kept"
  until_true pings south-s west/w ok target && [ "$code" -eq 0 ]
}

rules_explain() {
  "$bin" policy explain --project north-g --actor north/alice --action cmd_invoke/ping --target south/s \
    --role operator --side outbound >said && grep -q 'runtime.toml:' said || return 1
  ends_with 5 "$bin" policy explain --project north-g --actor north/alice --action cmd_invoke/stop --target south/s \
    --role operator --side outbound && grep -q permission_denied said
}

# The rules of a file answer its own questions; a question that is answered differently is shown and fails, and no node takes it.
rules_are_tested() {
  mkdir -p tested
  (umask 077 && cat north-g/runtime.toml.first - >tested/runtime.toml) <<'TOML'
[[runtime.cloud.wan.allow_write]]
action = "cmd_invoke/ping"
target = "south/s"
[[runtime.cloud.wan.test]]
actor = "north/alice"
action = "cmd_invoke/ping"
target = "south/s"
expect = "allow"
[[runtime.cloud.wan.test]]
actor = "north/alice"
action = "cmd_invoke/ping"
target = "south/furnace"
expect = "deny"
TOML
  "$bin" policy test --project tested >said && grep -q '2 of 2 tests hold' said || return 1
  sed -i 's/^expect = "deny"/expect = "allow"/' tested/runtime.toml
  ends_with 1 "$bin" policy test --project tested && grep -q 'wanted allow' said && ends_with 3 "$bin" validate --project tested
}

# --- Files that change under a running node ---------------------------------------------------------------------------

bad_file_changes_nothing() {
  append north-a '[runtime.nonsense]'
  local code=0
  "$bin" ctl reload --project north-a --json >reloaded.json 2>/dev/null || code=$?
  restore north-a
  [ "$code" -eq 3 ] && owner_opens north-a && jq -e '.ok == false and [.rejected[].what] == ["runtime.toml"] and
    (.rejected[0].reason | test("runtime.toml:[0-9]+:[0-9]+: runtime.nonsense: "))' reloaded.json >/dev/null
}

# One file has something that counts at once and something that waits; another one is damaged and costs nothing but itself.
reload_tells_what_counts() {
  append west-w '[runtime.admin]' 'listen = "127.0.0.1:0"'
  until_true reload_tells_of_a_grant || { cat reloaded.json >&2 && return 1; }
}

# The node looks at its files by itself. Where it was first, nothing was left that the command could apply: there is a new grant
# for each try.
grants=0
reload_tells_of_a_grant() {
  local code=0
  append west-w '[[runtime.identity.grant]]' "actor = \"west/bob-$((++grants))\"" 'role = "viewer"'
  cp ca-west/bans.txt bans.before && echo nonsense >>ca-west/bans.txt
  "$bin" ctl reload --project west-w --json >reloaded.json || code=$?
  cp bans.before ca-west/bans.txt
  [ "$code" -eq 3 ] && jq -e '.applied != [] and (.needs_restart | index("runtime.admin")) and
    ([.rejected[].what] == ["certificates"])' reloaded.json >/dev/null
}

# The node looks at its files by itself and says what waits for a restart. A signal has it look, and say so, again.
signal_reloads() {
  local told
  append north-b '[runtime.admin]' 'listen = "127.0.0.1:0"'
  until_true told_of_admin 1 || return 1
  told="$(times_told_of_admin)"
  kill -HUP "$(jq .pid north-b/ready.json)" || return 1
  until_true told_of_admin $((told + 1)) && owner_opens north-b
}

told_of_admin() { [ "$(times_told_of_admin)" -ge "$1" ]; }

times_told_of_admin() { grep 'files were read again' north-b/log | grep -c runtime.admin; }
