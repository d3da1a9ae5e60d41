//! Signed bytes made from a description: a real envelope, changed as the description says, before or after it is signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::Envelope;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::identity::{Fingerprint, IdentityKey, Role};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::wire::mesh::{self, Keys};

use crate::world::{BOOT, now, parsed};

pub(crate) const ME: &str = "site-a/target";
pub(crate) const ORIGIN: &str = "site-a/origin";

/// Keys by the part they play. The seeds are in the open, so that everybody can make the bytes again.
pub(crate) fn key(name: &str) -> IdentityKey {
    let seed = match name {
        "target" => 1,
        "origin" => 2,
        "origin's envelope key" => 3,
        "stranger" => 4,
        "origin's log key" => 6,
        "target's log key" => 7,
        other => panic!("no key {other}"),
    };
    IdentityKey::from_seed([seed; 32])
}

pub(crate) fn fingerprint(name: &str) -> Fingerprint {
    key(name).fingerprint()
}

/// What the origin signs with at the moment of the cases.
pub(crate) fn origin_keys() -> Keys {
    Recipe::default().keys()
}

/// How the bytes of a case differ from those of an envelope that is carried out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recipe {
    /// `cfg_apply` unless it says `cmd_invoke` or `status_read`.
    action: String,
    /// The identity key behind the delegation, if not the origin's.
    identity: String,
    /// For whom the delegation speaks, if not for the origin.
    delegated: String,
    /// The delegation's time from the moment of the cases, in milliseconds; a day around it if absent.
    delegation_ms: Option<(i64, i64)>,
    /// The payload type that is signed, if not that of an action.
    payload_type: String,
    /// Texts of the payload and what stands in their place before it is signed.
    payload: Vec<(String, String)>,
    /// Texts of the finished document and what stands in their place.
    document: Vec<(String, String)>,
    /// Turns the lowest bit of this byte of the payload after it is signed.
    flip: Option<usize>,
}

impl Recipe {
    /// An envelope with one text of its payload replaced before it is signed.
    pub(crate) fn with_payload(from: &str, to: &str) -> Self {
        Self { payload: vec![(from.to_owned(), to.to_owned())], ..Self::default() }
    }

    /// The bytes as they would arrive.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_by(&self.keys())
    }

    /// The same, signed by these keys.
    pub(crate) fn bytes_by(&self, keys: &Keys) -> Vec<u8> {
        self.sealed_by(keys, PayloadType::Action, &payload_of(&mesh::seal_envelope(&origin_keys(), &self.envelope()).0))
    }

    /// Another payload of this kind, changed and sealed as the recipe says.
    pub(crate) fn sealed(&self, kind: PayloadType, payload: &str) -> Vec<u8> {
        self.sealed_by(&self.keys(), kind, payload)
    }

    fn sealed_by(&self, keys: &Keys, kind: PayloadType, payload: &str) -> Vec<u8> {
        let payload = self.changed(payload);
        let sealed = mesh::seal(keys, self.kind_or(kind), payload.as_bytes());
        self.bent(sealed, &payload)
    }

    /// The kind that is signed.
    pub(crate) fn kind_or(&self, kind: PayloadType) -> PayloadType {
        let named = PayloadType::ALL.into_iter().find(|it| format!("{it:?}").eq_ignore_ascii_case(&self.payload_type));
        named.unwrap_or(kind)
    }

    /// The payload as it is signed.
    pub(crate) fn changed(&self, payload: &str) -> String {
        self.payload
            .iter()
            .fold(payload.to_owned(), |payload, (from, to)| replace(&payload, &member(&payload, from), to))
    }

    /// The finished document as it arrives.
    pub(crate) fn bent(&self, sealed: Vec<u8>, payload: &str) -> Vec<u8> {
        let mut document = String::from_utf8(sealed).expect("JSON");
        if let Some(index) = self.flip {
            let mut bent = payload.as_bytes().to_vec();
            bent[index] ^= 1;
            document = replace(&document, &STANDARD.encode(payload), &STANDARD.encode(bent));
        }
        for (from, to) in &self.document {
            document = replace(&document, &member(&document, from), to);
        }
        document.into_bytes()
    }

    fn keys(&self) -> Keys {
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let day = i64::try_from(Millis::from_hours(12).0).expect("small");
        let (from, until) = self.delegation_ms.unwrap_or((-day, day));
        let at = |offset: i64| Wall::from_millis(now().wall.as_millis().checked_add_signed(offset).expect("in time"));
        let runtime = parsed(&or(&self.delegated, ORIGIN));
        mesh::delegate(&key(&or(&self.identity, "origin")), key("origin's envelope key"), &runtime, at(from), at(until))
    }

    fn envelope(&self) -> Envelope {
        let level = trust_runtime::domain::config::Value::Text("warn".to_owned());
        let action = match self.action.as_str() {
            "" | "cfg_apply" => Action::cfg_apply([("log.level".to_owned(), level)].into()).expect("one setting"),
            "cmd_invoke" => Action::ping(),
            "status_read" => Action::StatusRead,
            other => panic!("no action {other}"),
        };
        envelope(action)
    }
}

/// What the origin asks of the target at the moment of the cases.
pub(crate) fn envelope(action: Action) -> Envelope {
    let issued = now().wall;
    Envelope {
        target: parsed(ME),
        target_key: fingerprint("target"),
        target_boot: (!action.kind().is_read()).then_some(BOOT),
        origin: parsed(ORIGIN),
        actor: parsed("spiffe://trust/site-a/alice"),
        role: Role::Engineer,
        actor_verified: true,
        request_id: parsed("request-1"),
        expires: issued.plus(action.kind().window()),
        action,
        issued,
        boot: 5,
        sequence: 1,
        policy_hash: Hash::of(b"a policy"),
    }
}

/// What is signed in a sealed document.
pub(crate) fn payload_of(sealed: &[u8]) -> String {
    let outer: serde_json::Value = serde_json::from_slice(sealed).expect("JSON");
    let payload = STANDARD.decode(outer["payload"].as_str().expect("text")).expect("base64");
    String::from_utf8(payload).expect("JSON")
}

/// A text that stands exactly once, replaced.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    text.replace(from, to)
}

/// A text as it is, or what `@name` means: the value of `keyid` or of a member of the payload, else a whole member of the
/// document with its comma.
fn member(document: &str, name: &str) -> String {
    let Some(name) = name.strip_prefix('@') else { return name.to_owned() };
    let outer: serde_json::Value = serde_json::from_str(document).expect("JSON");
    match (name, &outer[name]) {
        ("keyid", _) => outer["signatures"][0]["keyid"].as_str().expect("text").to_owned(),
        ("target_key", value) => value.as_str().expect("text").to_owned(),
        (_, value) => format!(",\"{name}\":{value}"),
    }
}
