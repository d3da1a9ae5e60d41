//! The payloads, version 1, as JSON. Unknown fields are refused; a change that old readers cannot take becomes version 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use crate::domain::action::ActionKind;
use crate::domain::audit::Position;
use crate::domain::envelope::dsse::PublicKey;
use crate::domain::envelope::{self, Health, Response, Ruling, Voucher};
use crate::domain::identity::Role;
use crate::domain::policy::{Denial, Stage};
use crate::domain::projection::{Edge, EdgeState};
use crate::domain::time::{Millis, Wall};
use crate::engine::word;
use crate::wire::api::v1::json::Object;
use crate::wire::mesh::Refusal;
use crate::wire::named::{Named, maybe, maybe_each};
use crate::wire::value;

/// Most capabilities in an identity document.
const CAPABILITIES_MAX: usize = 256;
/// Longest free text that is taken from a peer, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// What most bodies take. One that grows as it is written is copied again and again.
const LIKELY_BYTES: usize = 1_024;

/// Writes a body. Our own types always have a JSON form.
pub(super) fn write(body: &impl Serialize) -> Vec<u8> {
    write_within(LIKELY_BYTES, body)
}

/// Writes a body of about so many bytes.
pub(super) fn write_within(bytes: usize, body: &impl Serialize) -> Vec<u8> {
    let mut written = Vec::with_capacity(bytes);
    match serde_json::to_writer(&mut written, body) {
        Ok(()) => written,
        Err(_no_form) => Vec::new(),
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice::<Named<T>>(bytes).map(|named| named.0).map_err(|_any_fault| Refusal::Malformed)
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_any_fault| Refusal::Malformed)
}

pub(super) fn one_of<T: Copy>(all: &[T], text: &str, name: impl Fn(T) -> &'static str) -> Result<T, Refusal> {
    all.iter().copied().find(|it| name(*it) == text).ok_or(Refusal::Malformed)
}

fn bounded(text: String) -> Result<String, Refusal> {
    let is_clean = text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    if is_clean { Ok(text) } else { Err(Refusal::Malformed) }
}

/// Reads an object in which no key stands twice, at any depth: two readers must not see two values.
fn unique<'de, D: Deserializer<'de>>(reader: D) -> Result<BTreeMap<String, Json>, D::Error> {
    Object::deserialize(reader).map(|object| object.0.into_iter().collect())
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<[u8; 32], Refusal> {
    crate::domain::identity::parse_hex32(text).map_err(|_not_hex| Refusal::Malformed)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delegation {
    runtime: String,
    /// SHA-256 of the key of the certificate that comes with the delegation; beside it there is no `identity_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity_key: Option<String>,
    envelope_key: String,
    not_before_ns: u64,
    not_after_ns: u64,
}

impl From<&envelope::Delegation> for Delegation {
    fn from(delegation: &envelope::Delegation) -> Self {
        let (certificate_key, identity_key) = match &delegation.voucher {
            Voucher::Certificate(key) => (Some(key.to_string()), None),
            Voucher::Key(key) => (None, Some(hex(key))),
        };
        Self {
            runtime: delegation.runtime.to_string(),
            certificate_key,
            identity_key,
            envelope_key: hex(delegation.envelope_key.as_bytes()),
            not_before_ns: delegation.not_before.0,
            not_after_ns: delegation.not_after.0,
        }
    }
}

impl TryFrom<Delegation> for envelope::Delegation {
    type Error = Refusal;

    fn try_from(body: Delegation) -> Result<Self, Refusal> {
        let voucher = match (&body.certificate_key, &body.identity_key) {
            (Some(key), None) => Voucher::Certificate(parse(key)?),
            (None, Some(key)) => Voucher::Key(unhex(key)?),
            (None, None) | (Some(_), Some(_)) => return Err(Refusal::Malformed),
        };
        Ok(Self {
            runtime: parse(&body.runtime)?,
            voucher,
            envelope_key: PublicKey::new(unhex(&body.envelope_key)?),
            not_before: Wall(body.not_before_ns),
            not_after: Wall(body.not_after_ns),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Action {
    target: String,
    target_key: String,
    /// Absent in a read, and in the writes of nodes of before this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_boot: Option<u64>,
    origin: String,
    actor: String,
    role: String,
    actor_verified: bool,
    request_id: String,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(default, deserialize_with = "unique", skip_serializing_if = "BTreeMap::is_empty")]
    params: BTreeMap<String, Json>,
    issued_ns: u64,
    expires_ns: u64,
    boot: u64,
    sequence: u64,
    policy_hash: String,
}

impl From<&envelope::Envelope> for Action {
    fn from(envelope: &envelope::Envelope) -> Self {
        Self {
            target: envelope.target.to_string(),
            target_key: envelope.target_key.to_string(),
            target_boot: envelope.target_boot,
            origin: envelope.origin.to_string(),
            actor: envelope.actor.to_string(),
            role: envelope.role.to_string(),
            actor_verified: envelope.actor_verified,
            request_id: envelope.request_id.to_string(),
            action: envelope.action.kind().to_string(),
            command: envelope.action.command().map(ToString::to_string),
            params: value::params_of(&envelope.action),
            issued_ns: envelope.issued.0,
            expires_ns: envelope.expires.0,
            boot: envelope.boot,
            sequence: envelope.sequence,
            policy_hash: envelope.policy_hash.to_string(),
        }
    }
}

impl TryFrom<Action> for envelope::Envelope {
    type Error = Refusal;

    fn try_from(body: Action) -> Result<Self, Refusal> {
        let kind: ActionKind = parse(&body.action)?;
        let action = value::action(kind, body.command.as_deref(), body.params).map_err(|_any| Refusal::Malformed)?;
        Ok(Self {
            target: parse(&body.target)?,
            target_key: parse(&body.target_key)?,
            target_boot: body.target_boot,
            origin: parse(&body.origin)?,
            actor: parse(&body.actor)?,
            role: parse::<Role>(&body.role)?,
            actor_verified: body.actor_verified,
            request_id: parse(&body.request_id)?,
            action,
            issued: Wall(body.issued_ns),
            expires: Wall(body.expires_ns),
            boot: body.boot,
            sequence: body.sequence,
            policy_hash: parse(&body.policy_hash)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Receipt {
    envelope: String,
    target: String,
    origin: String,
    request_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    response: Option<ResponseBody>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    denial: Option<DenialBody>,
    audit_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe")]
    position: Option<PositionBody>,
    repeated: bool,
    at_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DenialBody {
    code: String,
    reason: String,
    stage: String,
    rule: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PositionBody {
    seq: u64,
    prev_hash: String,
    hash: String,
}

/// What an action brought. The stored form of a receipt uses the same body.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
pub(crate) enum ResponseBody {
    Applied { revision: u64, keys: Vec<String> },
    Cancelling { run_id: String },
    Commanded { command: String },
    Pong {},
    Started { run_id: String },
    Status(StatusBody),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusBody {
    runtime: String,
    version: String,
    boot: u64,
    uptime_ms: u64,
    health: String,
    config_revision: u64,
    peers_online: u64,
}

impl From<&Response> for ResponseBody {
    fn from(response: &Response) -> Self {
        match response {
            Response::Applied { revision, keys } => Self::Applied { revision: *revision, keys: keys.clone() },
            Response::Cancelling { run } => Self::Cancelling { run_id: run.to_string() },
            Response::Commanded { command } => Self::Commanded { command: command.to_string() },
            Response::Pong => Self::Pong {},
            Response::Started { run } => Self::Started { run_id: run.to_string() },
            Response::Status(status) => Self::Status(StatusBody {
                runtime: status.runtime.to_string(),
                version: status.version.clone(),
                boot: status.boot,
                uptime_ms: status.uptime.0,
                health: status.health.as_str().to_owned(),
                config_revision: status.config_revision,
                peers_online: status.peers_online,
            }),
        }
    }
}

impl TryFrom<ResponseBody> for Response {
    type Error = Refusal;

    fn try_from(body: ResponseBody) -> Result<Self, Refusal> {
        Ok(match body {
            ResponseBody::Applied { revision, keys } => Self::Applied { revision, keys },
            ResponseBody::Cancelling { run_id } => Self::Cancelling { run: parse(&run_id)? },
            ResponseBody::Commanded { command } => Self::Commanded { command: parse(&command)? },
            ResponseBody::Pong {} => Self::Pong,
            ResponseBody::Started { run_id } => Self::Started { run: parse(&run_id)? },
            ResponseBody::Status(status) => Self::Status(Box::new(envelope::Status {
                runtime: parse(&status.runtime)?,
                version: bounded(status.version)?,
                boot: status.boot,
                uptime: Millis(status.uptime_ms),
                health: one_of(&Health::ALL, &status.health, Health::as_str)?,
                config_revision: status.config_revision,
                peers_online: status.peers_online,
            })),
        })
    }
}

impl From<&envelope::Receipt> for Receipt {
    fn from(receipt: &envelope::Receipt) -> Self {
        let (response, denial) = match &receipt.ruling {
            Ruling::Done(response) => (Some(ResponseBody::from(response)), None),
            Ruling::Refused(denial) => (None, Some(DenialBody::from(denial))),
        };
        Self {
            envelope: receipt.envelope.to_string(),
            target: receipt.target.to_string(),
            origin: receipt.origin.to_string(),
            request_id: receipt.request_id.to_string(),
            response,
            denial,
            audit_id: receipt.audit_id.to_string(),
            position: receipt.position.map(|position| PositionBody {
                seq: position.seq,
                prev_hash: position.previous.to_string(),
                hash: position.hash.to_string(),
            }),
            repeated: receipt.repeated,
            at_ns: receipt.at.0,
        }
    }
}

impl From<&Denial> for DenialBody {
    fn from(denial: &Denial) -> Self {
        Self {
            code: denial.code.to_string(),
            reason: denial.reason.to_string(),
            stage: denial.stage.as_str().to_owned(),
            rule: denial.rule.to_string(),
        }
    }
}

impl TryFrom<DenialBody> for Denial {
    type Error = Refusal;

    fn try_from(body: DenialBody) -> Result<Self, Refusal> {
        Ok(Self {
            code: parse(&body.code)?,
            reason: bounded(body.reason)?.into(),
            stage: one_of(&[Stage::Origin, Stage::Target], &body.stage, Stage::as_str)?,
            rule: bounded(body.rule)?.into(),
        })
    }
}

impl TryFrom<Receipt> for envelope::Receipt {
    type Error = Refusal;

    fn try_from(body: Receipt) -> Result<Self, Refusal> {
        let ruling = match (body.response, body.denial) {
            (Some(response), None) => Ruling::Done(response.try_into()?),
            (None, Some(denial)) => Ruling::Refused(denial.try_into()?),
            (None, None) | (Some(_), Some(_)) => return Err(Refusal::Malformed),
        };
        let position = body.position.map(|position| {
            let PositionBody { seq, prev_hash, hash } = position;
            Ok(Position { seq, previous: parse(&prev_hash)?, hash: parse(&hash)? })
        });
        Ok(Self {
            envelope: parse(&body.envelope)?,
            target: parse(&body.target)?,
            origin: parse(&body.origin)?,
            request_id: parse(&body.request_id)?,
            ruling,
            audit_id: parse(&body.audit_id)?,
            position: position.transpose()?,
            repeated: body.repeated,
            at: Wall(body.at_ns),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    runtime: String,
    boot: u64,
    at_ns: u64,
    api_version: String,
    version: String,
    capabilities: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    web: Option<String>,
    is_secure: bool,
    policy_hash: String,
    config_revision: u64,
    config_etag: String,
}

impl From<&word::Identity> for Identity {
    fn from(identity: &word::Identity) -> Self {
        Self {
            runtime: identity.runtime.to_string(),
            boot: identity.boot,
            at_ns: identity.at.0,
            api_version: identity.api_version.clone(),
            version: identity.version.clone(),
            capabilities: identity.capabilities.clone(),
            host: identity.host.clone(),
            web: identity.web.clone(),
            is_secure: identity.is_secure,
            policy_hash: identity.policy_hash.to_string(),
            config_revision: identity.config_revision,
            config_etag: identity.config_etag.to_string(),
        }
    }
}

impl TryFrom<Identity> for word::Identity {
    type Error = Refusal;

    fn try_from(body: Identity) -> Result<Self, Refusal> {
        if body.capabilities.len() > CAPABILITIES_MAX {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            runtime: parse(&body.runtime)?,
            boot: body.boot,
            at: Wall(body.at_ns),
            api_version: bounded(body.api_version)?,
            version: bounded(body.version)?,
            capabilities: body.capabilities.into_iter().map(bounded).collect::<Result<_, _>>()?,
            host: body.host.map(bounded).transpose()?,
            web: body.web.map(bounded).transpose()?,
            is_secure: body.is_secure,
            policy_hash: parse(&body.policy_hash)?,
            config_revision: body.config_revision,
            config_etag: parse(&body.config_etag)?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Observation {
    runtime: String,
    boot: u64,
    sequence: u64,
    at_ns: u64,
    health: String,
    config_revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runs_head: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "maybe_each")]
    edges: Option<Vec<EdgeBody>>,
    #[serde(default)]
    is_leaving: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeBody {
    target: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency_p95_us: Option<u64>,
    loss_pct: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_ok_ns: Option<u64>,
}

impl From<&Edge> for EdgeBody {
    fn from(edge: &Edge) -> Self {
        Self {
            target: edge.target.to_string(),
            state: edge.state.as_str().to_owned(),
            latency_p95_us: edge.latency_p95_us,
            loss_pct: edge.loss_pct,
            last_ok_ns: edge.last_ok.map(|at| at.0),
        }
    }
}

impl TryFrom<EdgeBody> for Edge {
    type Error = Refusal;

    fn try_from(body: EdgeBody) -> Result<Self, Refusal> {
        Ok(Self {
            target: parse(&body.target)?,
            state: one_of(&EdgeState::ALL, &body.state, EdgeState::as_str)?,
            latency_p95_us: body.latency_p95_us,
            loss_pct: body.loss_pct.min(100),
            last_ok: body.last_ok_ns.map(Wall),
        })
    }
}

impl From<&word::Observation> for Observation {
    fn from(observation: &word::Observation) -> Self {
        Self {
            runtime: observation.runtime.to_string(),
            boot: observation.boot,
            sequence: observation.sequence,
            at_ns: observation.at.0,
            health: observation.health.as_str().to_owned(),
            config_revision: observation.config_revision,
            runs_head: observation.runs_head,
            edges: observation.edges.as_ref().map(|edges| edges.iter().map(EdgeBody::from).collect()),
            is_leaving: observation.is_leaving,
        }
    }
}

impl TryFrom<Observation> for word::Observation {
    type Error = Refusal;

    fn try_from(body: Observation) -> Result<Self, Refusal> {
        let edges = body.edges.map(|edges| edges.into_iter().map(Edge::try_from).collect::<Result<_, _>>());
        Ok(Self {
            runtime: parse(&body.runtime)?,
            boot: body.boot,
            sequence: body.sequence,
            at: Wall(body.at_ns),
            health: one_of(&Health::ALL, &body.health, Health::as_str)?,
            config_revision: body.config_revision,
            runs_head: body.runs_head,
            edges: edges.transpose()?,
            is_leaving: body.is_leaving,
        })
    }
}

/// What a probe carries: a nonce that the echo must repeat. Not signed, because it asks for nothing but a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// At most 64 bytes.
    pub nonce: String,
}

impl Probe {
    /// The probe's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(self)
    }

    /// Reads a probe.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let probe: Self = read(bytes)?;
        if probe.nonce.len() <= 64 { Ok(probe) } else { Err(Refusal::TooLarge) }
    }
}

/// The answer to a probe, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Echo {
    /// The probe's nonce.
    pub nonce: String,
    /// The answering runtime's boot counter.
    pub boot: u64,
}
