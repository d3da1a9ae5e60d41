#!/bin/sh
# Makes the Python environment of Schemathesis, which reads both descriptions of the API and tries the node against them:
# target/schemathesis/<checksum of scripts/schemathesis.txt>. What is already there is left alone. Prints its folder.
set -eu

cd "$(dirname "$0")/.."
root="${CARGO_TARGET_DIR:-target}/schemathesis"
python="${PYTHON:-python3}"
folder="$root/$(cksum <scripts/schemathesis.txt | cut -d' ' -f1)"

mkdir -p "$root"
# One at a time.
exec 9>"$root/lock"
flock 9
if [ ! -f "$folder/complete" ]; then
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --requirement scripts/schemathesis.txt >&2
    # Last, so that an interrupted installation is begun again.
    touch "$folder/complete"
fi
realpath "$folder"
