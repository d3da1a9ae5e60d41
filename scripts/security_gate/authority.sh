# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: how a node gets its certificate, how it gets the next one, and how an authority changes its key.

# The key is made where the node is, and what travels both ways is compared by words. Then the node is one of the plant; before,
# it does not even start, though all its files are there.
node_enrols_by_words() {
  local asked key_words anchor_words
  asked="$("$bin" identity enrol --node north/c --ip 127.0.0.1 --out north-c/tls --json)" || return 1
  key_words="$(jq -r .words <<<"$asked")"
  local approve=("$bin" identity approve --ca ca-north --request north-c/tls/node-c.csr --json)
  ends_with 5 "${approve[@]}" --fingerprint "${key_words#* } ${key_words%% *}" || return 1
  [ ! -e north-c/tls/node-c.pem ] || return 1
  anchor_words="$("${approve[@]}" --fingerprint "$key_words" | jq -r .anchors_words)" || return 1
  set_up plant north c "$(mesh_of north-a)"
  does_not_start north-c 'nobody has accepted its authority yet' || return 1
  ends_with 5 "$bin" identity accept --out north-c/tls --site north --anchors "$key_words" || return 1
  "$bin" identity accept --out north-c/tls --site north --anchors "$anchor_words" >/dev/null || return 1
  started plant north c "$(mesh_of north-a)"
  until_true peer_is north-a c trusted online
}

# One that starts all the same is ended.
does_not_start() { ends_with 3 timeout --kill-after=5 "$deadline_s" "$bin" play --project "$1" && grep -q "$2" said; }

join_token_is_for_one() {
  (umask 077 && "$bin" identity join-token create --ca ca-north --node '*' --json | jq -r .token >token-of-north)
  local name
  for name in k l; do
    "$bin" identity enrol --node "north/$name" --out "joins-$name" --join-token token-of-north >/dev/null || return 1
  done
  "$bin" identity redeem --ca ca-north --request joins-k/node-k.csr >/dev/null || return 1
  "$bin" identity accept --out joins-k --site north --join-token token-of-north >/dev/null || return 1
  for name in k l; do
    ends_with 5 "$bin" identity redeem --ca ca-north --request "joins-$name/node-$name.csr" || return 1
    grep -q 'used already' said || return 1
  done
}

# A node whose certificate is in its last third asks the one that holds the authority, which knows it by its key. The certificate
# outlives the longest start, and an eighth of what is left goes by before the node looks at it. The node stops then: each
# further renewal would keep the commands of other lines off the authority's folder for a moment.
certificate_renews_itself() {
  late 45 issue --ca ca-north --node north/r --ip 127.0.0.1 --minutes 2 --out north-r/tls >/dev/null || return 1
  cp north-r/tls/node-r.pem first-of-r.pem
  started plant north r "$(mesh_of north-a)" "" 'renew_from = "a"'
  local code=0
  within $((deadline_s + 15)) differs first-of-r.pem north-r/tls/node-r.pem && knows north-a r || code=1
  stop_newest
  [ "$code" -eq 0 ] || return 1
  jq -se '[.[] | select(.id == "spiffe://trust/north/runtime/r").key] | length >= 2 and (unique | length == 1)' \
    ca-north/issued.jsonl >/dev/null || return 1
  "$bin" audit export --project north-a |
    jq -se 'any(.[]; .action == "identity_renew" and .outcome == "applied" and .target == "north/r")' >/dev/null
}

differs() { ! cmp -s "$1" "$2"; }

# West changes its key while north is linked with it. Between the steps both keys count; after the last one the old one is nobody's.
authority_changes_its_key() {
  local old
  cp -r alice-west old-alice-west
  mapfile -t old < <(shows old-alice-west actor-alice)
  [ "$("$bin" identity rotate prepare --ca ca-west --json | jq -c .named)" = '[1,2]' ] && both_are_known || return 1
  "$bin" identity rotate activate --ca ca-west >/dev/null && both_are_known || return 1
  ends_with 6 "$bin" identity rotate retire --ca ca-west && grep -q spiffe://trust/west/runtime/w said || return 1
  renewed_by west w 0 && "$bin" identity issue --ca ca-west --actor alice --out next >/dev/null || return 1
  mv next/* alice-west/
  until_true grep -q 'the own certificate was renewed' west-w/log && both_are_known || return 1
  [ "$(status west-w /livez "${old[@]}")" = 200 ] || return 1
  "$bin" identity rotate retire --ca ca-west >/dev/null || return 1
  until_true hangs_up west-w "${old[@]}" && both_are_known
}

# What is in the files counts, and nobody is cut off by it: reads pass both ways, by whatever certificate is in force.
both_are_known() {
  local folder
  for folder in north-g west-w; do "$bin" ctl reload --project "$folder" >/dev/null || return 1; done
  until_true reads north-g west/w && until_true reads west-w north/g
}
