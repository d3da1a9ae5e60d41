#!/usr/bin/env bash
# Breaks the security core in every small way that cargo-mutants knows, and shows each break that no test notices.
#
#   scripts/mutants.sh [--re REGEX] [--only N,N,...] [--jobs N]     all in one build (scripts/mutants_at_once.py)
#   scripts/mutants.sh --each [option of cargo-mutants ...]         one build for each, such as: --re 'Condition', --list
#
# Only the layers that need no IO are built, as a package of their own with the tests that judge them. What is broken and
# what is left out says .cargo/mutants.toml. Verdicts of the first form go to target/mutants/verdicts.tsv.
#
# Environment:
#   CARGO_TARGET_DIR          where to work [target]
#
# Exit codes: 0 every mutant was noticed, 2 some were not, others as cargo-mutants says.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Raised by hand, when there is a reason.
readonly mutants_version="27.1.0"
readonly layers="domain engine settings wire"

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
package="$target/mutants/package"

main() {
  need_mutants
  make_package
  # Few seeds for each mutant: what only one world in hundreds shows has a scenario of its own.
  export CARGO_TARGET_DIR="$target/mutants/build" SIM_SEEDS="${SIM_SEEDS:-8}" MODEL_DEPTH="${MODEL_DEPTH:-3}"
  # One build is run a thousand times.
  export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_TEST_OPT_LEVEL=1 CARGO_PROFILE_DEV_OPT_LEVEL=1
  if [ "${1:-}" = --each ]; then
    exec cargo mutants --dir "$package" --in-place --output "$target/mutants" --no-times "${@:2}"
  fi
  cargo mutants --dir "$package" --list --json --diff >"$target/mutants/list.json"
  exec python3 scripts/mutants_at_once.py "$package" "$target/mutants/verdicts.tsv" "$target/mutants/list.json" "$@"
}

need_mutants() {
  cargo mutants --version 2>/dev/null | grep -qF " $mutants_version" && return 0
  cargo install cargo-mutants --version "$mutants_version" --locked
}

# A copy, because mutants are written into it.
make_package() {
  rm -rf "$package"
  mkdir -p "$package/src" "$package/tests"
  cp -r Cargo.lock clippy.toml rust-toolchain.toml .cargo examples "$package/"
  local layer
  for layer in $layers; do
    cp -r "src/$layer" "$package/src/"
    echo "pub mod $layer;" >>"$package/src/lib.rs"
  done
  mkdir "$package/.config"
  cp -r tests/conformance tests/simulation tests/support "$package/tests/"
  manifest >"$package/Cargo.toml"
  nextest_settings >"$package/.config/nextest.toml"
  # The tests of the settings compare a page with the program's own text.
  mkdir -p "$package/docs/reference"
  cp docs/reference/settings.md "$package/docs/reference/"
}

# One failure is enough to notice a mutant; that a seed replays says nothing of one.
nextest_settings() {
  cat <<'SETTINGS'
[profile.default]
fail-fast = true
slow-timeout = { period = "30s", terminate-after = 2 }
default-filter = "not test(/seeds?_(differ|gives)/)"
SETTINGS
}

# The manifest without the targets and the dependencies of the layers that are left out.
manifest() {
  awk -v gone="$(gone)" '
    BEGIN { split(gone, names); for (i in names) dropped[names[i]] = 1 }
    /^\[/ { section = $0; held = "" }
    /^\[(lib|package|profile|lints|dependencies|dev-dependencies)/ { shown = 1 }
    /^\[\[(bench|bin|test)\]\]/ || /^\[(features|lints|patch|workspace)/ { shown = 0 }
    /^\[\[test\]\]/ { held = $0; next }
    held != "" && /^name = "(conformance|simulation)"/ { print held; held = ""; shown = 1 }
    section ~ /dependencies/ && ($1 in dropped) { next }
    shown { print }
  ' Cargo.toml
  # It stands in the folder of another workspace and is none of its members.
  echo "[workspace]"
}

# Dependencies that no layer here names.
gone() {
  local name
  sed -nE '/dependencies\]$/,/^\[(lints|features)/s/^([a-z0-9_-]+) = .*/\1/p' Cargo.toml | sort -u | while read -r name; do
    grep -rqE "\b${name//-/_}::" --include='*.rs' "$package/src" "$package/tests" || [ "$name" = rustls-webpki ] || echo "$name"
  done
}

main "$@"
