#!/usr/bin/env bash
# Runs every benchmark, prints each ratio beside its baseline, and says loudly which one has become worse.
#
# Every `[[bench]]` of Cargo.toml is run: it prints rows of name, ratio, aim and unit as JSON. A ratio is the node's number
# over that of its floor, measured in turn in the same run, so a slow or busy machine changes it little. With the unit 1/s more
# is better, otherwise less. A row is worse when it is beyond its baseline by more than the tolerance that stands beside it.
#
#   scripts/runtime_comms_bench_gate.sh            compares with benches/baseline.json
#   scripts/runtime_comms_bench_gate.sh --json     prints JSON instead of the table
#   scripts/runtime_comms_bench_gate.sh --save     makes what is measured now the baseline; tolerances stay
#   scripts/runtime_comms_bench_gate.sh --bench mesh   one benchmark, may be repeated
#
# Environment:
#   BENCH_RESULTS   a folder with NAME.json for each benchmark, instead of running them
#   BENCH_BASELINE  another baseline [benches/baseline.json]
#
# Exit codes: 0 nothing is worse, 1 something is, or a row of the baseline was not measured, 2 wrong usage, a missing
# prerequisite, or a benchmark that did not come to its end.
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
scratch=""

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"; }

main() {
  parse "$@"
  need_commands jq || exit 2
  [ "${#benches[@]}" -gt 0 ] || mapfile -t benches < <(known_benches)
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
      known_benches | grep -qx -- "${2:-}" || refuse "no such benchmark: '${2:-}'. There are: $(known_benches | paste -sd' ')"
      benches+=("$2")
      shift
      ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown argument: $1" ;;
    esac
    shift
  done
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
  jq -e --arg bench "$bench" 'if type == "array" and length > 0 and all(.[]; (.name | type == "string") and (.ratio | type == "number") and .ratio > 0)
    then map({ bench: $bench, name, ratio, aim, unit }) else error("no rows") end' "$file" >"$scratch/$bench.rows" 2>/dev/null ||
    { echo "bench gate: $bench printed no rows of name and ratio" >&2; exit 2; }
}

save() {
  local before='[]'
  [ ! -s "$baseline" ] || before="$(<"$baseline")"
  jq --argjson before "$before" --argjson default "$tolerance_default" '
    def key: .bench + "/" + .name;
    ($before | map({ (key): . }) | add // {}) as $old
    | map({ bench, name, unit, ratio: (.ratio * 1000 | round / 1000), tolerance: ($old[key].tolerance // $default) }) as $new
    | [$before[] | select(key as $key | $new | all(key != $key))] + $new | sort_by(.bench)' "$scratch/measured.json" >"$scratch/baseline"
  cp "$scratch/baseline" "$baseline"
  echo "saved: $baseline" >&2
}

compare() {
  [ -s "$baseline" ] || { echo "bench gate: there is no baseline $baseline; --save makes one" >&2; exit 2; }
  local wanted
  wanted="$(printf '%s\n' "${benches[@]}" | jq -R . | jq -s .)"
  jq --slurpfile baseline "$baseline" --argjson wanted "$wanted" '
    def key: .bench + "/" + .name;
    . as $measured
    | ($baseline[0] | map({ (key): . }) | add // {}) as $old
    | map(. as $row | $old[key] as $base
        | . + { baseline: $base.ratio, tolerance: $base.tolerance }
        | . + { change: (if $base then .ratio / $base.ratio - 1 else null end) }
        | . + { verdict: (
            if $base == null then "NEW"
            elif (if .unit == "1/s" then .ratio < $base.ratio * (1 - $base.tolerance) else .ratio > $base.ratio * (1 + $base.tolerance) end) then "WORSE"
            else "PASS" end) })
      + [$old[] | select(.bench as $bench | $wanted | index($bench)) | select(key as $key | $measured | all(key != $key))
          | { bench, name, unit, ratio: null, baseline: .ratio, tolerance, change: null, verdict: "GONE" }]' \
    "$scratch/measured.json" >"$scratch/compared.json"
  if [ "$form" = json ]; then
    cat "$scratch/compared.json"
  else
    jq -r '.[] | [.verdict, .bench, .name, .ratio // 0, .baseline // 0, (.change // 0) * 100, (.tolerance // 0) * 100, (if .unit == "1/s" then ">=" else "<=" end), .aim // 0] | @tsv' "$scratch/compared.json" |
      awk -F'\t' 'BEGIN { printf "%-5s %-8s %-36s %8s %9s %8s %8s %9s\n", "", "bench", "", "ratio", "baseline", "change", "allowed", "aim" }
        { printf "%-5s %-8s %-36s %8.2f %9.2f %+7.0f%% %7.0f%% %3s %5.2f\n", $1, $2, $3, $4, $5, $6, $7, $8, $9 }'
  fi
  local worse
  worse="$(jq -r '[.[] | select(.verdict == "WORSE" or .verdict == "GONE") | .bench + ": " + .name] | join("; ")' "$scratch/compared.json")"
  [ -z "$worse" ] || { printf '\nWORSE than the baseline, or gone: %s\n' "$worse" >&2; exit 1; }
}

main "$@"
