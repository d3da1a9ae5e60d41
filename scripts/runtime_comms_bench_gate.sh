#!/usr/bin/env bash
# Runs every benchmark, prints each ratio beside its baseline, and says loudly which one has become worse.
#
# Every `[[bench]]` of Cargo.toml is run: it prints rows of name, ratio, aim and unit as JSON. A ratio is the node's number
# over that of its floor, measured in turn in the same run, so a slow or busy machine changes it little. With the unit 1/s more
# is better, otherwise less. A row is worse when it is beyond its baseline by more than the tolerance that stands beside it, and
# misses when it is beyond its aim. A row that misses for a reason that is known has it in the baseline, as "missed".
#
#   scripts/runtime_comms_bench_gate.sh            compares with benches/baseline.json
#   scripts/runtime_comms_bench_gate.sh --json     prints JSON instead of the table
#   scripts/runtime_comms_bench_gate.sh --save     makes what is measured now the baseline; tolerances and reasons stay
#   scripts/runtime_comms_bench_gate.sh --bench mesh   one benchmark, may be repeated
#
# Environment:
#   BENCH_RESULTS   a folder with NAME.json for each benchmark, instead of running them
#   BENCH_BASELINE  another baseline [benches/baseline.json]
#
# Exit codes: 0 nothing is worse, 1 something is, or misses its aim, or stands in the baseline or among what was measured but not
# in both, 2 wrong usage, a missing prerequisite, or a benchmark that did not come to its end.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"

# How much worse a row may be that has no tolerance of its own, as a part of its baseline.
readonly tolerance_default=0.3

baseline="${BENCH_BASELINE:-$root/benches/baseline.json}"
results="${BENCH_RESULTS:-}"
form=table
benches=()
is_whole=no
scratch=""

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"; }

main() {
  parse "$@"
  need_commands jq || exit 2
  [ "${#benches[@]}" -gt 0 ] || everything
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/trust-runtime-bench.XXXXXX")"
  trap 'rm -rf "$scratch"' EXIT
  local bench
  for bench in "${benches[@]}"; do measure "$bench"; done
  jq -s 'add' "$scratch"/*.rows >"$scratch/measured.json"
  if [ "$form" = save ]; then
    save
  else
    compare
  fi
}

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --json) form=json ;;
    --save) form=save ;;
    --bench)
      known_benches | grep -qxF -- "${2:-}" || refuse "no such benchmark: '${2:-}'. There are: $(known_benches | paste -sd' ')"
      benches+=("$2")
      shift
      ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown argument: $1" ;;
    esac
    shift
  done
}

# Then every row of the baseline is wanted, also one whose benchmark is no longer there.
everything() {
  is_whole=yes
  mapfile -t benches < <(known_benches)
  [ "${#benches[@]}" -gt 0 ] || { echo "bench gate: Cargo.toml has no benchmark" >&2; exit 2; }
}

refuse() {
  usage >&2
  echo "bench gate: $1" >&2
  exit 2
}

known_benches() { awk '/^\[\[bench\]\]/ { inside = 1; next } /^\[/ { inside = 0 } inside && /^name = / { gsub(/"/, "", $3); print $3 }' "$root/Cargo.toml"; }

# Gives the rows of one benchmark, each with the benchmark's name.
measure() {
  local bench="$1" file="$scratch/$1.json"
  if [ -n "$results" ]; then
    cp "$results/$bench.json" "$file" 2>/dev/null || { echo "bench gate: there is no $results/$bench.json" >&2; exit 2; }
  else
    need_commands cargo || exit 2
    echo "measuring $bench" >&2
    (cd "$root" && cargo bench --locked --quiet --bench "$bench" -- --json) >"$file" ||
      { echo "bench gate: $bench did not come to its end" >&2; exit 2; }
  fi
  jq -e --arg bench "$bench" '
    def is_above_zero: type == "number" and . > 0;
    if type == "array" and length > 0 and all(.[]; (.name, .unit | type == "string") and (.ratio, .aim | is_above_zero))
    then map({ bench: $bench, name, ratio, aim, unit }) else error("no rows") end' "$file" >"$scratch/$bench.rows" 2>/dev/null ||
    { echo "bench gate: $bench printed no rows of name, ratio, aim and unit" >&2; exit 2; }
}

# The benchmarks that were asked for, and whether a row of the baseline is one that they should have given.
wanted() {
  jq -n --arg is_whole "$is_whole" '{ is_whole: ($is_whole == "yes"), benches: $ARGS.positional }' --args "${benches[@]}"
}

# Small ratios keep three digits, others three places.
save() {
  local before='[]'
  [ ! -s "$baseline" ] || before="$(<"$baseline")"
  jq --argjson before "$before" --argjson default "$tolerance_default" --argjson wanted "$(wanted)" '
    def key: .bench + "/" + .name;
    def is_wanted: .bench as $bench | $wanted.is_whole or any($wanted.benches[]; . == $bench);
    def short: pow(10; [3, 2 - (log10 | floor)] | max) as $by | (. * $by | round) / $by;
    ($before | map({ (key): . }) | add // {}) as $old
    | map({ bench, name, unit, ratio: (.ratio | short), tolerance: ($old[key].tolerance // $default) }
        + ($old[key] // {} | if has("missed") then { missed } else {} end)) as $new
    | [$before[] | select(is_wanted | not)] + $new | sort_by(.bench)' "$scratch/measured.json" >"$scratch/baseline"
  cp "$scratch/baseline" "$baseline"
  echo "saved: $baseline" >&2
}

compare() {
  [ -s "$baseline" ] || { echo "bench gate: there is no baseline $baseline; --save makes one" >&2; exit 2; }
  jq --slurpfile baseline "$baseline" --argjson wanted "$(wanted)" '
    def key: .bench + "/" + .name;
    def is_wanted: .bench as $bench | $wanted.is_whole or any($wanted.benches[]; . == $bench);
    def is_beyond(bound): if .unit == "1/s" then .ratio < bound else .ratio > bound end;
    def allowed: if .unit == "1/s" then .baseline * (1 - .tolerance) else .baseline * (1 + .tolerance) end;
    . as $measured
    | ($baseline[0] | map({ (key): . }) | add // {}) as $old
    | map($old[key] as $base
        | . + { baseline: $base.ratio, tolerance: $base.tolerance, missed: $base.missed }
        | . + { change: (if $base then .ratio / $base.ratio - 1 else null end) }
        | . + { verdict: (
            if $base == null then "NEW"
            elif .unit != $base.unit then "UNIT"
            elif is_beyond(allowed) then "WORSE"
            elif is_beyond(.aim) then "MISSED"
            else "PASS" end) })
      + [$old[] | select(is_wanted) | select(key as $key | $measured | all(key != $key))
          | { bench, name, unit, ratio: null, baseline: .ratio, tolerance, change: null, verdict: "GONE" }]' \
    "$scratch/measured.json" >"$scratch/compared.json"
  if [ "$form" = json ]; then
    cat "$scratch/compared.json"
  else
    show
  fi
  judge
}

show() {
  jq -r '.[] | [.verdict, .bench, .name, .ratio // 0, .baseline // 0, (.change // 0) * 100, (.tolerance // 0) * 100,
    (if .unit == "1/s" then ">=" else "<=" end), .aim // 0, (if .verdict == "MISSED" then .missed // "" else "" end)] | @tsv' \
    "$scratch/compared.json" |
    awk -F'\t' 'BEGIN { printf "%-6s %-8s %-36s %8s %9s %8s %8s %9s\n", "", "bench", "", "ratio", "baseline", "change", "allowed", "aim" }
      { printf "%-6s %-8s %-36s %8.2f %9.2f %+7.0f%% %7.0f%% %3s %5.2f%s\n", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 == "" ? "" : "  known: " $10 }'
}

# Says loudly what does not hold, one line for each kind of it.
judge() {
  local bad
  bad="$(jq -r '
    { WORSE: "WORSE than the baseline", MISSED: "MISSED the aim", GONE: "GONE, it has a baseline and was not measured",
      NEW: "NEW, it has no baseline", UNIT: "UNIT differs from that of the baseline" } as $words
    | map(select(.verdict != "PASS" and (.verdict != "MISSED" or (.missed // "") == "")))
    | group_by(.verdict)[] | $words[.[0].verdict] + ": " + (map(.bench + ": " + .name) | join("; "))' "$scratch/compared.json")"
  [ -z "$bad" ] || { printf '\n%s\n' "$bad" >&2; exit 1; }
}

main "$@"
