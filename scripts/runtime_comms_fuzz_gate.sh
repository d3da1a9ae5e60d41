#!/usr/bin/env bash
# Fuzzes what strangers can send: every target, guided by coverage, for a bounded time, from the corpora that are kept here.
# A line for each target: verdict, time, executions, what was reached. An input that ends a target is a failure; it is kept and named.
#
# The pinned stable toolchain is enough: LLVM's coverage is asked for by compiler flags that are stable, and the fuzzer is
# the one that libfuzzer-sys brings. Without a sanitizer: the package has no unsafe code, and a panic ends the process.
#
#   scripts/runtime_comms_fuzz_gate.sh                    30 s for each target
#   scripts/runtime_comms_fuzz_gate.sh --seconds 600      longer; what is new goes to target/fuzz/found
#   scripts/runtime_comms_fuzz_gate.sh --target actor     one target, may be repeated
#   scripts/runtime_comms_fuzz_gate.sh --keep             adds what was found, made small, to fuzz/corpus
#
# Environment:
#   FUZZ_PROGRAMS     a folder with a built program for each target, instead of building them
#   CARGO_TARGET_DIR  where to build [target], in its folder fuzz
#
# Exit codes: 0 no target was broken, 1 one was, or reached nothing, or ended before its time or its corpus did, 2 wrong usage, a
# missing prerequisite, or nothing to fuzz.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"

seconds=30
is_kept=no
targets=()
work="$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/fuzz"
failed=0
passed=0

# An input may take so long and so much: the largest thing a stranger may send takes a fraction of it.
readonly input_seconds_max=10
readonly memory_mb_max=1024

# A fuzzer ends by itself only when its time is over; whole seconds are counted, at both ends.
readonly early_s_max=2

# The flags of cargo-fuzz, without the sanitizer that only a nightly toolchain has.
readonly coverage_flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks"

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"; }

main() {
  parse "$@"
  [ "${#targets[@]}" -gt 0 ] || everything
  programs="${FUZZ_PROGRAMS:-}"
  [ -n "$programs" ] || build
  local target
  for target in "${targets[@]}"; do fuzz "$target"; done
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ]
}

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --seconds) seconds="${2:-}" && shift ;;
    --target) targets+=("${2:-}") && shift ;;
    --keep) is_kept=yes ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown argument: $1" ;;
    esac
    shift || refuse "an argument wants a value"
  done
  [[ "$seconds" =~ ^[1-9][0-9]{0,5}$ ]] || refuse "--seconds wants a whole number above 0, got '$seconds'"
  local target
  for target in "${targets[@]}"; do
    known_targets | grep -qxF -- "$target" || refuse "no such target: '$target'. There are: $(known_targets | paste -sd' ')"
  done
}

# Every target there is, and a target for every corpus: one that is gone with its corpus still here was lost, not given up.
everything() {
  mapfile -t targets < <(known_targets)
  [ "${#targets[@]}" -gt 0 ] || { echo "fuzz gate: there is no target in fuzz/fuzz_targets" >&2; exit 2; }
  local lost
  lost="$(comm -13 <(known_targets) <(find "$root/fuzz/corpus" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort) | paste -sd' ')"
  [ -z "$lost" ] || { echo "fuzz gate: a corpus without a target: $lost" >&2; exit 2; }
}

refuse() {
  usage >&2
  echo "fuzz gate: $1" >&2
  exit 2
}

known_targets() { find "$root/fuzz/fuzz_targets" -name '*.rs' -printf '%f\n' 2>/dev/null | sed 's/\.rs$//' | sort; }

# With a target of its own, so that build scripts and macros are built without the flags.
build() {
  need_commands cargo rustc c++ || exit 2
  local host
  host="$(cd "$root" && rustc -vV | sed -n 's/^host: //p')"
  (cd "$root/fuzz" && RUSTFLAGS="$coverage_flags" CARGO_TARGET_DIR="$work" cargo build --locked --quiet --bins --target "$host") ||
    { echo "fuzz gate: the build failed" >&2; exit 2; }
  programs="$work/$host/debug"
}

# What is new is written to a folder of its own: the kept corpus changes only when it is asked for.
fuzz() {
  local target="$1" begin log found code=0
  found="$work/found/$target" log="$work/$target.log"
  [ -x "$programs/$target" ] || { echo "fuzz gate: there is no program $programs/$target" >&2; exit 2; }
  [ "$(kept "$target")" -gt 0 ] || { echo "fuzz gate: there is no corpus fuzz/corpus/$target" >&2; exit 2; }
  mkdir -p "$found" "$work/broken/$target"
  begin=$SECONDS
  # What it prints of its own accord is not wanted twice; a broken input is named below.
  "$programs/$target" -max_total_time="$seconds" -timeout="$input_seconds_max" -rss_limit_mb="$memory_mb_max" \
    -print_final_stats=1 -artifact_prefix="$work/broken/$target/" "$found" "$root/fuzz/corpus/$target" >"$log" 2>&1 || code=$?
  judge "$target" "$log" "$code" $((SECONDS - begin))
  if [ "$is_kept" = yes ] && [ "$code" -eq 0 ]; then
    "$programs/$target" -merge=1 "$root/fuzz/corpus/$target" "$found" >>"$log" 2>&1 || { echo "fuzz gate: $log" >&2; exit 1; }
  fi
}

# How many inputs a target starts from.
kept() { find "$root/fuzz/corpus/$1" -type f 2>/dev/null | wc -l; }

judge() {
  local target="$1" log="$2" code="$3" took="$4" runs edges why=""
  runs="$(sed -nE 's/^stat::number_of_executed_units: +([0-9]+).*/\1/p' "$log" | tail -n 1)"
  edges="$(sed -nE 's/.* cov: ([0-9]+) .*/\1/p' "$log" | tail -n 1)"
  if [ "$code" -ne 0 ]; then
    why="$(grep -aoE 'Test unit written to .*' "$log" | tail -n 1 || true)"
    why="${why:-it ended with $code} (log: $log)"
  elif [ "${edges:-0}" -eq 0 ] || [ "${runs:-0}" -eq 0 ]; then
    # A program without coverage runs as well, blindly: that is not what was asked for.
    why="nothing was executed, or no coverage was seen (log: $log)"
  elif [ "$took" -lt $((seconds - early_s_max)) ]; then
    why="it ended after $took s of $seconds (log: $log)"
  elif [ "$runs" -lt "$(kept "$target")" ]; then
    why="$runs runs, but its corpus has $(kept "$target") inputs (log: $log)"
  fi
  if [ -z "$why" ]; then
    passed=$((passed + 1))
    printf 'PASS %4d s  %-14s %10d runs, %6d edges\n' "$took" "$target" "$runs" "$edges"
  else
    failed=$((failed + 1))
    printf 'FAIL %4d s  %-14s %s\n' "$took" "$target" "$why"
  fi
}

main "$@"
