//! Settings that are read again while the store takes no writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ME, Zeros, at, authority, settings};
use crate::domain::config::{Overlay, Value};
use crate::domain::envelope::Health;
use crate::domain::identity::Role;
use crate::domain::preflight::Asker;
use crate::domain::time::Wall;
use crate::engine::Engine;
use crate::engine::effect::{Effect, Effects};
use crate::engine::input::{Input, ReplyId, Request};
use crate::engine::record::Record;
use crate::engine::view::Settings;

const KEY: &str = "store.receipts_kept_h";

fn hours(number: i64) -> BTreeMap<String, Value> {
    BTreeMap::from([(KEY.to_owned(), Value::Int(number))])
}

fn in_file(number: i64) -> Arc<Settings> {
    Arc::new(Settings { file_values: hours(number), ..settings() })
}

/// The file says 24 hours, and 48 were applied over it.
fn engine_with_applied_value() -> Engine {
    let (overlay, _) = Overlay::default().with(&hours(48), &hours(24));
    Engine::recover(in_file(24), ME, [Record::Overlay(overlay)], at(0)).expect("facts")
}

fn reload(engine: &mut Engine, settings: Arc<Settings>) -> Effects {
    let asker = Asker { actor: "spiffe://trust/s/admin".parse().expect("legal"), role: Role::Admin, is_verified: true };
    let request = Request::Reload { asker, settings, detail: String::new() };
    let mut effects = Effects::default();
    engine.handle(at(1), &mut Zeros, Input::Request { reply: ReplyId(1), request }, &mut effects);
    effects
}

fn applied(effects: &Effects) -> Vec<&BTreeMap<String, Value>> {
    effects.after.iter().filter_map(|it| if let Effect::Apply { values } = it { Some(values) } else { None }).collect()
}

/// What beats it is on record, and that cannot be written before.
#[test]
fn a_value_that_was_edited_while_the_store_took_no_writes_counts_once_it_does() {
    let mut engine = engine_with_applied_value();
    engine.stop_writing();
    assert_eq!(applied(&reload(&mut engine, in_file(36))), Vec::<&BTreeMap<_, _>>::new());
    assert_eq!(engine.values_in_force(), hours(48));
    let mut effects = Effects::default();
    engine.resume_writing(at(2), &mut Zeros, &mut effects);
    assert_eq!(engine.values_in_force(), hours(36));
    assert_eq!(applied(&effects), [&hours(36)]);
    let is_empty = |record: &Record| matches!(record, Record::Overlay(overlay) if overlay.values.is_empty());
    assert!(effects.batch.records.iter().any(is_empty), "{effects:?}");
    assert!(effects.batch.audits.iter().any(|draft| draft.action == "overlay_dropped"), "{effects:?}");
}

#[test]
fn a_store_that_takes_writes_again_changes_nothing_that_nobody_has_edited() {
    let mut engine = engine_with_applied_value();
    engine.stop_writing();
    let mut effects = Effects::default();
    engine.resume_writing(at(2), &mut Zeros, &mut effects);
    assert_eq!((applied(&effects), engine.values_in_force()), (Vec::new(), hours(48)));
    assert!(!effects.batch.records.iter().any(|record| matches!(record, Record::Overlay(_))), "{effects:?}");
}

/// Peers that have not heard of the ban are told too that something is wrong.
#[test]
fn a_node_whose_own_certificate_is_refused_does_not_call_itself_healthy() {
    let mut engine = engine_with_applied_value();
    assert_eq!(engine.view().health(), Health::Healthy);
    let authority = authority().asked_of_own(&[], Wall::from_millis(1));
    reload(&mut engine, Arc::new(Settings { authority: Some(authority), ..settings() }));
    assert_eq!(engine.view().health(), Health::Degraded);
    reload(&mut engine, in_file(24));
    assert_eq!(engine.view().health(), Health::Healthy);
}
