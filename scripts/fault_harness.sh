#!/usr/bin/env bash
# Storms of faults over real nodes, one seed after the other, and what must hold all the same, judged from outside.
#
# Processes are killed, frozen, stopped and started, links cut, stalled and slowed, clocks stepped and disks filled, while callers
# write through every node. Then all is healed, and audit logs, receipts, runs and the files of programs are compared. The faults
# are a seed's: it is printed before its storm, and the same seed finds the same storm again. See tests/cluster/faults.
#
#   scripts/fault_harness.sh --seconds 600          storms for ten minutes; the last one is carried to its end
#   scripts/fault_harness.sh --seed 7               the storm of one seed
#   scripts/fault_harness.sh --seconds 600 --seed 7 the seeds from 7 on
#   scripts/fault_harness.sh --nodes 5 --storm 60   five nodes (otherwise 3 to 5, as the seed has it), storms of a minute [20 s]
#   scripts/fault_harness.sh --release              an optimised build
#
# Environment:
#   FAULTS_HARNESS   a test program that is built already
#   CLUSTER_PROGRAM  another trust-runtime to try
#
# Needs root, for small disks, and Debian's libfaketime, for clocks. Everything happens on loopback and in a temporary folder,
# whose logs and settings are kept if a storm broke a promise or did not come to its end. Every process of it, and every disk, is
# gone with this script, however that ends.
#
# Exit codes: 0 every storm held, 1 one broke a promise, 2 wrong usage, a missing prerequisite, or a storm that did not come to
# its end.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# shellcheck source=scripts/bound.sh
. scripts/bound.sh

readonly test="faults::a_storm_of_faults_breaks_no_promise"

build=()
scratch=""

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' scripts/fault_harness.sh; }

main() {
  unset FAULTS_SECONDS FAULTS_SEED FAULTS_NODES FAULTS_STORM
  # A seed that nobody chose is new each time; it is printed.
  FAULTS_SEED="$(date +%s)"
  parse "$@"
  export FAULTS_SEED ${FAULTS_SECONDS+FAULTS_SECONDS} ${FAULTS_STORM+FAULTS_STORM} ${FAULTS_NODES+FAULTS_NODES}
  need
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/trust-runtime-faults.XXXXXX")"
  trap 'rm -rf "$scratch"' EXIT
  storms
}

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --seconds) FAULTS_SECONDS="$(whole "$@")" ;;
    --seed) FAULTS_SEED="$(whole "$@")" ;;
    --storm) FAULTS_STORM="$(whole "$@")" ;;
    --nodes)
      [[ "${2:-}" =~ ^[2-5]$ ]] || refuse "--nodes: wanted 2 to 5, got '${2:-}'"
      FAULTS_NODES="$2"
      ;;
    --release)
      build=(--release)
      shift
      continue
      ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown argument: $1" ;;
    esac
    shift 2
  done
}

whole() {
  [[ "${2:-}" =~ ^[0-9]{1,18}$ ]] || refuse "$1: wanted a whole number, got '${2:-}'"
  echo "$2"
}

refuse() {
  usage >&2
  echo "fault harness: $1" >&2
  exit 2
}

need() {
  local wanted
  for wanted in setpriv unshare; do
    command -v "$wanted" >/dev/null || refuse "$wanted is missing"
  done
  [ "$(id -u)" -eq 0 ] || refuse "wanted root, for small disks"
}

storms() {
  local storming=(cargo test --locked "${build[@]}" --test cluster --) telling code=0
  [ -z "${FAULTS_HARNESS:-}" ] || storming=("$FAULTS_HARNESS")
  mkfifo "$scratch/words"
  tee "$scratch/said" <"$scratch/words" &
  telling=$!
  # Those who storm, and the nodes that they start, are the processes of a namespace that ends with its first one: nobody of them
  # can outlive it. What libfaketime shares between processes goes by their numbers, which others have too.
  # shellcheck disable=SC2016 # The first one of them says who is to storm.
  bound unshare --pid --fork --kill-child --mount-proc \
    bash -c 'mount -t tmpfs -o nosuid,nodev shm /dev/shm && "$@"; exit $?' storms \
    "${storming[@]}" --exact "$test" --nocapture >"$scratch/words" 2>&1 &
  wait "$!" || code=$?
  wait "$telling"
  verdict "$code"
}

# The words of the storms count, and the end of the program that carries them out: each alone could be silent.
verdict() {
  local held broken
  held="$(grep -c '^VERDICT seed .*: holds;' "$scratch/said" || true)"
  broken="$(grep -c '^VERDICT seed .*: BROKEN;' "$scratch/said" || true)"
  echo "fault harness: $held storms held, $broken broke a promise"
  [ "$broken" -eq 0 ] || exit 1
  if [ "$SECONDS" -lt "${FAULTS_SECONDS:-0}" ]; then
    echo "fault harness: it went on for $SECONDS s, wanted $FAULTS_SECONDS" >&2
    exit 2
  fi
  if [ "$1" -ne 0 ] || [ "$held" -eq 0 ]; then
    echo "fault harness: the storms did not come to their end" >&2
    exit 2
  fi
}

main "$@"
