//! What preflight and dispatch are asked. The answers are in `decision`.
//!
//! A fault of the shape is a [`Fault`]; a well-formed request that the contract forbids is [`Refused`], which is answered
//! like any other denial, for every target.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::json::{self, Object, present};
use super::{API_VERSION, Fault, is_readable_version};
use crate::domain::action::{self, Action, ActionKind};
use crate::domain::code::Code;
use crate::domain::id::{self, RequestId, RuntimeId};
use crate::domain::identity::Actor;
use crate::domain::policy::Denial;
use crate::domain::preflight::TARGETS_MAX;
use crate::domain::time::Millis;
use crate::wire::value;

/// How long each target may take when the caller does not say (contract, *preflight*).
const BUDGET_DEFAULT_MS: u64 = 1_500;

/// The longest budget: a caller who can wait longer can also ask again.
const BUDGET_MAX_MS: u64 = 10_000;

/// Longest plan hash that is looked at: ours are shorter.
const PLAN_HASH_BYTES_MAX: usize = 512;

/// What is asked of one or more runtimes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionBody<'a> {
    /// Version of this contract; any `1.x` is read.
    #[schema(example = "1.0")]
    api_version: String,
    /// The caller's name for the request: 1 to 128 visible ASCII characters; without one it is denied. Sending it again
    /// repeats nothing.
    #[schema(max_length = 128, pattern = "^[!-~]*$")]
    request_id: String,
    /// The runtime that is asked, which must be this one.
    connected_via: String,
    /// Whom it is for: bare names of the own site or `<site>/<name>`, each once.
    #[serde(borrow)]
    #[schema(min_items = 1, max_items = 1000, value_type = std::collections::BTreeSet<String>)]
    target_runtimes: Vec<Text<'a>>,
    /// Who asks, as a canonical SPIFFE id. The credential must cover it.
    #[schema(example = "spiffe://trust/default-site/engineer-1")]
    actor: String,
    /// `status_read`, `cfg_apply` or `cmd_invoke`.
    #[schema(example = "status_read")]
    action_type: String,
    /// How long each target may take, in milliseconds.
    #[serde(default = "default_budget_ms", deserialize_with = "json::whole")]
    #[schema(minimum = 1, maximum = 10000, default = 1500)]
    query_budget_ms: u64,
    /// Decide only, act nowhere.
    #[serde(default)]
    dry_run: bool,
    /// The action's parameters: `{}`, `{"params": {…}}` or `{"command": "…", "params": {…}}`.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    payload: Object,
    /// Dispatch only: the plan that the caller has seen. A changed plan is a conflict.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, max_length = 512)]
    plan_hash: Option<String>,
}

/// A text that is left where it stands in the body: there may be a thousand.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

const fn default_budget_ms() -> u64 {
    BUDGET_DEFAULT_MS
}

/// Which of the two routes reads the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Decide and act.
    Dispatch,
    /// Decide only.
    Preflight,
}

/// A request as the contract allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The caller's name for it.
    pub request_id: RequestId,
    /// Who asks, as the body claims.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// To whom.
    pub targets: Vec<RuntimeId>,
    /// How long each target may take.
    pub budget: Millis,
    /// Whether nothing may be sent.
    pub dry_run: bool,
    /// The plan that the caller has seen.
    pub plan_hash: Option<String>,
}

/// A well-formed request that is denied as a whole, before anything is asked of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The caller's name for it, as given.
    pub request_id: String,
    /// The targets as given, those that are runtimes in their qualified form.
    pub targets: Vec<Result<RuntimeId, String>>,
    /// Which action, if it is one.
    pub action: Option<ActionKind>,
    /// Whether nothing would have been sent anyway.
    pub dry_run: bool,
    /// Why, for every target.
    pub denial: Denial,
}

/// A body that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It is denied for every target.
    Refused(Box<Refused>),
    /// The node may be asked.
    Wanted(Box<Wanted>),
}

impl Wanted {
    /// Denies all of it.
    pub fn refuse(self, denial: Denial) -> Refused {
        Refused {
            request_id: self.request_id.to_string(),
            targets: self.targets.into_iter().map(Ok).collect(),
            action: Some(self.action.kind()),
            dry_run: self.dry_run,
            denial,
        }
    }
}

/// Reads a request to `me`.
pub fn read(bytes: &[u8], ask: Ask, me: &RuntimeId) -> Result<Reading, Fault> {
    let body: ActionBody<'_> = json::parse(bytes)?;
    let request_id = body.request_id.clone();
    resolve(body, ask, me).map_err(|fault| Fault { request_id: request_id.parse().ok(), ..fault })
}

fn resolve(mut body: ActionBody<'_>, ask: Ask, me: &RuntimeId) -> Result<Reading, Fault> {
    if ask == Ask::Preflight && body.plan_hash.is_some() {
        return Err(Fault::at("/plan_hash", "unknown field `plan_hash`: preflight makes one, dispatch takes one"));
    }
    if !(1..=BUDGET_MAX_MS).contains(&body.query_budget_ms) {
        let got = body.query_budget_ms;
        return Err(Fault::at("/query_budget_ms", format!("wanted 1 to {BUDGET_MAX_MS} milliseconds, got {got}")));
    }
    if body.plan_hash.as_ref().is_some_and(|hash| PLAN_HASH_BYTES_MAX < hash.len()) {
        return Err(Fault::at("/plan_hash", format!("wanted at most {PLAN_HASH_BYTES_MAX} bytes")));
    }
    check_request_id(&body.request_id)?;
    let targets = read_targets(&body.target_runtimes, me)?;
    let kind: Option<ActionKind> = body.action_type.parse().ok();
    let payload = std::mem::take(&mut body.payload.0);
    let action = kind.map(|kind| read_payload(kind, payload)).transpose()?;
    match check_contract(&body, action, &targets, me) {
        Err(denial) => {
            let ActionBody { request_id, dry_run, .. } = body;
            Ok(Reading::Refused(Box::new(Refused { request_id, targets, action: kind, dry_run, denial })))
        }
        Ok((request_id, actor, action)) => Ok(Reading::Wanted(Box::new(Wanted {
            request_id,
            actor,
            action,
            targets: targets.into_iter().flatten().collect(),
            budget: Millis(body.query_budget_ms),
            dry_run: body.dry_run,
            plan_hash: body.plan_hash,
        }))),
    }
}

/// What cannot even be repeated to the caller or put on record is a fault; an empty id is a contract violation.
fn check_request_id(text: &str) -> Result<(), Fault> {
    match text.parse::<RequestId>() {
        Ok(_) | Err(id::Error::Empty) => Ok(()),
        Err(error) => Err(Fault::at("/request_id", error.to_string())),
    }
}

fn read_targets(texts: &[Text<'_>], me: &RuntimeId) -> Result<Vec<Result<RuntimeId, String>>, Fault> {
    if texts.is_empty() || TARGETS_MAX < texts.len() {
        let detail = format!("wanted 1 to {TARGETS_MAX} targets, got {}", texts.len());
        return Err(Fault::at("/target_runtimes", detail));
    }
    let parse = |Text(text): &Text<'_>| RuntimeId::parse_in(text, &me.site).map_err(|_said_later| text.to_string());
    let targets: Vec<_> = texts.iter().map(parse).collect();
    match first_repeated(&targets) {
        None => Ok(targets),
        Some(place) => {
            let name = texts.get(place).map(|Text(text)| text.chars().take(id::SEGMENT_BYTES_MAX).collect());
            let name: String = name.unwrap_or_default();
            Err(Fault::at(format!("/target_runtimes/{place}"), format!("{name:?} is given more than once")))
        }
    }
}

/// The place of the first target that stands before it already. Sorted, because lists mostly come in runs that are.
fn first_repeated(targets: &[Result<RuntimeId, String>]) -> Option<usize> {
    // Names differ more than sites do, and what is no name equals none.
    let key = |target| match target {
        &Ok(RuntimeId { ref site, ref name }) => (name.as_str(), site.as_str()),
        Err(text) => (String::as_str(text), ""),
    };
    let mut sorted: Vec<_> = targets.iter().map(key).zip(0..).collect();
    sorted.sort();
    sorted.array_windows().filter_map(|[(left, _), (right, place)]| (left == right).then_some(*place)).min()
}

/// An action's parameters whose JSON types are right. `Err` inside: the names or numbers in it are not.
type Payload = Result<Action, Refusal>;

enum Refusal {
    Action(action::Error),
    HighAvailability,
}

fn read_payload(kind: ActionKind, mut payload: Map<String, Value>) -> Result<Payload, Fault> {
    let high_availability = payload.remove("ha");
    let command = match kind {
        ActionKind::CmdInvoke => Some(take_command(&mut payload)?),
        ActionKind::CfgApply | ActionKind::StatusRead => None,
    };
    let params = match kind {
        ActionKind::CfgApply => Some(take_params(&mut payload)?.ok_or_else(|| missing("params"))?),
        ActionKind::CmdInvoke => take_params(&mut payload)?,
        ActionKind::StatusRead => None,
    };
    if let Some(name) = payload.keys().next() {
        let name: String = name.chars().take(128).collect();
        return Err(Fault::at(format!("/payload/{name}"), format!("unknown field `{name}` in the payload of {kind}")));
    }
    if let Some(claim) = high_availability {
        let fault = || Fault::at("/payload/ha", "wanted an object");
        return claim.as_object().map(|_claim| Err(Refusal::HighAvailability)).ok_or_else(fault);
    }
    let params = params.unwrap_or_default().into_iter().collect();
    Ok(value::action(kind, command.as_deref(), params).map_err(Refusal::Action))
}

fn missing(name: &str) -> Fault {
    Fault::at(format!("/payload/{name}"), format!("missing field `{name}`"))
}

fn take_command(payload: &mut Map<String, Value>) -> Result<String, Fault> {
    match payload.remove("command") {
        Some(Value::String(command)) => Ok(command),
        Some(_other) => Err(Fault::at("/payload/command", "wanted a string")),
        None => Err(missing("command")),
    }
}

fn take_params(payload: &mut Map<String, Value>) -> Result<Option<Map<String, Value>>, Fault> {
    match payload.remove("params") {
        Some(Value::Object(params)) => Ok(Some(params)),
        Some(_other) => Err(Fault::at("/payload/params", "wanted an object")),
        None => Ok(None),
    }
}

/// The checks of the contract that a well-formed request can fail, in the order of its fields.
fn check_contract(
    body: &ActionBody<'_>,
    action: Option<Payload>,
    targets: &[Result<RuntimeId, String>],
    me: &RuntimeId,
) -> Result<(RequestId, Actor, Action), Denial> {
    let violation = |rule: &'static str, reason: String| {
        Denial::at_origin(Code::ContractViolation, rule, format!("{rule}: {reason}"))
    };
    if !is_readable_version(&body.api_version) {
        let got: String = body.api_version.chars().take(16).collect();
        return Err(violation("api_version", format!("wanted {API_VERSION} or another 1.x, got {got:?}")));
    }
    let request_id = body.request_id.parse().map_err(|error: id::Error| violation("request_id", error.to_string()))?;
    match RuntimeId::parse_in(&body.connected_via, &me.site) {
        Ok(asked) if asked == *me => {}
        Ok(asked) => return Err(violation("connected_via", format!("this runtime is {me}, not {asked}"))),
        Err(error) => return Err(violation("connected_via", error.to_string())),
    }
    for target in targets {
        if let Err(text) = target {
            let error = RuntimeId::parse_in(text, &me.site).err().map(|error| error.to_string()).unwrap_or_default();
            return Err(violation("target_runtimes", error));
        }
    }
    let actor = body.actor.parse().map_err(|error| violation("actor", format!("{error}")))?;
    let action = action.ok_or_else(|| {
        let error = body.action_type.parse::<ActionKind>().err().map(|error| error.to_string());
        violation("action_type", error.unwrap_or_default())
    })?;
    match action {
        Ok(action) => Ok((request_id, actor, action)),
        Err(Refusal::Action(error)) => Err(violation("payload", error.to_string())),
        Err(Refusal::HighAvailability) => {
            let reason = "payload.ha: no high-availability group is configured on this runtime";
            Err(Denial::at_origin(Code::NotConfigured, "ha", reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeated(texts: &[&str]) -> Option<usize> {
        let own = "s".parse().expect("legal");
        let parse = |text: &&str| RuntimeId::parse_in(text, &own).map_err(|_illegal| (*text).to_owned());
        first_repeated(&texts.iter().map(parse).collect::<Vec<_>>())
    }

    #[test]
    fn the_first_target_that_stands_there_already_is_found() {
        assert_eq!(repeated(&["b", "a", "c", "a", "b"]), Some(3));
        assert_eq!(repeated(&["a", "b", "s/b"]), Some(2));
        assert_eq!(repeated(&["a", "t/a", "b", "t/b"]), None);
        assert_eq!(repeated(&["a b", "a", "a c", "a b"]), Some(3));
    }
}
