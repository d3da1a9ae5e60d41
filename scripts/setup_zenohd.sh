#!/bin/sh
# Builds Zenoh's own router, which tests/interop puts between our nodes: target/zenohd/bin/zenohd, with links over TCP and
# TLS alone. One that is complete is left alone. A first build takes some minutes.
set -eu

cd "$(dirname "$0")/.."
root="${CARGO_TARGET_DIR:-target}/zenohd"
# The release that the nodes are built on: scripts/check_zenoh_baseline.sh.
version=1.10.2

mkdir -p "$root"
# One at a time: test processes may come here together.
exec 9>"$root/lock"
flock 9
if [ -f "$root/complete-$version" ]; then
    exit 0
fi
# Without debug information, and without the flags of the build that may have started this.
env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS cargo install zenohd --version "=$version" --locked --debug --force \
    --no-default-features --features zenoh/transport_tcp,zenoh/transport_tls \
    --config profile.dev.debug=0 --config 'profile.dev.strip="symbols"' \
    --root "$root" --target-dir "$root/build"
"$root/bin/zenohd" --version
# The program is all that is needed.
rm -rf "$root/build"
# Last, so that an interrupted build is begun again.
touch "$root/complete-$version"
