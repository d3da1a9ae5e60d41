# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: the nodes of the three sites, from their certificates and settings to their end.

# How long a node may take to serve, and a change of files to be taken up by command, whatever the lines are given.
start_s=60
pids=()
mounts=()

find_binary() {
  bin="${TRUST_RUNTIME_BIN:-}"
  if [ -z "$bin" ]; then
    need_commands cargo || exit 2
    (cd "$root" && cargo build --release --locked --quiet) || { echo "gate: the build failed" >&2; exit 2; }
    bin="$root/target/release/trust-runtime"
  fi
  bin="$(realpath "$bin")"
}

authority() { "$bin" identity init-site --ca "ca-$1" --site "$1" >/dev/null; }

# A certificate of a site for one of its people.
person() { "$bin" identity issue --ca "ca-$1" --actor "$2" --out "$2-$1" >/dev/null; }

# A node with a certificate of its site.
node() {
  local site="$2" name="$3"
  "$bin" identity issue --ca "ca-$site" --node "$site/$name" --ip 127.0.0.1 --out "$site-$name/tls" >/dev/null
  started "$@"
}

# Writes the settings of a node that has its certificate, starts it and waits until it serves.
#   PROFILE SITE NAME [DIALS] [FURTHER LINES OF runtime.mesh AND WHAT FOLLOWS] [FURTHER LINES OF runtime.identity] [ACTS A SECOND]
started() {
  local folder="$2-$3"
  set_up "$@"
  bound "$bin" play --project "$folder" --ready-file "$folder/ready.json" >"$folder/log" 2>&1 &
  pids+=("$!")
  within "$start_s" test -s "$folder/ready.json" || { cat "$folder/log" >&2; exit 2; }
  cp "$folder/runtime.toml" "$folder/runtime.toml.first"
}

set_up() { (umask 077 && settings "$@" >"$2-$3/runtime.toml"); }

settings() {
  local profile="$1" site="$2" name="$3" dials="${4:-}" mesh="${5:-}" identity="${6:-}"
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
  { site = "west", path = "$scratch/ca-west/anchors-west.pem" },
]
$identity
[[runtime.identity.grant]]
actor = "$site/alice"
role = "operator"
[runtime.control]
auth_token = "$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')"
[runtime.web]
listen = "127.0.0.1:0"
auth = "token"
tls = true
# More than any line needs.
acts_per_s = ${7:-50}
[runtime.tls]
mode = "self-managed"
[runtime.discovery]
enabled = false
[runtime.cloud]
profile = "$profile"
[runtime.mesh]
listen = "127.0.0.1:0"
connect = [${dials:+"\"$dials\""}]
tls = true
$mesh
TOML
}

# What makes a router, with its partners: pairs of a site and where it is; nothing where it comes by itself.
router() {
  printf 'role = "router"\nplugin_versions = { trust-runtime = "0.1.0" }\n'
  while [ "$#" -gt 0 ]; do
    printf '[[runtime.mesh.partner]]\nsite = "%s"\n' "$1"
    if [ -n "$2" ]; then printf 'connect = ["%s"]\n' "$2"; else printf 'listen = "127.0.0.1:0"\n'; fi
    shift 2
  done
}

web_of() { jq -r .web "$1/ready.json"; }

# Where a node listens: for its own site, or for its partners in the order of its settings, from 1.
mesh_of() { jq -r ".mesh[${2:-0}]" "$1/ready.json"; }

# Adds lines to a node's settings; restore takes everything back that was added to that node.
append() {
  local folder="$1"
  shift
  printf '%s\n' "" "$@" >>"$folder/runtime.toml"
}

restore() { cp "$1/runtime.toml.first" "$1/runtime.toml"; }

# Runs a command of the authority by a clock that is so many seconds late: what it issues has that much less to live.
late() {
  local seconds="$1"
  shift
  LD_PRELOAD="$(faketime_library)" FAKETIME="-${seconds}s" "$bin" identity "$@"
}

# The next certificate for the key that a node has; what follows are options of `identity approve`, and whose clock it goes by.
renewed_by() {
  local site="$1" name="$2" late_s="$3" words
  shift 3
  words="$("$bin" identity enrol --node "$site/$name" --ip 127.0.0.1 --out "$site-$name/tls" --json | jq -r .words)"
  late "$late_s" approve --ca "ca-$site" --request "$site-$name/tls/node-$name.csr" --fingerprint "$words" "$@" >/dev/null
}

# The node that was started last.
stop_newest() {
  kill "${pids[-1]}" || true
  wait "${pids[-1]}" || true
  unset 'pids[-1]'
}

# Only what was started here, by id.
stop_nodes() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}

clean_up() {
  local code=$? mount
  stop_nodes
  for mount in "${mounts[@]}"; do umount --lazy "$mount" 2>/dev/null || true; done
  if [ "$code" -ne 0 ] && [ -n "$scratch" ]; then
    echo "gate: kept $scratch" >&2
  elif [ -n "$scratch" ]; then
    rm -rf "$scratch"
  fi
}
