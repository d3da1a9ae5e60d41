# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: who may link with whom, what a link is, and what ends one.

unmet_preconditions() {
  mkdir -p bare
  printf '[bundle]\nversion = 1\n[runtime.cloud]\nprofile = "plant"\n' >bare/runtime.toml
  ends_with 3 "$bin" play --project bare && grep -q runtime.web.tls said && grep -q runtime.identity.source said
}

router_wants_tls() {
  mkdir -p plain
  sed 's/^tls = true$/tls = false/' north-g/runtime.toml.first >plain/runtime.toml
  ! "$bin" validate --project plain >said 2>&1 && grep -q 'wanted runtime.mesh.tls = true' said
}

# Plain Zenoh is not answered, and neither is who shows no certificate; who has one is.
strangers_do_not_link() {
  is_turned_away north-a 0 plain && is_turned_away north-a 0 anonymous && is_let_in north-a 0 north-b/tls/node-b
}

partner_alone_is_let_in() {
  is_let_in north-g 1 south-s/tls/node-s && is_turned_away north-g 1 north-b/tls/node-b
}

# Who is let in once was not turned away: only a knock without a verdict is repeated.
is_turned_away() { until_true knocks "$@" && [ "$answered" = no ]; }

is_let_in() { until_true is_answered "$@"; }

is_answered() { knocks "$@" && [ "$answered" = yes ]; }

# Says the first words of Zenoh at one of the addresses of a node's mesh, after a handshake in which a certificate is shown: the
# files of one, or `anonymous`, or `plain` for no handshake at all. Only who is inside answers them, so that silence is no verdict.
# Nor is a failure of the caller's own, such as not to believe the node: it must be the node that ends what stood. With TLS 1.3
# a caller learns of that when it reads.
answered=""
knocks() {
  local address
  address="$(mesh_of "$1" "$2")"
  answered="$(python3 - "${address%:*}" "${address##*:}" "ca-${1%%-*}/anchors-${1%%-*}.pem" "$3" "$deadline_s" <<'PY'
import os, socket, ssl, sys
host, port, anchors, who, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
# Their length, InitSyn, the version of the protocol, that a peer speaks, and its id.
first_words = b"\x13\x00" + b"\x01\x09\xf1" + os.urandom(16)
line = socket.create_connection((host, port), limit)
if who != "plain":
    context = ssl.create_default_context(cafile=anchors)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if who != "anonymous":
        context.load_cert_chain(who + ".pem", who + ".key")
    line = context.wrap_socket(line, server_hostname=host)
heard = b""
try:
    line.sendall(first_words)
    while len(heard) < 3 and (more := line.recv(3 - len(heard))):
        heard += more
except ConnectionError:
    pass
except ssl.SSLError as error:
    if not isinstance(error, ssl.SSLEOFError) and "_ALERT_" not in (error.reason or ""):
        raise
if heard in (b"", b"\x15\x03\x03"):  # nothing, or an alert of TLS to one who speaks none
    print("no")
elif heard[2] & 0x3F == 0x21:  # InitAck, after its length
    print("yes")
PY
  )" && [ -n "$answered" ]
}

# Each pair of the three sites, in both directions.
each_pair() {
  local pair
  for pair in north-g:south/s north-g:west/w south-s:north/g south-s:west/w west-w:north/g west-w:south/s; do
    "$@" "${pair%:*}" "${pair#*:}" || return 1
  done
}

knows() { until_true peer_is "$1" "$2" trusted online; }

# The site's own authority may say of itself what it likes: it signs for another site's name, by its own key.
authority_speaks_for_itself_alone() {
  cp -r ca-west ca-liar && sed -i 's/"west"/"north"/' ca-liar/authority.json || return 1
  "$bin" identity issue --ca ca-liar --node north/x --ip 127.0.0.1 --out liar >/dev/null || return 1
  "$bin" identity issue --ca ca-liar --actor alice --out liar >/dev/null || return 1
  local true_alice false_alice
  mapfile -t true_alice < <(shows alice-north actor-alice)
  mapfile -t false_alice < <(shows liar actor-alice)
  is_let_in north-g 2 west-w/tls/node-w && is_turned_away north-g 2 liar/node-x || return 1
  is_let_in north-a 0 north-b/tls/node-b && is_turned_away north-a 0 liar/node-x || return 1
  [ "$(status south-s /livez "${true_alice[@]}")" = 200 ] && hangs_up south-s "${false_alice[@]}" && hangs_up north-a "${false_alice[@]}"
}

# What is done to b is taken back, so that the next line finds the plant whole.
banned_node_is_cut_off() {
  knows north-a b || return 1
  local code=0 before
  before="$(length_of north-a/log)"
  "$bin" identity ban --ca ca-north --id spiffe://trust/north/runtime/b --reason gate >/dev/null || return 1
  until_true link_of_b_was_ended "$before" 'it is banned' && until_true peer_is north-a b trusted partitioned || code=1
  sed -i '\|/runtime/b |d' ca-north/bans.txt
  knows north-a b && [ "$code" -eq 0 ]
}

# A certificate of a minute, most of which is over, in the place of the one in force. On a machine so slow that it was over before
# the two had linked by it there was no link to end: the next one has more left.
ended_certificate_ends_the_link() {
  knows north-a b || return 1
  local code=1 before left_s
  before="$(length_of north-a/log)"
  for left_s in 14 30; do
    renewed_by north b $((60 - left_s)) --minutes 1 || return 1
    within $((left_s + 5)) link_of_b_was_ended "$before" 'it has expired' && code=0 && break
  done
  [ "$code" -ne 0 ] || until_true peer_is north-a b trusted partitioned || code=1
  renewed_by north b 0 || return 1
  knows north-a b && [ "$code" -eq 0 ]
}

length_of() { wc -l <"$1"; }

# The other end says so, and why, after what was in its log before.
link_of_b_was_ended() {
  grep -q "a link was ended .*neighbour[^ ]*runtime north/b .*reason[^ ]*\"$2" < <(tail -n "+$(($1 + 1))" north-a/log)
}
