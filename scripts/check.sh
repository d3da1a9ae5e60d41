#!/usr/bin/env bash
# The one gate: everything that must hold before a change lands, fast checks first, with the time of each step.
#
#   scripts/check.sh          everything
#   scripts/check.sh --fast   format, tidy, clippy, fuzz build, no features, unit tests, conformance, simulation: before each commit
#   scripts/check.sh --long   everything, then the fuzz gate and the bench gate: some ten minutes more, on a machine that does nothing else
#
# Environment:
#   CI=true                   uses the nextest profile "ci"
#   CARGO_TARGET_DIR          where to build [target]
#   MODEL_DEPTH               steps of the model check of replay protection [5, with --fast 4]
#
# Exit codes: 0 all steps passed, 1 a step failed, 2 wrong usage or a missing prerequisite.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/prerequisites.sh
. scripts/prerequisites.sh

# Raised by hand, together, when there is a reason.
readonly nextest_version="0.9.151"
readonly deny_version="0.20.2"

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
logs="$target/check"
fast=no
long=no
profile=default
report=()
passed=0
current=""

# By the name that holds also after the change of the folder.
usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' scripts/check.sh; }

main() {
  parse "$@"
  [ "${CI:-}" != true ] || profile=ci
  need_commands cargo curl jq || exit 2
  mkdir -p "$logs"
  # What passes in this check stands here, and nothing of an earlier one.
  : >"$logs/steps.tsv"
  trap summary EXIT
  step "fmt" cargo fmt --all --check
  need_nextest
  tests "tidy" --test tidy
  if [ "$fast" = no ]; then
    step "zenoh baseline" scripts/check_zenoh_baseline.sh
  fi
  step "clippy" cargo clippy --locked --all-targets -- -D warnings
  step "fuzz build" check_fuzz_targets
  # All other steps build what is built by default, which has every feature.
  step "no features" cargo check --locked --no-default-features
  tests "unit" --lib --bins
  tests "conformance" --test conformance
  # One step more than before each commit: it takes ten times as long.
  [ "$fast" = yes ] || export MODEL_DEPTH="${MODEL_DEPTH:-5}"
  tests "simulation" --test simulation
  [ "$fast" = no ] || return 0

  # What takes a minute comes before what starts nodes.
  step "doc" documentation
  fuzz_corpora
  need_deny
  step "deny" cargo deny --locked check bans licenses sources
  # Tests of demos and of several sites make network namespaces. What is missing is installed here, once, and by no test.
  need_commands ip python3 || exit 2
  need_venv
  need_faketime || exit 2
  tests "gates" --test gates
  tests "adapters" --test adapters
  tests "api" --test api
  # What the tests of the API have built, tried against its own descriptions.
  TRUST_RUNTIME_BIN="$target/debug/trust-runtime" step "openapi" openapi
  step "interop clients" interop_clients
  step "zenohd" scripts/setup_zenohd.sh
  tests "interop" --test interop
  tests "cluster" --test cluster
  step "acceptance" acceptance
  step "release build" cargo build --release --locked --bin trust-runtime
  CLUSTER_PROGRAM="$target/release/trust-runtime" tests "idle" --test cluster -E 'test(idle)'
  TRUST_RUNTIME_BIN="$target/release/trust-runtime" step "quickstart" scripts/quickstart.sh --once
  TRUST_RUNTIME_BIN="$target/release/trust-runtime" step "security gate" timeout 600 scripts/runtime_cloud_security_profile_gate.sh
  # Chromium without its windows: a good deal less to fetch, and the same judgement of certificates.
  TRUST_GATE_BROWSER=chromium-headless-shell TRUST_RUNTIME_BIN="$target/release/trust-runtime" \
    step "browser gate" timeout 600 scripts/runtime_cloud_browser_gate.sh
  [ "$long" = yes ] || return 0

  step "fuzz gate" scripts/runtime_comms_fuzz_gate.sh
  step "bench gate" scripts/runtime_comms_bench_gate.sh
}

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --fast) fast=yes ;;
    --long) long=yes ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      echo "check: unknown argument: $1" >&2
      exit 2
      ;;
    esac
    shift
  done
  if [ "$fast$long" = yesyes ]; then
    echo "check: --fast and --long are two different checks" >&2
    exit 2
  fi
}

# --- Steps -----------------------------------------------------------------------------------------------------------

# Runs one step, shows its output and its time. A failing step ends the gate.
step() {
  current="$1"
  shift
  printf '\n==> %s\n' "$current"
  local begin=$SECONDS
  "$@"
  done_in "$current" $((SECONDS - begin))
}

done_in() {
  report+=("$(printf '%-18s %5d s' "$1" "$2")")
  printf '%s\tok\t%s\n' "$1" "$2" >>"$logs/steps.tsv"
  printf '<== %s: %d s\n' "$1" "$2"
  current=""
}

# Runs tests of one kind. A suite that is gone fails the gate: it cannot be left out by leaving it out of Cargo.toml.
tests() {
  local name="$1"
  shift
  step "$name" nextest "$name" "$@"
}

nextest() {
  local log="$logs/$1.log" count
  shift
  cargo nextest run --locked --profile "$profile" "$@" 2>&1 | tee "$log"
  count="$(sed -E 's/\x1b\[[0-9;]*m//g' "$log" | sed -nE 's/^ *Summary .* ([0-9]+) passed.*/\1/p' | tail -n 1)"
  passed=$((passed + ${count:-0}))
}

# Holds what has run against the table of acceptance lines: a line whose test is gone, or is no test any more, fails here,
# and so does one whose step of this check has not passed.
acceptance() {
  local suite
  for suite in unit conformance simulation gates adapters api interop cluster; do
    sed -E 's/\x1b\[[0-9;]*m//g' "$logs/$suite.log"
  done >"$logs/acceptance.log"
  ACCEPTANCE_LOG="$logs/acceptance.log" ACCEPTANCE_STEPS="$logs/steps.tsv" scripts/runtime_comms_conformance_gate.sh
}

documentation() {
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
}

# The fuzz targets are a workspace of their own, which no other step builds: a changed interface shows here, early.
check_fuzz_targets() {
  (cd fuzz && CARGO_TARGET_DIR="$target" cargo check --locked --all-targets)
}

# The fuzz targets' corpora, replayed as plain tests by the stable toolchain. They share the target folder, so that what
# both workspaces use is built once.
fuzz_corpora() {
  step "fuzz corpora" replay_corpora
}

replay_corpora() {
  local log="$logs/fuzz.log" counts
  (cd fuzz && CARGO_TARGET_DIR="$target" cargo test --locked) 2>&1 | tee "$log"
  counts="$(sed -nE 's/^test result: .* ([0-9]+) passed;.*/\1/p' "$log" | paste -sd+ -)"
  passed=$((passed + ${counts:-0}))
}

# --- Tools -----------------------------------------------------------------------------------------------------------

need_nextest() {
  cargo nextest --version >/dev/null 2>&1 && return 0
  step "install nextest" cargo install cargo-nextest --version "$nextest_version" --locked
}

need_deny() {
  cargo deny --version >/dev/null 2>&1 && return 0
  step "install deny" cargo install cargo-deny --version "$deny_version" --locked
}

# The same requests each time, so that what has passed passes again; the bound is for a node that hangs.
openapi() {
  need_commands python3 || exit 2
  need_venv
  timeout 300 scripts/check_openapi.sh
}

# One Python environment per Zenoh release, made once.
interop_clients() {
  need_commands python3 || exit 2
  need_venv
  scripts/setup_interop.sh
}

# Debian keeps the parts of Python that make environments in a package of their own.
need_venv() {
  python3 -c 'import ensurepip, venv' 2>/dev/null && return 0
  install_packages python3-venv || true
  python3 -c 'import ensurepip, venv' 2>/dev/null && return 0
  echo "missing: Python's venv module. Install it, for example: sudo apt-get install python3-venv" >&2
  exit 2
}

# --- The end ---------------------------------------------------------------------------------------------------------

summary() {
  local status=$?
  trap - EXIT
  printf '\n'
  if [ "${#report[@]}" -gt 0 ]; then
    printf '%s\n' "${report[@]}"
    printf '%-18s %5d s\n' "total" "$SECONDS"
  fi
  if [ "$status" -ne 0 ]; then
    echo "check: failed${current:+ in: $current}" >&2
    exit "$status"
  fi
  printf '%d passed, 0 failed\n' "$passed"
}

main "$@"
