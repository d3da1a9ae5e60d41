//! Bodies of the routes that act.

use serde_json::Value;
use trust_runtime::domain::preflight::TARGETS_MAX;
use trust_runtime::wire::api::v1::action::{self, Ask, Reading};
use trust_runtime::wire::api::v1::{Fault, control};

use crate::world::me;

/// The longest pointer to a fault: what a refusal may repeat of a hostile body.
const POINTER_BYTES_MAX: usize = 1_024;

/// Whether any of the routes would take it.
pub fn is_accepted(data: &[u8]) -> bool {
    matches!(action::read(data, Ask::Dispatch, &me()), Ok(Reading::Wanted(_)))
        || control::read_plain(data).is_ok()
        || control::read_peer(data, &me()).is_ok()
}

/// What is read says what the body says, and both action routes read it alike.
pub fn run(data: &[u8]) {
    let dispatch = action::read(data, Ask::Dispatch, &me());
    let preflight = action::read(data, Ask::Preflight, &me());
    for fault in [dispatch.as_ref().err(), preflight.as_ref().err()].into_iter().flatten() {
        check_fault(fault);
    }
    if let Ok(reading) = &dispatch {
        let body: Value = serde_json::from_slice(data).expect("what is read is JSON");
        let has_plan = body.get("plan_hash").is_some();
        assert_eq!(preflight.is_ok(), !has_plan, "preflight differs from dispatch by the plan alone");
        check_reading(reading, &body);
    }
    if let Err(fault) = control::read_plain(data) {
        check_fault(&fault);
    }
    match control::read_peer(data, &me()) {
        Err(fault) => check_fault(&fault),
        Ok((runtime, fingerprint)) => {
            let body: Value = serde_json::from_slice(data).expect("what is read is JSON");
            assert_eq!(runtime.to_string().parse(), Ok(runtime));
            assert_eq!(
                body.get("fingerprint").and_then(Value::as_str),
                fingerprint.map(|it| it.to_string()).as_deref()
            );
        }
    }
}

fn check_fault(fault: &Fault) {
    assert!(fault.pointer.len() <= POINTER_BYTES_MAX, "{} bytes of pointer", fault.pointer.len());
    assert!(fault.pointer.is_empty() || fault.pointer.starts_with('/'), "{:?}", fault.pointer);
}

fn check_reading(reading: &Reading, body: &Value) {
    let text = |name: &str| body.get(name).and_then(Value::as_str).expect("a text");
    let targets = body.get("target_runtimes").and_then(Value::as_array).map_or(0, Vec::len);
    assert!((1..=TARGETS_MAX).contains(&targets));
    match reading {
        Reading::Wanted(wanted) => {
            assert_eq!(wanted.request_id.as_str(), text("request_id"));
            assert_eq!(wanted.actor.to_string(), text("actor"));
            assert_eq!(wanted.action.kind().as_str(), text("action_type"));
            assert_eq!(wanted.targets.len(), targets);
            assert_eq!(wanted.dry_run, body.get("dry_run").and_then(Value::as_bool).unwrap_or_default());
        }
        Reading::Refused(refused) => {
            assert_eq!(refused.request_id, text("request_id"));
            assert_eq!(refused.targets.len(), targets);
        }
    }
}
