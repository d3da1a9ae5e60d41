#!/usr/bin/env bash
# Shows on real nodes what the security profiles promise, one verdict a line: a plant of two nodes, and the routers of three
# sites in profile wan, each with an authority of its own. All links are inside TLS.
#
#   scripts/runtime_cloud_security_profile_gate.sh              every line
#   scripts/runtime_cloud_security_profile_gate.sh --only ban   this line, may be repeated; the others are shown as left out
#
# Environment:
#   TRUST_RUNTIME_BIN     a built binary; without it the release build is made first
#   TRUST_GATE_DEADLINE_S how long each thing may take, in seconds [30]
#
# Exit codes: 0 every line passed, 1 a line failed, 2 wrong usage, a missing prerequisite, or a node that did not start.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/prerequisites.sh
. "$root/scripts/prerequisites.sh"
# shellcheck source=scripts/bound.sh
. "$root/scripts/bound.sh"
# What a reader finds where: a line's function is in the part of its subject.
for part in verdicts nodes asking links callers authority sites evidence; do
  # shellcheck source=/dev/null
  . "$root/scripts/security_gate/$part.sh"
done

# Shared with the parts, as are `root`, `scratch`, `bin` and `only`.
# shellcheck disable=SC2034
deadline_s="${TRUST_GATE_DEADLINE_S:-30}"
scratch=""
bin=""
only=()

usage() { sed -n '2,/^[^#]/{ s/^# \{0,1\}//p }' "${BASH_SOURCE[0]}"; }

main() {
  parse "$@"
  need_commands curl jq python3 setpriv || exit 2
  need_faketime || exit 2
  find_binary
  trap clean_up EXIT
  scratch="$(mktemp -d "${TMPDIR:-/tmp}/trust-runtime-gate.XXXXXX")"
  cd "$scratch"
  three_sites

  line preconditions "a profile without its preconditions does not start, and says what is missing" unmet_preconditions
  line plant-links "nodes of a plant link and trust each other" knows north-a b
  line mesh-strangers "a mesh listener in plant speaks to nobody without a certificate" strangers_do_not_link
  line router-without-tls "a router without TLS links with no other site, and says so" router_wants_tls
  line partner-address "a partner's address lets in the partner's nodes, and nobody of the own site" partner_alone_is_let_in
  line site-links "the routers of three sites link, each with each, and trust each other by the anchors of each site" each_pair knows
  line foreign-authority "a site's authority speaks for no other site, neither on the mesh nor over HTTPS" authority_speaks_for_itself_alone

  line old-tls "the listener speaks TLS 1.3 and nothing older" old_tls_is_refused
  line anonymous "nobody is let in without a credential" anonymous_is_refused
  line certificate "a certificate names its actor, and the grant says what that one may" certificate_is_granted
  line foreign-certificate "a certificate of another authority does not get through the handshake" foreign_certificate_is_refused
  line token "a token opens what its role allows until it is revoked" token_lives_and_dies
  line token-elsewhere "a token of one site opens nothing at the other" token_is_local
  line rate "a credential that asks too often is told so, and nobody else" rates_are_kept
  line guesses "who guesses credentials is put off, and nobody else" guesses_are_put_off
  line slow-callers "two hundred callers who only hold the line hold up nobody" slow_callers_hold_up_nobody

  line enrolment "a node enrols by words that are compared, by no others, and joins the plant" node_enrols_by_words
  line join-token "a join token lets one key in, once" join_token_is_for_one
  line renewal "a certificate near its end is renewed over the mesh, for the same key" certificate_renews_itself

  line read-crosses "a read crosses between each two of the three sites" each_pair read_crosses
  line write-denied "a write between sites is denied by default, between each two" each_pair write_is_denied
  append north-g '[[runtime.cloud.wan.allow_write]]' 'action = "cmd_invoke/ping"' 'target = "south/s"'
  line write-at-origin "allowed at the origin alone it is denied by the target" until_true pings north-g south/s permission_denied target
  append south-s '[[runtime.cloud.wan.accept_write]]' 'action = "cmd_invoke/ping"' 'actor = "north/alice"'
  line write-at-both "exact rules at both ends allow it" until_true pings north-g south/s ok target
  line write-unplanned "without the plan that was made for it, it is refused" write_without_plan_is_refused
  line explain "the rules explain themselves offline" rules_explain
  restore south-s
  line rule-taken-back "a rule that is taken back counts on the running node" until_true pings north-g south/s permission_denied target
  line rules-tested "the tests in a file of rules pass, and a wrong expectation fails and is named" rules_are_tested
  line bundle "a partner's trust bundle is taken by words or signature, and never one from before" bundle_is_taken_in_order
  line bundle-stale "a partner's bundle that is too old stops writes, and no reads" stale_bundle_stops_writes

  line bad-file "a bad file changes nothing and is named" bad_file_changes_nothing
  line reload "a reload lists what counts, what waits for a restart and what was rejected" reload_tells_what_counts
  line reload-signal "the signal HUP is a reload, and ends nothing" signal_reloads

  line countersigned "nodes of a site countersign each other's audit logs" heads_are_countersigned
  line audit-restored "an audit log brought back from a backup is found out by the head that a peer keeps" restored_log_is_found
  line disk-full "a full disk stops writes, no reads, and comes back by itself" full_disk_stops_writes
  line rotation "an authority changes its key in steps after each of which everybody is let in, and then the old key opens nothing" authority_changes_its_key
  line certificate-ends "a certificate that ends while linked ends the link" ended_certificate_ends_the_link
  line node-ban "a ban on a node cuts its links" banned_node_is_cut_off
  "$bin" identity ban --ca ca-north --id spiffe://trust/north/alice --reason gate >/dev/null
  line ban "a ban shuts an actor out of running nodes" until_true banned_actor_is_shut_out

  line alive "every node is still there" all_are_there
  line audit "the audit log verifies on the nodes of the three sites" audit_verifies
  line audit-edited "an edited audit log is found out" edited_log_is_found
  line audit-reordered "a reordered audit log is found out" reordered_log_is_found
  line audit-removed "a gap in an audit log is found out" gap_in_log_is_found
  line audit-truncated "a truncated audit log is found out" truncated_log_is_found
  finish
}

# Which nodes there are, and who links with whom. North holds its authority on a, and its nodes keep each other's heads.
three_sites() {
  local site keeps_heads
  for site in north south west evil east; do authority "$site"; done
  for site in north south west evil; do person "$site" alice; done
  keeps_heads=$'[runtime.store]\nwitness_every_s = 1\nwitnesses = 8'
  # So few acts a second that also a slow machine can use them up.
  node plant north a "" "$keeps_heads" "authority = \"$scratch/ca-north\"" 10
  node plant north b "$(mesh_of north-a)" "$keeps_heads"
  node wan north g "" "$(router south "" west "")"
  # South knows west by its bundle, and would know east.
  node wan south s "" "$(router north "$(mesh_of north-g 1)" west "")" \
    $'[[runtime.identity.partner]]\nsite = "west"\n[[runtime.identity.partner]]\nsite = "east"'
  node wan west w "" "$(router north "$(mesh_of north-g 2)" south "$(mesh_of south-s 1)")"
  "$bin" identity export-bundle --ca ca-west --out west.json >/dev/null
  "$bin" identity import-bundle west.json --site west --project south-s >/dev/null
}

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
  echo "security gate: $1" >&2
  exit 2
}

known_lines() { sed -nE 's/^  line ([a-z-]+) ".*/\1/p' "${BASH_SOURCE[0]}"; }

main "$@"
