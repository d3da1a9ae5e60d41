//! Facts as rows. A row's key is not repeated in its body, so that the two can never disagree.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::witness::{COUNTERSIGNED, HEAD, put_countersigned, put_head};
use super::work::{DEED, RUN, put_deed, put_run};
use super::{Change, Error};
use crate::domain::config::{Overlay, Value};
use crate::domain::identity::TrustState;
use crate::domain::time::Wall;
use crate::engine::record::{Intent, IntentKey, Peer, Receipt, Record, RequestKey};
use crate::wire::mesh::ResponseBody;

const BOOT: &str = "boot";
const CLOCK_MARK: &str = "clock_mark";
const DROPPED_UNTIL: &str = "dropped_until";
const INTENT: &str = "intent";
const OVERLAY: &str = "overlay";
const PEER: &str = "peer";
const RECEIPT: &str = "receipt";

/// The key of a fact of which there is only one.
const ONLY: &str = "";

/// Separates the parts of a key: neither an actor, a request id nor a runtime id can hold it.
const SEPARATOR: char = ' ';

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootBody {
    counter: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockMarkBody {
    wall_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DroppedUntilBody {
    wall_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentBody {
    action: String,
    at_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverlayBody {
    revision: u64,
    values: BTreeMap<String, ValueBody>,
    over: BTreeMap<String, ValueBody>,
}

/// The type is written beside the value, so that a text which looks like a number stays a text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValueBody {
    Bool(bool),
    Int(i64),
    Text(String),
    Other(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerBody {
    pinned: String,
    trust: TrustBody,
    boot: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TrustBody {
    Trusted,
    Untrusted,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptBody {
    origin: String,
    digest: String,
    at_ns: u64,
    audit_id: String,
    response: ResponseBody,
}

/// The change that makes a fact durable.
pub fn encode(record: &Record) -> Result<Change, Error> {
    match record {
        Record::Boot { counter } => put(BOOT, ONLY.to_owned(), &BootBody { counter: *counter }),
        Record::ClockMark { wall } => put(CLOCK_MARK, ONLY.to_owned(), &ClockMarkBody { wall_ns: wall.0 }),
        Record::DroppedUntil { wall } => put(DROPPED_UNTIL, ONLY.to_owned(), &DroppedUntilBody { wall_ns: wall.0 }),
        Record::Countersigned(word) => put_countersigned(word),
        Record::CountersignedForgotten { witness } => {
            Ok(Change::Delete { kind: COUNTERSIGNED, key: witness.to_string() })
        }
        Record::Head { runtime, head } => put_head(runtime, head),
        Record::HeadForgotten { runtime } => Ok(Change::Delete { kind: HEAD, key: runtime.to_string() }),
        Record::Intent(intent) => {
            let body = IntentBody { action: intent.action.clone(), at_ns: intent.at.0 };
            put(INTENT, intent_key(&intent.key), &body)
        }
        Record::Deed(deed) => put_deed(deed),
        Record::DeedClosed(key) => Ok(Change::Delete { kind: DEED, key: request_key(key) }),
        Record::Run(run) => put_run(run),
        Record::RunClosed(run) => Ok(Change::Delete { kind: RUN, key: run.to_string() }),
        Record::IntentClosed(key) => Ok(Change::Delete { kind: INTENT, key: intent_key(key) }),
        Record::Overlay(overlay) => put(OVERLAY, ONLY.to_owned(), &OverlayBody::from(overlay)),
        Record::Peer(peer) => put(PEER, peer.runtime.to_string(), &PeerBody::from(peer)),
        Record::PeerForgotten { runtime } => Ok(Change::Delete { kind: PEER, key: runtime.to_string() }),
        Record::Receipt(receipt) => put(RECEIPT, request_key(&receipt.key), &ReceiptBody::from(receipt)),
        Record::ReceiptDropped(key) => Ok(Change::Delete { kind: RECEIPT, key: request_key(key) }),
    }
}

/// The fact that a row holds. An unknown kind, field or spelling is refused: this version did not write it.
pub fn decode(kind: &str, key: &str, body: &str) -> Result<Record, Error> {
    let row = Row { kind, key, body };
    match kind {
        BOOT => {
            row.is_only()?;
            Ok(Record::Boot { counter: row.parse::<BootBody>()?.counter })
        }
        CLOCK_MARK => {
            row.is_only()?;
            Ok(Record::ClockMark { wall: Wall(row.parse::<ClockMarkBody>()?.wall_ns) })
        }
        DROPPED_UNTIL => {
            row.is_only()?;
            Ok(Record::DroppedUntil { wall: Wall(row.parse::<DroppedUntilBody>()?.wall_ns) })
        }
        COUNTERSIGNED => row.countersigned(),
        DEED => row.deed(),
        RUN => row.run(),
        HEAD => row.head(),
        INTENT => row.intent(),
        OVERLAY => {
            row.is_only()?;
            Ok(Record::Overlay(row.parse::<OverlayBody>()?.into()))
        }
        PEER => row.peer(),
        RECEIPT => row.receipt(),
        _ => Err(row.refused("wanted a kind that this version knows")),
    }
}

pub(super) fn put(kind: &'static str, key: String, body: &impl Serialize) -> Result<Change, Error> {
    match serde_json::to_string(body) {
        Ok(body) => Ok(Change::Put { kind, key, body }),
        Err(error) => Err(Error::new(kind, &key, error)),
    }
}

pub(super) fn request_key(key: &RequestKey) -> String {
    format!("{}{SEPARATOR}{}", key.actor, key.request_id)
}

fn intent_key(key: &IntentKey) -> String {
    format!("{}{SEPARATOR}{}", request_key(&key.request), key.target)
}

/// One row on its way back, so that every refusal names it.
pub(super) struct Row<'a> {
    kind: &'a str,
    pub(super) key: &'a str,
    body: &'a str,
}

impl Row<'_> {
    pub(super) fn refused(&self, reason: impl ToString) -> Error {
        Error::new(self.kind, self.key, reason)
    }

    fn is_only(&self) -> Result<(), Error> {
        if self.key == ONLY { Ok(()) } else { Err(self.refused("wanted an empty key")) }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.body).map_err(|error| self.refused(error))
    }

    pub(super) fn field<T: FromStr<Err: Display>>(&self, name: &str, text: &str) -> Result<T, Error> {
        text.parse().map_err(|error| self.refused(format!("{name}: {error}")))
    }

    pub(super) fn request_key(&self) -> Result<RequestKey, Error> {
        let parts: Vec<_> = self.key.split(SEPARATOR).collect();
        let [actor, request_id] = parts.as_slice() else {
            return Err(self.refused("wanted a key of actor and request id"));
        };
        self.request(actor, request_id)
    }

    fn request(&self, actor: &str, request_id: &str) -> Result<RequestKey, Error> {
        Ok(RequestKey { actor: self.field("actor", actor)?, request_id: self.field("request_id", request_id)? })
    }

    fn intent(&self) -> Result<Record, Error> {
        let parts: Vec<_> = self.key.split(SEPARATOR).collect();
        let [actor, request_id, target] = parts.as_slice() else {
            return Err(self.refused("wanted a key of actor, request id and target"));
        };
        let key = IntentKey { request: self.request(actor, request_id)?, target: self.field("target", target)? };
        let body: IntentBody = self.parse()?;
        Ok(Record::Intent(Intent { key, action: body.action, at: Wall(body.at_ns) }))
    }

    fn peer(&self) -> Result<Record, Error> {
        let body: PeerBody = self.parse()?;
        let trust = match body.trust {
            TrustBody::Trusted => TrustState::Trusted,
            TrustBody::Untrusted => TrustState::Untrusted,
        };
        let runtime = self.field("runtime", self.key)?;
        Ok(Record::Peer(Peer { runtime, pinned: self.field("pinned", &body.pinned)?, trust, boot: body.boot }))
    }

    fn receipt(&self) -> Result<Record, Error> {
        let body: ReceiptBody = self.parse()?;
        Ok(Record::Receipt(Receipt {
            key: self.request_key()?,
            origin: self.field("origin", &body.origin)?,
            digest: self.field("digest", &body.digest)?,
            at: Wall(body.at_ns),
            audit_id: self.field("audit_id", &body.audit_id)?,
            response: body.response.try_into().map_err(|error| self.refused(format!("response: {error}")))?,
        }))
    }
}

impl From<&Overlay> for OverlayBody {
    fn from(overlay: &Overlay) -> Self {
        let bodies =
            |values: &BTreeMap<String, Value>| values.iter().map(|(key, value)| (key.clone(), value.into())).collect();
        Self { revision: overlay.revision, values: bodies(&overlay.values), over: bodies(&overlay.over) }
    }
}

impl From<OverlayBody> for Overlay {
    fn from(body: OverlayBody) -> Self {
        let values =
            |bodies: BTreeMap<String, ValueBody>| bodies.into_iter().map(|(key, value)| (key, value.into())).collect();
        Self { revision: body.revision, values: values(body.values), over: values(body.over) }
    }
}

impl From<&Value> for ValueBody {
    fn from(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Text(value) => Self::Text(value.clone()),
            Value::Other(value) => Self::Other(value.clone()),
        }
    }
}

impl From<ValueBody> for Value {
    fn from(body: ValueBody) -> Self {
        match body {
            ValueBody::Bool(value) => Self::Bool(value),
            ValueBody::Int(value) => Self::Int(value),
            ValueBody::Text(value) => Self::Text(value),
            ValueBody::Other(value) => Self::Other(value),
        }
    }
}

impl From<&Peer> for PeerBody {
    fn from(peer: &Peer) -> Self {
        let trust = match peer.trust {
            TrustState::Trusted => TrustBody::Trusted,
            TrustState::Untrusted => TrustBody::Untrusted,
        };
        Self { pinned: peer.pinned.to_string(), trust, boot: peer.boot }
    }
}

impl From<&Receipt> for ReceiptBody {
    fn from(receipt: &Receipt) -> Self {
        Self {
            origin: receipt.origin.to_string(),
            digest: receipt.digest.to_string(),
            at_ns: receipt.at.0,
            audit_id: receipt.audit_id.to_string(),
            response: ResponseBody::from(&receipt.response),
        }
    }
}
