# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: what is on record, what was done to a record, and what a node does that cannot record.

audit_verifies() {
  local folder
  for folder in north-a north-b north-g south-s west-w; do
    "$bin" audit verify --project "$folder" >/dev/null || return 1
  done
}

heads_are_countersigned() { until_true countersigned north-a north/b && until_true countersigned north-b north/a; }

# Whether a peer has countersigned every record of the log.
countersigned() {
  "$bin" audit verify --project "$1" --json >verdict.json || return 1
  jq -e --arg by "$2" '.chains[0].completeness.text | split("; ") | (.[0] | capture("record (?<n>[0-9]+)").n) as $n |
    index("0 records are newer") and index("countersigned up to record \($n) by \($by)")' verdict.json >/dev/null
}

# The whole folder of an earlier moment: it holds by itself, and not by the head that a peer has kept since.
restored_log_is_found() {
  acts north-b debug && until_true countersigned north-b north/a || return 1
  copy_of north-b earlier || return 1
  acts north-b info && until_true countersigned north-b north/a || return 1
  "$bin" audit export --project north-a --checkpoints kept-by-a >/dev/null || return 1
  "$bin" audit verify --project earlier >/dev/null || return 1
  "$bin" audit verify --project north-b --checkpoints kept-by-a >/dev/null || return 1
  is_broken earlier restored --checkpoints kept-by-a
}

# One write, with its record.
acts() { "$bin" ctl config-set log.level "$2" --project "$1" >/dev/null; }

# The project of a running node as a backup has it: each database at one moment.
copy_of() {
  rm -rf "$2"
  cp -r "$1" "$2"
  python3 - "$1/state" "$2/state" <<'PY'
import pathlib, sqlite3, sys
source, copy = map(pathlib.Path, sys.argv[1:])
for name in source.glob("*.db"):
    for beside in copy.glob(name.name + "*"):
        beside.unlink()
    with sqlite3.connect(name) as one, sqlite3.connect(copy / name.name) as other:
        one.backup(other)
PY
}

is_broken() {
  local project="$1" fault="$2"
  shift 2
  ends_with 1 "$bin" audit verify --project "$project" "$@" && grep -q "BROKEN ($fault" said
}

# --- A log that somebody was at: each in a copy of a node that has ended, which verified before ------------------------

# Changes records by a line of Python, to which `db` is the log and `last` its newest record.
damaged_log_is_found() {
  local fault="$1" deed="$2"
  if [ "${#pids[@]}" -gt 0 ]; then
    acts south-s debug && acts south-s info && acts south-s debug || return 1
    stop_nodes
  fi
  rm -rf damaged
  cp -r south-s damaged
  "$bin" audit verify --project damaged >/dev/null || return 1
  python3 - damaged/state/control.db "$deed" <<'PY' || return 1
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
last = db.execute("SELECT max(seq) FROM audit").fetchone()[0]
exec(sys.argv[2])
db.commit()
PY
  is_broken damaged "$fault"
}

edit='body = bytearray(db.execute("SELECT body FROM audit WHERE seq = ?", (last - 1,)).fetchone()[0].encode())
body[len(body) // 2] ^= 1
db.execute("UPDATE audit SET body = ? WHERE seq = ?", (body.decode("utf-8", "replace"), last - 1))'
swap='one, other = ([*db.execute("SELECT audit_id, at_ns, actor, action, target, request_id, body, hash FROM audit WHERE seq = ?",
    (seq,)).fetchone()] for seq in (last - 1, last - 2))
for seq, row in ((last - 1, other), (last - 2, one)):
    db.execute("UPDATE audit SET audit_id = ?, at_ns = ?, actor = ?, action = ?, target = ?, request_id = ?, body = ?, hash = ? WHERE seq = ?", (*row, seq))'
remove='db.execute("DELETE FROM audit WHERE seq = ?", (last - 1,))'
truncate='db.execute("DELETE FROM audit WHERE seq >= ?", (last - 1,))'

edited_log_is_found() { damaged_log_is_found edited "$edit"; }
reordered_log_is_found() { damaged_log_is_found reordered "$swap"; }
gap_in_log_is_found() { damaged_log_is_found removed "$remove"; }
truncated_log_is_found() { damaged_log_is_found truncated "$truncate"; }

# --- A disk without room ----------------------------------------------------------------------------------------------

# A small disk of its own under a node's state, as only root may have one.
full_disk_stops_writes() {
  mkdir -p north-d/state
  mount -t tmpfs -o size=3m tmpfs north-d/state 2>/dev/null || { needs 'root, to mount a small disk'; return 1; }
  mounts+=("$scratch/north-d/state")
  node plant north d "$(mesh_of north-a)"
  until_true peer_is north-a d trusted online && acts north-d debug || return 1
  dd if=/dev/zero of=north-d/state/filler bs=4k count=2k 2>/dev/null && return 1
  until_true write_finds_no_room && owner_opens north-d && knows north-a d || return 1
  rm north-d/state/filler
  until_true acts north-d debug
}

# Ever other values, as long as there is room: what is refused has its code.
write_finds_no_room() {
  "$bin" ctl config-set log.level "$([ $((RANDOM % 2)) -eq 0 ] && echo info || echo debug)" --project north-d >said 2>&1 && return 1
  grep -q storage_unavailable said
}

all_are_there() {
  local pid
  for pid in "${pids[@]}"; do kill -0 "$pid" || return 1; done
}
