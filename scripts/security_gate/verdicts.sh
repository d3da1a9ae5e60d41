# shellcheck shell=bash disable=SC2154
# Sourced by the security gate: what becomes of a line. Every line is told, also one that was not run.

passed=0
failed=0
left_out=0
skipped=0
# Why the line at hand cannot be judged here, once it has said so.
cannot=""

# Runs a check and prints its verdict and its time. One that was not asked for is left out, and that is said. What programs say
# about it is in a file of the line's name, and the end of it beside a failure.
line() {
  local name="$1" what="$2" begin=$SECONDS
  shift 2
  if [ "${#only[@]}" -gt 0 ] && [[ " ${only[*]} " != *" $name "* ]]; then
    left_out=$((left_out + 1))
    printf 'LEFT OUT    %s\n' "$what"
    return
  fi
  cannot=""
  if "$@" 2>"$name.said"; then
    passed=$((passed + 1))
    printf 'PASS %3d s  %s\n' $((SECONDS - begin)) "$what"
  elif [ -n "$cannot" ]; then
    skipped=$((skipped + 1))
    printf 'SKIPPED     %s: needs %s\n' "$what" "$cannot"
  else
    failed=$((failed + 1))
    printf 'FAIL %3d s  %s\n' $((SECONDS - begin)) "$what"
    tail -n 5 "$name.said" | cut -c 1-400 | sed 's/^/            /'
  fi
}

# Ends a line that this machine cannot judge, and says what it would take.
needs() {
  cannot="$1"
  return 1
}

until_true() { within "$deadline_s" "$@"; }

within() {
  local end=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

# Ends with this exit code and with nothing else: what a program says is left in `said`.
ends_with() {
  local wanted="$1" code=0
  shift
  "$@" >said 2>&1 || code=$?
  [ "$code" -eq "$wanted" ]
}

finish() {
  local beside=""
  [ "$skipped" -eq 0 ] || beside+=", $skipped skipped"
  [ "$left_out" -eq 0 ] || beside+=", $left_out left out"
  printf '%d passed, %d failed%s\n' "$passed" "$failed" "$beside"
  [ "$failed" -eq 0 ]
}
