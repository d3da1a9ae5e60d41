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

# Who is let in is waited for; who is not is hung up on.
partner_alone_is_let_in() {
  waits_for north-g 1 south-s/tls/node-s && is_turned_away north-g 1 north-b/tls/node-b
}

is_turned_away() { ends_with 3 waits_for "$@"; }

# Shows a certificate at one of the addresses of a node's mesh. Ends with 3 where the connection was made and then hung up.
waits_for() {
  local address
  address="$(mesh_of "$1" "$2")"
  python3 - "${address%:*}" "${address##*:}" "ca-${1%%-*}/anchors-${1%%-*}.pem" "$3" <<'PY'
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
  waits_for north-g 2 west-w/tls/node-w && is_turned_away north-g 2 liar/node-x || return 1
  waits_for north-a 0 north-b/tls/node-b && is_turned_away north-a 0 liar/node-x || return 1
  [ "$(status south-s /livez "${true_alice[@]}")" = 200 ] && hangs_up south-s "${false_alice[@]}" && hangs_up north-a "${false_alice[@]}"
}

# What is done to b is taken back, so that the next line finds the plant whole.
banned_node_is_cut_off() {
  peer_is north-a b trusted online || return 1
  "$bin" identity ban --ca ca-north --id spiffe://trust/north/runtime/b --reason gate >/dev/null || return 1
  local code=0
  link_of_b_ends 'it is banned' || code=1
  sed -i '\|/runtime/b |d' ca-north/bans.txt
  until_true peer_is north-a b trusted online && [ "$code" -eq 0 ]
}

# A certificate of a minute, most of which is over, in the place of the one in force.
ended_certificate_ends_the_link() {
  peer_is north-a b trusted online || return 1
  renewed_by north b 46 --minutes 1 || return 1
  local code=0
  link_of_b_ends 'it has expired' || code=1
  renewed_by north b 0 || return 1
  until_true peer_is north-a b trusted online && [ "$code" -eq 0 ]
}

# The other end says why, and sees that nobody is there.
link_of_b_ends() {
  until_true peer_is north-a b trusted partitioned && grep 'a link was ended' north-a/log | grep -q "$1"
}
