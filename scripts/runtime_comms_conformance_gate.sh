#!/usr/bin/env bash
# Shows for every line of tests/acceptance.tsv whether it holds: line, verdict, time. Each line names the tests that show it,
# by suite and whole path: another test of the same name elsewhere is another test. The suite `check` is that of the steps of
# scripts/check.sh, each by its name; where the gate runs such a step itself, it is scripts/check_NAME.sh.
# A line passes only if every test and step that it names ran and passed; one that is gone or was skipped fails it.
#
#   scripts/runtime_comms_conformance_gate.sh                 all suites; interop and cluster want what scripts/check.sh sets up
#   scripts/runtime_comms_conformance_gate.sh --suite api     only the lines of this suite, may be repeated
#
# Environment:
#   ACCEPTANCE_TABLE  another table [tests/acceptance.tsv]
#   ACCEPTANCE_LOG    what cargo nextest has printed, instead of running anything
#   ACCEPTANCE_STEPS  with it, how the steps of the same check ended: lines of name, `ok` or `fail`, seconds
#
# Exit codes: 0 every line holds, 1 one does not, 2 wrong usage or a missing prerequisite.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"

readonly known_suites="lib api adapters cluster conformance gates interop simulation check"
# Longer than any of them takes: a step that hangs has failed.
readonly step_seconds_max=300
table="${ACCEPTANCE_TABLE:-$root/tests/acceptance.tsv}"
log="${ACCEPTANCE_LOG:-}"
steps="${ACCEPTANCE_STEPS:-/dev/null}"
suites=()

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"; }

main() {
  parse "$@"
  [ -s "$table" ] || refuse "there is no table $table"
  check_table
  [ -n "$log" ] || run_all
  [ -r "$log" ] || refuse "there is no log $log"
  [ -r "$steps" ] || refuse "there are no steps $steps"
  judge
}

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --suite)
      [[ " $known_suites " == *" ${2:-} "* ]] || refuse "no such suite: '${2:-}'. There are: $known_suites"
      suites+=("$2")
      shift
      ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown argument: $1" ;;
    esac
    shift
  done
  [ "${#suites[@]}" -gt 0 ] || read -ra suites <<<"$known_suites"
}

refuse() {
  usage >&2
  echo "conformance gate: $1" >&2
  exit 2
}

# A line that is not understood would be one that nobody judges.
check_table() {
  local bad
  bad="$(awk -F'\t' -v suites="$known_suites -" '
    BEGIN { count = split(suites, names, " "); for (at = 1; at <= count; at++) is_known[names[at]] = 1 }
    /^#/ { next }
    NF != 3 { print "line " NR ": wanted three cells, got " NF; next }
    $1 == "" || $3 == "" || ($2 == "-") != ($3 == "-") { print "line " NR ": an empty cell, or a suite without a test"; next }
    !($2 in is_known) { print "line " NR ": no such suite: " $2 }' "$table")"
  [ -z "$bad" ] || { printf 'conformance gate: %s\n%s\n' "$table" "$bad" >&2; exit 2; }
}

# The lines of the suites that were asked for. Those without a test belong to all.
wanted() { awk -F'\t' -v suites=" ${suites[*]} " '!/^#/ && ($2 == "-" || index(suites, " " $2 " "))' "$table"; }

run_all() {
  local suite names folder expression="" options=()
  folder="$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/check"
  log="$folder/conformance.log"
  steps="$folder/conformance.tsv"
  for suite in "${suites[@]}"; do
    [ "$suite" != check ] || continue
    names="$(wanted | awk -F'\t' -v suite="$suite" '$2 == suite { print $3 }' | sort -u | paste -sd'|')"
    [ -n "$names" ] || continue
    if [ "$suite" = lib ]; then
      options+=(--lib)
      expression+="${expression:+ or }(kind(lib) and test(/^($names)\$/))"
    else
      options+=(--test "$suite")
      expression+="${expression:+ or }(binary($suite) and test(/^($names)\$/))"
    fi
  done
  mkdir -p "$folder"
  : >"$log"
  : >"$steps"
  [ "${#options[@]}" -eq 0 ] || run_tests "$expression" "${options[@]}"
  # What the tests have built is there for them.
  run_steps "$folder"
  [ -s "$log" ] || [ -s "$steps" ] || refuse "no line of $table belongs to ${suites[*]}"
}

run_tests() {
  local expression="$1"
  shift
  need_commands cargo || exit 2
  cargo nextest --version >/dev/null 2>&1 || { echo "missing: cargo-nextest. scripts/check.sh installs it." >&2; exit 2; }
  echo "running the tests that ${table#"$root"/} names; their output: $log" >&2
  # Its own verdict is not needed: what did not run or did not pass shows below.
  (cd "$root" && cargo nextest run --locked --no-fail-fast --color never --status-level all --final-status-level none \
    "$@" -E "$expression") >"$log" 2>&1 || true
  grep -q ' Summary ' "$log" || { tail -n 20 "$log" >&2; echo "conformance gate: the tests could not be run" >&2; exit 2; }
}

run_steps() {
  local step script said begin verdict status
  while read -r step; do
    script="$root/scripts/check_${step// /_}.sh"
    said="$1/${step// /_}.log"
    [ -x "$script" ] || refuse "there is no $script to run the step $step"
    echo "running the step $step; its output: $said" >&2
    begin=$SECONDS verdict=ok status=0
    timeout "$step_seconds_max" "$script" >"$said" 2>&1 </dev/null || status=$?
    [ "$status" -ne 2 ] || { tail -n 20 "$said" >&2; echo "conformance gate: the step $step could not be run" >&2; exit 2; }
    [ "$status" -eq 0 ] || verdict=fail
    printf '%s\t%s\t%s\n' "$step" "$verdict" $((SECONDS - begin)) >>"$steps"
  done < <(wanted | awk -F'\t' '$2 == "check" { print $3 }' | sort -u)
}

# A line of nextest:        PASS [   0.012s] ( 1/9) trust-runtime::api runs::suite::a_test
# A test of many lines says of each:    CASE api::runs::suite::a_test RR-1 ok 0.012
# Then only the lines that it calls failed fail with it; if it calls none so, it failed as a whole.
judge() {
  wanted | awk -F'\t' -v log_file="$log" -v steps_file="$steps" '
    function note(key, verdict, took) {
      if (!(key in found) || verdict != "PASS") found[key] = verdict
      if (took + 0 > seconds[key] + 0) seconds[key] = took
    }
    BEGIN {
      while ((getline text < steps_file) > 0) {
        split(text, words, "\t")
        note("check::" words[1], words[2] == "ok" ? "PASS" : "FAIL", words[3])
      }
      while ((getline text < log_file) > 0) {
        if (text ~ /^ *CASE [^ ]+ [^ ]+ (ok|fail) [0-9.]+$/) {
          split(text, words, " ")
          # As the compiler names the library.
          sub(/^trust_runtime::/, "lib::", words[2])
          speaks[words[2]] = 1
          told = words[2] "\t" words[3]
          if (words[4] == "fail") { cases[told] = "FAIL"; has_failed[words[2]] = 1 }
          else if (!(told in cases)) cases[told] = "PASS"
          case_seconds[told] += words[5]
          continue
        }
        if (!match(text, /^ *[A-Z-]+( [A-Z-]+)* +\[ *[0-9.]+s\]/)) continue
        count = split(text, words, " ")
        verdict = words[1]
        took = text; sub(/^[^\[]*\[ */, "", took); sub(/s\].*/, "", took)
        suite = words[count - 1]; if (!sub(/^trust-runtime::/, "", suite)) suite = "lib"
        if (verdict == "SLOW" || verdict == "TERMINATING") continue
        # What the steps of the check are called is theirs alone.
        if (suite != "check") note(suite "::" words[count], verdict, took)
      }
    }
    {
      if (!($1 in place)) { place[$1] = ++lines; names[lines] = $1 }
      if ($3 == "-") { open[$1] = 1; next }
      key = $2 "::" $3
      told = key "\t" $1
      if (key in found && key in speaks && (found[key] == "PASS" || key in has_failed)) {
        time[$1] += case_seconds[told]
        if (!(told in cases)) why[$1] = why[$1] "; says nothing of it: " $2 " " $3
        else if (cases[told] != "PASS") why[$1] = why[$1] "; " cases[told] ": " $2 " " $3
        next
      }
      time[$1] += seconds[key]
      if (!(key in found)) why[$1] = why[$1] "; did not run: " $2 " " $3
      else if (found[key] != "PASS") why[$1] = why[$1] "; " found[key] ": " $2 " " $3
    }
    END {
      for (at = 1; at <= lines; at++) {
        name = names[at]
        if (why[name] != "") { failed++; printf "FAIL %8.2f s  %s%s\n", time[name], name, why[name] }
        else if (name in open) { waiting++; printf "OPEN             %s\n", name }
        else { passed++; printf "PASS %8.2f s  %s\n", time[name], name }
      }
      printf "%d passed, %d failed, %d open\n", passed, failed, waiting
      exit failed > 0 || passed == 0
    }'
}

main "$@"
