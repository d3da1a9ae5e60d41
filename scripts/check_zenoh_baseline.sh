#!/usr/bin/env bash
# Checks that the Zenoh that is built, the Zenoh baseline of the examples and the decision page say the same.
#
# Exit codes: 0 all of it holds, 1 something does not (each fault is named), 2 the check itself could not be made.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly built="1.10.2"
readonly baseline="1.7.2"
readonly decision="docs/decisions/0004-zenoh-version.md"
faults=0

fault() {
  faults=$((faults + 1))
  echo "zenoh baseline: $1" >&2
}

for file in Cargo.toml Cargo.lock; do
  [ -r "$file" ] || {
    echo "zenoh baseline: $file cannot be read" >&2
    exit 2
  }
done

# The manifest pins exactly this version, in either way of writing a dependency.
pin="$(sed -nE -e 's/^zenoh[[:space:]]*=[[:space:]]*"([^"]*)".*/\1/p' \
  -e 's/^zenoh[[:space:]]*=[[:space:]]*\{.*version[[:space:]]*=[[:space:]]*"([^"]*)".*/\1/p' Cargo.toml)"
[ "$pin" = "=$built" ] || fault "Cargo.toml: wanted zenoh = \"=$built\", got \"${pin:-nothing}\""

# The lock file holds this version and no other beside it.
locked="$(awk '/^name = "zenoh"$/ { getline; gsub(/version = |"/, ""); print }' Cargo.lock | sort -u | paste -sd' ' -)"
[ "$locked" = "$built" ] || fault "Cargo.lock: wanted zenoh $built alone, got ${locked:-nothing}"

# Every example that names a baseline names ours, and at least one does.
named=0
while IFS= read -r -d '' file; do
  while IFS= read -r line; do
    named=$((named + 1))
    number="${line%%:*}"
    value="$(sed -nE 's/^[[:space:]]*zenohd_version[[:space:]]*=[[:space:]]*"([^"]*)".*/\1/p' <<<"${line#*:}")"
    [ "$value" = "$baseline" ] || fault "$file:$number: wanted zenohd_version = \"$baseline\", got: ${line#*:}"
  done < <(grep -nE '^[[:space:]]*zenohd_version' "$file" || true)
done < <(find examples -type f -name '*.toml' -print0 2>/dev/null | sort -z)
[ "$named" -gt 0 ] || fault "examples: no .toml file names zenohd_version"

if [ ! -r "$decision" ]; then
  fault "$decision is missing"
else
  for version in "$built" "$baseline"; do
    grep -qF -- "$version" "$decision" || fault "$decision: does not name $version"
  done
fi

if [ "$faults" -gt 0 ]; then
  echo "zenoh baseline: $faults faults" >&2
  exit 1
fi
echo "zenoh baseline: built on =$built, baseline $baseline in $named example settings"
