//! The audit log over HTTP: what is asked for, and the records, newest first.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{API_VERSION, Fault, Shown, encode};
use crate::domain::audit::{AuditId, Entry};
use crate::domain::id::RuntimeId;
use crate::domain::time::Wall;

/// Records on a page when the caller does not say: a screenful or two.
const LIMIT_DEFAULT: usize = 100;

/// Most records on a page, the same as the store's.
const LIMIT_MAX: usize = 1_000;

/// Which records are wanted. An absent or empty parameter means any.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Exactly this request id.
    request_id: Option<String>,
    /// Exactly this actor.
    actor: Option<String>,
    /// Exactly this action.
    action: Option<String>,
    /// Exactly this target, bare or qualified.
    #[param(pattern = "^(((?!\\.{1,2}/)[A-Za-z0-9._-]{1,64}/)?(?!\\.{1,2}$)[A-Za-z0-9._-]{1,64})?$")]
    target: Option<String>,
    /// At or after, in Unix nanoseconds.
    #[param(pattern = "^[0-9]{0,19}$")]
    since: Option<String>,
    /// Before, in Unix nanoseconds.
    #[param(pattern = "^[0-9]{0,19}$")]
    until: Option<String>,
    /// 1 to 1,000; 100 when absent.
    #[param(pattern = "^(0*([1-9][0-9]{0,2}|1000))?$")]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^([0-7][0-9A-HJKMNP-TV-Z]{25})?$")]
    cursor: Option<String>,
}

/// Which records are wanted, parsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Exactly this request id.
    pub request_id: Option<String>,
    /// Exactly this actor.
    pub actor: Option<String>,
    /// Exactly this action.
    pub action: Option<String>,
    /// Exactly this target.
    pub target: Option<RuntimeId>,
    /// At or after.
    pub since: Option<Wall>,
    /// Before.
    pub until: Option<Wall>,
    /// At most this many.
    pub limit: usize,
    /// Older than this record.
    pub before: Option<AuditId>,
}

impl AuditQuery {
    /// Parses every parameter.
    pub fn read(self, me: &RuntimeId) -> Result<Wanted, Fault> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let target = given(self.target).map(|text| RuntimeId::parse_in(&text, &me.site)).transpose();
        let before = given(self.cursor).map(|text| text.parse()).transpose();
        let limit = given(self.limit).map_or(Some(LIMIT_DEFAULT), |text| usize::try_from(number(&text)?).ok());
        Ok(Wanted {
            request_id: given(self.request_id),
            actor: given(self.actor),
            action: given(self.action),
            target: target.map_err(|error| Fault::at("/target", error.to_string()))?,
            since: moment("/since", given(self.since))?,
            until: moment("/until", given(self.until))?,
            limit: limit
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| Fault::at("/limit", format!("wanted 1 to {LIMIT_MAX}")))?,
            before: before.map_err(|error| Fault::at("/cursor", format!("{error}")))?,
        })
    }
}

fn moment(pointer: &str, text: Option<String>) -> Result<Option<Wall>, Fault> {
    let wanted = || Fault::at(pointer, "wanted Unix nanoseconds");
    text.map(|text| number(&text).map(Wall).ok_or_else(wanted)).transpose()
}

/// A number of nothing but digits: the language's own reader takes a sign too.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok())?
}

/// One page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditBody<'a> {
    api_version: &'static str,
    /// Newest first.
    records: Vec<RecordBody<'a>>,
    /// Where older records begin; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

/// One record. Its hash covers the qualified forms.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordBody<'a> {
    audit_id: String,
    /// `writes`, `reads` or `refusals`: which of the three chains it stands in.
    chain: &'static str,
    /// Its place in the chain, from 1.
    seq: u64,
    timestamp_ns: u64,
    actor: &'a str,
    /// Whether a credential vouched for the actor.
    actor_verified: bool,
    #[schema(value_type = String)]
    origin: Shown<'a>,
    action: &'a str,
    #[schema(value_type = String)]
    target: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
    /// `applied`, `denied`, `failed`, `intended` or `unknown`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    policy_hash: String,
    prev_hash: String,
    hash: String,
}

/// A page of records, each with the name of its chain.
pub fn answer<'a>(
    me: &RuntimeId,
    entries: impl Iterator<Item = (&'static str, &'a Entry)>,
    next: Option<AuditId>,
) -> Vec<u8> {
    let records = entries.map(|(chain, entry)| record(me, chain, entry)).collect();
    encode(&AuditBody { api_version: API_VERSION, records, next_cursor: next.map(|id| id.to_string()) })
}

fn record<'a>(me: &'a RuntimeId, chain: &'static str, entry: &'a Entry) -> RecordBody<'a> {
    let Entry { draft, position } = entry;
    RecordBody {
        audit_id: draft.audit_id.to_string(),
        chain,
        seq: position.seq,
        timestamp_ns: draft.at.0,
        actor: &draft.actor,
        actor_verified: draft.actor_verified,
        origin: Shown::Id(&draft.origin, &me.site),
        action: &draft.action,
        target: Shown::Id(&draft.target, &me.site),
        request_id: draft.request_id.as_ref().map(|request_id| request_id.as_str()),
        outcome: draft.outcome.as_str(),
        code: draft.code.map(|code| code.as_str()),
        detail: Some(draft.detail.as_str()).filter(|detail| !detail.is_empty()),
        policy_hash: draft.policy_hash.to_string(),
        prev_hash: position.previous.to_string(),
        hash: position.hash.to_string(),
    }
}
