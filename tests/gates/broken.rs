//! How each promise of the security gate is broken for once: by settings that a node should not have had, by a step of an
//! authority that was not taken or taken too early, by an answer that was bent on its way. The gate itself is as it is.

/// Something that does not keep what the gate looks for.
///
/// What programs do beside or instead of some of their work are cases of `sh` over their arguments, in which `$real` is the
/// program itself and `$node` is trust-runtime. A case that does not end the program goes on with what it should have done.
#[derive(Debug)]
pub(crate) struct Break {
    pub(crate) breaks: &'static str,
    pub(crate) node: &'static str,
    pub(crate) curl: &'static str,
    pub(crate) python3: &'static str,
    pub(crate) mount: &'static str,
    /// How long the gate waits for what does not come.
    pub(crate) deadline_s: &'static str,
    /// The lines that fail of it.
    pub(crate) red: &'static [&'static str],
    /// Some that do not, which shows that the nodes are otherwise in order.
    pub(crate) green: &'static [&'static str],
}

pub(crate) const STRAIGHT: Break = Break {
    breaks: "nothing",
    node: "",
    curl: "",
    python3: "",
    mount: "",
    deadline_s: "30",
    red: &[],
    green: &["old-tls", "ban", "audit-edited", "site-links"],
};

/// Nobody gets into a node that has died, which is not what a ban is for.
pub(crate) const DEADLY_BAN: Break = Break {
    breaks: "a ban kills the node",
    node: r#"' identity ban '*) kill -KILL "$(jq .pid north-a/ready.json)"; exit 0 ;;"#,
    deadline_s: "5",
    red: &["ban", "alive"],
    green: &["old-tls", "audit-edited"],
    ..STRAIGHT
};

pub(crate) const BREAKS: &[Break] = &[
    Break {
        breaks: "nodes of a plant are set as for a desk, another site takes their token, and a bundle never grows old",
        node: r#"
' play --project north-'[abc]' '*)
    sed -i 's/^profile = .*/profile = "dev"/; s/^auth = .*/auth = "local"/; s/^role = "operator"/role = "viewer"/
        s/^connect = .*/connect = []/; /^\[runtime.mesh\]/,$ s/^tls = .*/tls = false/' "$3/runtime.toml" ;;
' play --project south-s '*) (umask 077; mkdir -p south-s/state; cp north-a/state/admin.token south-s/state/) ;;"#,
        curl: r#"
*' --cert alice-south/'*)
    "$node" identity import-bundle west.json --site west --project south-s >&2
    "$node" ctl reload --project south-s >&2 ;;"#,
        deadline_s: "8",
        red: &[
            "plant-links",
            "mesh-strangers",
            "anonymous",
            "certificate",
            "token-elsewhere",
            "enrolment",
            "bundle-stale",
        ],
        green: &["old-tls"],
        ..STRAIGHT
    },
    Break {
        breaks: "what is refused is answered as if it were not",
        node: r#"
' play --project bare '* | ' validate --project plain '* | ' token revoke '*) exit 0 ;;
' identity approve --ca ca-north --request north-c/'*) exit 0 ;;
' identity redeem '*) cp -n ca-north/join-tokens.json unused.json; cp unused.json ca-north/join-tokens.json ;;
' identity issue --ca ca-evil '*) exec "$node" identity issue --ca ca-north --actor alice --out alice-evil ;;
' identity import-bundle first.json '*) rm -f south-s/state/bundles/east.json ;;
' play --project north-a '*) sed -i 's/^acts_per_s = .*/acts_per_s = 100000/' "$3/runtime.toml" ;;
' ctl reload --project north-a '*) "$node" "$@" | jq '.rejected[].reason = "something is wrong"'; exit 3 ;;
' ctl reload --project west-w '*) "$node" "$@" | jq '.needs_restart = []'; exit 3 ;;"#,
        // No answer at all is no refusal, and one that comes late is none.
        curl: r#"
*' --tls-max '* | *' --max-time 2 '*) exit 28 ;;
*' authorization: Bearer guess '*) yes 401 | head -n 400; exit 0 ;;"#,
        python3: r#"*' north-b/tls/node-b '*) exec "$real" "$1" "$2" "$3" "$4" south-s/tls/node-s "$6" ;;"#,
        deadline_s: "8",
        red: &[
            "preconditions",
            "router-without-tls",
            "partner-address",
            "old-tls",
            "foreign-certificate",
            "token",
            "rate",
            "guesses",
            "slow-callers",
            "enrolment",
            "join-token",
            "bundle",
            "bad-file",
            "reload",
        ],
        green: &["plant-links", "site-links", "anonymous"],
        ..STRAIGHT
    },
    Break {
        breaks: "anchors are pooled, everybody is allowed everything, nobody renews, and a signal goes elsewhere",
        node: r#"
' play --project north-a '*) sed -i '/^authority = /d' "$3/runtime.toml" ;;
' play --project north-b '*) (
    for _ in $(seq 600); do [ -s north-b/ready.json ] && break; sleep 0.1; done
    jq --argjson other "$(jq .pid north-a/ready.json)" '.pid = $other' north-b/ready.json >north-b/other.json
    mv north-b/other.json north-b/ready.json
    ) & ;;
' ctl reload --project north-a '*) "$node" "$@" | jq '.rejected[].what = "certificates"'; exit 3 ;;
' identity import-bundle west.json '*)
    cat ca-west/anchors-west.pem >>ca-north/anchors-north.pem
    "$node" ctl reload --project north-a >&2 ;;
' play --project north-g '* | ' play --project south-s '* | ' play --project west-w '*)
    sed -i 's/^profile = .*/profile = "plant"/' "$3/runtime.toml"
    for list in allow accept; do
        printf '[[runtime.cloud.wan.%s_write]]\naction = "*"\ntarget = "*"\nactor = "%s/alice"\n' \
            $list north $list south $list west
    done >>"$3/runtime.toml" ;;"#,
        deadline_s: "8",
        red: &[
            "foreign-authority",
            "renewal",
            "write-denied",
            "write-at-origin",
            "write-unplanned",
            "explain",
            "rule-taken-back",
            "rules-tested",
            "bad-file",
            "reload-signal",
        ],
        green: &["plant-links", "site-links", "write-at-both"],
        ..STRAIGHT
    },
    Break {
        breaks: "a site denies what it was to accept, has banned a partner's router, and no stranger believes its nodes",
        node: r#"
' play --project south-s '*) cat >>south-s/runtime.toml <<'TOML'
[[runtime.cloud.wan.accept_write]]
effect = "deny"
action = "*"
actor = "north/*"
TOML
    ;;
' play --project west-w '*)
    "$node" identity ban --ca ca-south --id spiffe://trust/west/runtime/w >&2
    "$node" ctl reload --project south-s >&2 ;;"#,
        // They end the handshake themselves.
        python3: r#"*' anonymous '*) exec "$real" "$1" "$2" "$3" ca-south/anchors-south.pem "$5" "$6" ;;"#,
        deadline_s: "8",
        red: &["mesh-strangers", "site-links", "read-crosses", "write-at-both"],
        green: &["plant-links", "write-at-origin"],
        ..STRAIGHT
    },
    Break {
        breaks: "nobody keeps anybody's head, whatever is done to a log is in order, and the full disk is not",
        node: r#"
' play --project north-'[ab]' '*) sed -i 's/^witnesses = .*/witnesses = 0/' "$3/runtime.toml" ;;
' audit verify --project west-w '*) exit 1 ;;
' audit verify --project damaged '*) exit 0 ;;"#,
        mount: "*) exit 0 ;;",
        deadline_s: "8",
        red: &[
            "countersigned",
            "audit-restored",
            "disk-full",
            "audit",
            "audit-edited",
            "audit-reordered",
            "audit-removed",
            "audit-truncated",
        ],
        green: &["plant-links", "alive"],
        ..STRAIGHT
    },
    Break {
        breaks: "bans stay on paper, and an old key is taken out at once",
        node: r#"
' identity ban '*) exit 0 ;;
' identity rotate activate '*) "$node" "$@" && exec "$node" identity rotate retire --ca ca-west --force ;;"#,
        deadline_s: "8",
        red: &["node-ban", "ban", "rotation"],
        green: &["plant-links", "site-links"],
        ..STRAIGHT
    },
    Break {
        breaks: "a certificate does not end when it was to",
        node: r#"
*' --minutes 1 '*) case "$2" in approve)
    unset LD_PRELOAD FAKETIME
    exec "$node" identity approve --ca "$4" --request "$6" --fingerprint "$8" ;;
  esac ;;"#,
        deadline_s: "8",
        red: &["certificate-ends"],
        green: &["plant-links", "renewal"],
        ..STRAIGHT
    },
    Break {
        breaks: "what a node says of its link with b it has said before, and then says of another",
        node: r#"
' play --project north-a '*)
    echo 'a link was ended neighbour=runtime north/b reason="it is banned"'
    exec bash -c 'exec "$0" "$@" > >(sed -u s,runtime.north/b,runtime\ north/x,) 2>&1' "$node" "$@" ;;"#,
        deadline_s: "8",
        red: &["node-ban"],
        green: &["plant-links"],
        ..STRAIGHT
    },
];
