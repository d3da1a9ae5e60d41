#!/usr/bin/env bash
# Shows with a real browser, headless Chromium, what a person at a panel PC meets: a node of a plant and one of another site in
# profile wan are opened over HTTPS, with the site's anchors in the browser's store and without them. No certificate error is
# ever waved through; one verdict a line.
#
#   scripts/runtime_cloud_browser_gate.sh               every line
#   scripts/runtime_cloud_browser_gate.sh --only page   this line, may be repeated; the others are shown as left out
#
# It installs Debian's chromium and libnss3-tools where they are missing and it may: some 113 MB.
#
# Environment:
#   TRUST_RUNTIME_BIN     a built binary; without it the release build is made first
#   TRUST_GATE_BROWSER    the browser, one that speaks the DevTools protocol over a pipe [chromium]
#   TRUST_GATE_DEADLINE_S how long each thing may take, in seconds [30]
#
# Exit codes: 0 every line passed, 1 a line failed, 2 wrong usage, a missing prerequisite, or a node that did not start.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=scripts/bound.sh
. "$root/scripts/bound.sh"
for part in verdicts nodes asking; do
  # shellcheck source=/dev/null
  . "$root/scripts/security_gate/$part.sh"
done

# Shared with the parts, as are `root`, `scratch`, `bin` and `only`.
# shellcheck disable=SC2034
deadline_s="${TRUST_GATE_DEADLINE_S:-30}"
browser="${TRUST_GATE_BROWSER:-chromium}"
scratch=""
bin=""
only=()

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"; }

main() {
  parse "$@"
  need_commands curl jq python3 setpriv certutil "$browser" || exit 2
  find_binary
  trap clean_up EXIT
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/trust-runtime-gate.XXXXXX")"
  cd "$scratch"
  "$browser" --version 2>/dev/null || true
  two_sites

  line unknown-authority "a browser without the site's anchors opens neither node" nobody_is_trusted
  line other-authority "the anchors of one site open no page of the other's node" each_site_for_itself
  line wrong-name "a node is not opened by a name that its certificate does not have" wrong_name_is_refused
  line page "with the site's anchors the page of a node opens, in plant and in wan, by TLS 1.3" pages_open
  line token "a script of that page reads the fleet with a token, and nothing with a wrong one or without" page_reads
  line act "it asks whether it may act, and acts by the plan" page_acts
  line stream "it follows the fleet as it changes" page_follows
  line silent-page "by itself a node's page lets no script ask anybody" page_is_silent
  line other-origin "a page of another origin gets nothing from a node, with a token or without" other_origin_is_refused
  finish
}

# A node of a plant, and one of another site in wan.
two_sites() {
  local site
  for site in north south west; do authority "$site"; done
  person north alice
  node plant north a
  node wan south s "" "$(router west "")"
  "$bin" token create --project north-a --role operator --actor alice --expires-days 1 --json >made.json 2>/dev/null
  jq -r .token made.json >token
  # The node reads a new token soon, and not at once.
  until_true opens north-a "$(<token)" 200 || { echo "gate: the node does not take up a token" >&2; exit 2; }
  home nobody
  home of-north north
  home of-south south
  home of-both north south
}

# A home folder whose browser trusts the anchors of these sites, as docs/guides/RUNTIME_CLOUD_PROFILE_COOKBOOK.md has it.
home() {
  local folder="$1/.pki/nssdb" site
  mkdir -p "$folder"
  certutil -N -d "sql:$folder" --empty-password
  for site in "${@:2}"; do
    certutil -A -d "sql:$folder" -n "site $site" -t C,, -a -i "ca-$site/anchors-$site.pem"
  done
}

# --- The lines -------------------------------------------------------------------------------------------------------

nobody_is_trusted() { refused nobody "$(web_of north-a)" AUTHORITY_INVALID && refused nobody "$(web_of south-s)" AUTHORITY_INVALID; }

each_site_for_itself() { refused of-south "$(web_of north-a)" AUTHORITY_INVALID && refused of-north "$(web_of south-s)" AUTHORITY_INVALID; }

# The certificate has the address and no name.
wrong_name_is_refused() { refused of-north "$(web_of north-a | sed 's/127\.0\.0\.1/localhost/')" COMMON_NAME_INVALID; }

pages_open() { browses of-north opens "$(web_of north-a)" north/a && browses of-south opens "$(web_of south-s)" south/s; }

page_reads() { browses of-north reads "$(web_of north-a)" north/a; }

page_acts() { browses of-north acts "$(web_of north-a)" "$(asked north-a a cmd_invoke '{"command":"ping"}')"; }

page_follows() { browses of-north follows "$(web_of north-a)" north/a; }

page_is_silent() { browses of-north is-silent "$(web_of north-a)"; }

other_origin_is_refused() { browses of-both is-foreign "$(web_of south-s)" "$(web_of north-a)"; }

refused() { browses "$1" is-refused "$2" "net::ERR_CERT_$3"; }

# A browser of its own for each question, which ends with it.
browses() {
  local pid code=0
  TRUST_GATE_BROWSER="$browser" TRUST_GATE_DEADLINE_S="$deadline_s" TRUST_GATE_TOKEN="$scratch/token" \
    bound python3 "$root/scripts/browser.py" "$scratch/$1" "${@:2}" &
  pid="$!"
  wait "$pid" || code=$?
  return "$code"
}

# --- Usage -----------------------------------------------------------------------------------------------------------

parse() {
  while [ "$#" -gt 0 ]; do
    case "$1" in
    --only)
      known_lines | grep -qxF -- "${2:-}" || refuse "no such line: '${2:-}'. There are: $(known_lines | paste -sd' ')"
      only+=("$2")
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
  echo "browser gate: $1" >&2
  exit 2
}

known_lines() { sed -nE 's/^  line ([a-z-]+) ".*/\1/p' "${BASH_SOURCE[0]}"; }

main "$@"
