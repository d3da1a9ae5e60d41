//! JSON values and the domain's typed values, in both directions.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::domain::action::{Action, ActionKind, Error};
use crate::domain::config::Value;

/// A setting's value from JSON. What no setting can be is kept as text, so that the refusal can show it.
fn from_json(json: Json) -> Value {
    match json {
        Json::Bool(value) => Value::Bool(value),
        Json::String(text) => Value::Text(text),
        Json::Number(number) => number.as_i64().map_or_else(|| Value::Other(number.to_string()), Value::Int),
        other @ (Json::Null | Json::Array(_) | Json::Object(_)) => Value::Other(other.to_string()),
    }
}

/// A setting's value as JSON.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(number) => Json::from(*number),
        Value::Text(text) => Json::String(text.clone()),
        Value::Other(text) => serde_json::from_str(text).unwrap_or(Json::Null),
    }
}

/// An action from its kind, command and parameters.
pub fn action(kind: ActionKind, command: Option<&str>, params: BTreeMap<String, Json>) -> Result<Action, Error> {
    match kind {
        ActionKind::StatusRead => Ok(Action::StatusRead),
        ActionKind::CfgApply => {
            Action::cfg_apply(params.into_iter().map(|(key, json)| (key, from_json(json))).collect())
        }
        ActionKind::CmdInvoke => {
            let params = params.into_iter().map(|(name, json)| (name, json.to_string())).collect();
            Action::cmd_invoke(command.unwrap_or_default(), params)
        }
    }
}

/// An action's parameters as JSON.
pub fn params_of(action: &Action) -> BTreeMap<String, Json> {
    match action {
        Action::StatusRead => BTreeMap::new(),
        Action::CfgApply(values) => values.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
        Action::CmdInvoke(invocation) => invocation
            .params
            .iter()
            .map(|(name, text)| (name.clone(), serde_json::from_str(text).unwrap_or(Json::Null)))
            .collect(),
    }
}
