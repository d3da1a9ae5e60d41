//! Runs and pointers as the HTTP interface shows them (contract, RR-21, RR-22 and RR-76).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use utoipa::ToSchema;

use super::moment::iso;
use crate::domain::run::{AgentName, Instance, Pointer, Run};

/// A run, as everybody may know of it who may list runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PointerBody {
    /// The run's id: `run_` and a ULID.
    pub run_id: String,
    /// The instance it belongs to.
    pub instance_id: String,
    /// What it executes: an agent, or a command as `cmd.<command>`.
    pub agent_name: String,
    /// `active`, `completed` or `errored`.
    pub status: String,
    /// When it began.
    pub started_at: String,
    /// When it ended; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Whether it ended otherwise than it should; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// How long it took in milliseconds; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// A run with what it brought.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunBody {
    /// What lists show of it.
    #[serde(flatten)]
    pub pointer: PointerBody,
    /// What it brought; absent where it brought nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    pub result: Option<Box<RawValue>>,
    /// What went wrong, with a name and a message; absent where nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = serde_json::Value, required = false)]
    pub error: Option<Box<RawValue>>,
}

/// An instance of an agent that has runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceBody {
    /// The agent.
    pub agent_name: String,
    /// The instance.
    pub instance_id: String,
}

impl From<&Pointer> for PointerBody {
    fn from(pointer: &Pointer) -> Self {
        Self {
            run_id: pointer.run.to_string(),
            instance_id: pointer.instance.to_string(),
            agent_name: pointer.agent.to_string(),
            status: pointer.status().as_str().to_owned(),
            started_at: iso(pointer.started),
            ended_at: pointer.end.map(|end| iso(end.at)),
            is_error: pointer.end.map(|end| end.is_error),
            duration_ms: pointer.end.map(|end| end.duration.0),
        }
    }
}

impl From<&Run> for RunBody {
    fn from(run: &Run) -> Self {
        let raw = |text: &Option<String>| text.as_deref().map(raw);
        Self { pointer: PointerBody::from(&run.pointer), result: raw(&run.result), error: raw(&run.error) }
    }
}

impl InstanceBody {
    /// An agent and its instance.
    pub fn new(agent: &AgentName, instance: &Instance) -> Self {
        Self { agent_name: agent.to_string(), instance_id: instance.to_string() }
    }
}

/// The JSON text of an error with a name and a message: what a run keeps of it.
pub fn error_of(name: &str, message: &str) -> String {
    json!({ "name": name, "message": message }).to_string()
}

/// A stored JSON text as it is. What is none, which nothing writes, becomes a text.
pub fn raw(text: &str) -> Box<RawValue> {
    let whole = RawValue::from_string(text.to_owned());
    whole
        .or_else(|_no_json| serde_json::value::to_raw_value(&Json::from(text)))
        .unwrap_or_else(|_never| RawValue::NULL.to_owned())
}
