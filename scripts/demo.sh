# shellcheck shell=bash
# Sourced by the demos: starts nodes in a scratch folder, waits for conditions, posts, judges answers, and ends what it
# has started.
#
# Wants of the script that sources it: `root`, `demo` (its name), `deadline_s`, and `base NODE` for a node's web address.
# Gives it: `trust_runtime`, `scratch`, and `pids` (by node).

# shellcheck source=scripts/bound.sh
. "$(dirname "${BASH_SOURCE[0]}")/bound.sh"

trust_runtime=""
scratch=""
failures=0
once=no
declare -A pids=()

# What the demo's first lines say, to its user.
usage() {
  sed -n '2,/^set -/p' "$0" | sed -n 's/^# \{0,1\}//p'
}

parse_once() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --once) once=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      die 2 "unknown argument: $1"
      ;;
    esac
    shift
  done
}

find_binary() {
  if [ -n "${TRUST_RUNTIME_BIN:-}" ]; then
    need_commands curl jq setpriv || exit 2
    [ -x "$TRUST_RUNTIME_BIN" ] || die 2 "TRUST_RUNTIME_BIN: $TRUST_RUNTIME_BIN is not an executable file"
    trust_runtime="$(cd "$(dirname "$TRUST_RUNTIME_BIN")" && pwd)/$(basename "$TRUST_RUNTIME_BIN")"
    return
  fi
  need_commands cargo curl jq setpriv || exit 2
  say "Building the release binary. The first time this takes some minutes."
  (cd "$root" && cargo build --release --locked --bin trust-runtime) || die 1 "the build failed"
  trust_runtime="$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")/release/trust-runtime"
  [ -x "$trust_runtime" ] || die 1 "the build left no $trust_runtime"
}

make_scratch() {
  trap 'exit 130' INT
  trap 'exit 143' HUP TERM
  trap clean_up EXIT
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/trust-runtime-demo.XXXXXX")"
}

# What has a port is most likely another demo that still runs.
need_ports() {
  local port taken=()
  for port in "$@"; do
    # In a shell of its own, which closes the connection with its end.
    if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then taken+=("$port"); fi
  done
  [ "${#taken[@]}" -eq 0 ] || die 2 "these ports of this machine are taken: ${taken[*]}"
}

# --- Nodes -----------------------------------------------------------------------------------------------------------

# In a process group of its own, so that Ctrl+C reaches the demo alone, which then stops the nodes in order. Where the demo is
# killed and can stop nobody, the kernel ends them; the scratch folder is left then, and is in nobody's way.
start_node() {
  set -m
  bound "$trust_runtime" play --project "$scratch/$1" >>"$scratch/$1.log" 2>&1 </dev/null &
  set +m
  pids[$1]=$!
}

# The node itself writes its ready file, so that no other program on the same port is taken for it.
is_ready() {
  [ "$(jq -r .pid "$scratch/$1/state/ready.json" 2>/dev/null)" = "${pids[$1]}" ] &&
    ask --fail -o /dev/null "$(base "$1")/readyz"
}

# Waits for a condition, not for a time: ends early when the node has died, and late with the node's own words.
wait_until() {
  local what="$1" node="$2"
  shift 2
  local end=$((SECONDS + deadline_s))
  until "$@"; do
    if ! kill -0 "${pids[$node]}" 2>/dev/null; then
      sed 's/^/   | /' "$scratch/$node.log" >&2
      die 1 "$node ended before: $what"
    fi
    if [ "$SECONDS" -ge "$end" ]; then
      sed 's/^/   | /' "$scratch/$node.log" >&2
      die 1 "not within $deadline_s s: $what"
    fi
    sleep 0.1
  done
}

# --- Questions and answers -------------------------------------------------------------------------------------------

api() {
  echo "$(base "$1")/api/runtime-cloud"
}

# Every question goes this way: a node that takes one and says nothing is waited for no longer than for anything else.
ask() {
  curl --silent --max-time "$deadline_s" "$@"
}

# What cannot be had ends the demo.
get() {
  ask --fail "$@" || die 1 "no answer within $deadline_s s, or a refusal: ${*: -1}"
}

# A refusal is an answer here, and is judged by what it says.
post() {
  ask -X POST "$(api "$1")/$2" -H 'content-type: application/json' -d "$3" || die 1 "no answer within $deadline_s s: $1, $2"
}

expect() {
  local what="$1" condition="$2" answer="$3"
  if jq -e "$condition" >/dev/null 2>&1 <<<"$answer"; then
    echo "   as expected: $what"
  else
    failed "$what"
  fi
}

failed() {
  failures=$((failures + 1))
  echo "   NOT AS EXPECTED: $1" >&2
}

say() {
  printf '\n%s\n' "$1"
}

die() {
  echo "$demo: $2" >&2
  exit "$1"
}

# --- The end ---------------------------------------------------------------------------------------------------------

# Says how it went.
judge() {
  if [ "$failures" -gt 0 ]; then
    die 1 "$failures expectations were not met"
  fi
  say "All of it was as expected."
}

# Ends only what the demo started, by process id, and removes the scratch folder.
clean_up() {
  local status=$?
  trap - EXIT
  trap '' HUP INT TERM
  local pid
  for pid in "${pids[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]}"; do
    wait_for_end "$pid"
  done
  if [ "$status" -ne 0 ] && [ "$status" -ne 130 ] && [ "$status" -ne 143 ]; then
    [ -z "$scratch" ] || echo "$demo: the nodes' logs and folders are kept in $scratch" >&2
  elif [ -n "$scratch" ]; then
    rm -rf -- "$scratch"
  fi
  # Ctrl+C is how a demo is meant to end.
  [ "$status" -ne 130 ] || [ "$once" = yes ] || status=0
  exit "$status"
}

# A node stops within five seconds; one that does not is killed.
wait_for_end() {
  local end=$((SECONDS + 10))
  while kill -0 "$1" 2>/dev/null; do
    if [ "$SECONDS" -ge "$end" ]; then
      kill -KILL "$1" 2>/dev/null || true
      break
    fi
    sleep 0.1
  done
  wait "$1" 2>/dev/null || true
}
