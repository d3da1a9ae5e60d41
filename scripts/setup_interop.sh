#!/bin/sh
# Makes one Python environment per version of the official Zenoh client that tests/interop speaks through:
# target/interop/<version>. What is already there is left alone. Arguments: the versions, or none for all of them.
set -eu

cd "$(dirname "$0")/.."
root="${CARGO_TARGET_DIR:-target}/interop"
python="${PYTHON:-python3}"

[ $# -gt 0 ] || set -- 1.7.2 1.10.2
mkdir -p "$root"

for version in "$@"; do
    folder="$root/$version"
    # One at a time for each version: test processes may come here together.
    exec 9>"$root/$version.lock"
    flock 9
    if [ -f "$folder/complete" ]; then
        continue
    fi
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "eclipse-zenoh==$version"
    "$folder/bin/python" -c "import zenoh"
    # Last, so that an interrupted installation is begun again.
    touch "$folder/complete"
done
