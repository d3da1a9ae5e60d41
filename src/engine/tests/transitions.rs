//! The states of peers that the timeline tells, and when they are looked at.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Zeros, engine, letter, settings, signed_by};
use crate::domain::envelope::Health;
use crate::domain::identity::Role;
use crate::domain::preflight::Asker;
use crate::domain::projection::{Lifecycle, Limits};
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::Engine;
use crate::engine::effect::Effects;
use crate::engine::input::{Input, ReplyId, Request};
use crate::engine::view::Settings;
use crate::engine::word::{Observation, Word};

const PEERS: [&str; 3] = ["s/b", "s/c", "s/d"];

/// What may happen next to one of the peers.
#[derive(Debug, Clone, Copy)]
enum Event {
    Speaks,
    SaysGoodbye,
    LosesToken,
    ShowsToken,
    /// The node takes up settings with other limits.
    Limits(u64),
    Time,
}

fn events() -> impl Strategy<Value = Vec<(u64, usize, Event)>> {
    let event = prop_oneof![
        6 => Just(Event::Speaks),
        1 => Just(Event::SaysGoodbye),
        2 => Just(Event::LosesToken),
        2 => Just(Event::ShowsToken),
        1 => (1_000_u64..4_000).prop_map(Event::Limits),
        3 => Just(Event::Time),
    ];
    proptest::collection::vec((0_u64..1_500, 0..PEERS.len(), event), 1..60)
}

fn now(millis: u64) -> Now {
    Now {
        wall: Wall::from_millis(1_800_000_000_000).plus(Millis(millis)),
        monotonic: Monotonic::default().plus(Millis(millis)),
    }
}

fn word(peer: &str, sequence: u64, now: Now, is_leaving: bool) -> Input {
    let said = Observation {
        runtime: peer.parse().expect("legal"),
        boot: 1,
        sequence,
        at: now.wall,
        health: Health::Healthy,
        config_revision: 0,
        runs_head: None,
        edges: None,
        is_leaving,
    };
    let signer = signed_by(peer, letter(peer, "r", "debug", now)).signer;
    Input::Word { signer, word: Word::Observation(said) }
}

fn reload(stale: u64) -> Input {
    let partition = Millis(stale).0.saturating_add(500);
    let limits = Limits { period: Millis(500), stale: Millis(stale), partition: Millis(partition) };
    let asker = Asker { actor: "spiffe://trust/s/admin".parse().expect("legal"), role: Role::Admin, is_verified: true };
    let settings = Arc::new(Settings { limits, ..settings() });
    Input::Request { reply: ReplyId(1), request: Request::Reload { asker, settings, detail: String::new() } }
}

fn input(peer: &str, event: Event, sequence: u64, now: Now) -> Input {
    let runtime = peer.parse().expect("legal");
    match event {
        Event::Speaks => word(peer, sequence, now, false),
        Event::SaysGoodbye => word(peer, sequence, now, true),
        Event::LosesToken => Input::TokenGone { runtime, boot: 1 },
        Event::ShowsToken => Input::TokenAppeared { runtime, boot: 1 },
        Event::Limits(stale) => reload(stale),
        Event::Time => Input::Timer,
    }
}

/// Lets it all happen, and asks after each event.
fn walk(
    events: Vec<(u64, usize, Event)>,
    mut check: impl FnMut(&Engine, Now) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut engine = engine(&PEERS);
    let mut millis = 1_u64;
    for ((pause, peer, event), sequence) in events.into_iter().zip(1..) {
        millis = millis.saturating_add(pause);
        let input = input(PEERS[peer], event, sequence, now(millis));
        engine.handle(now(millis), &mut Zeros, input, &mut Effects::default());
        check(&engine, now(millis))?;
    }
    Ok(())
}

proptest! {
    /// Nobody's change waits for the next look at all: after each input the timeline has told the states of all peers.
    #[test]
    fn every_change_of_state_is_told_at_the_first_input_after_it(events in events()) {
        walk(events, |engine, now| {
            let view = engine.view();
            for (runtime, peer) in &view.peers {
                prop_assert_eq!(peer.told, peer.presence.lifecycle(&view.limits, now.monotonic), "{}", runtime);
            }
            Ok(())
        })?;
    }

    /// Whoever sleeps until the deadline and then gives a timer misses nothing, and is not kept awake.
    #[test]
    fn no_state_changes_by_time_before_the_deadline_which_is_never_now(events in events()) {
        walk(events, |engine, now| {
            let due = engine.next_deadline().unwrap_or(Monotonic(u64::MAX));
            prop_assert!(now.monotonic < due, "{:?}, and it is {:?}", due, now.monotonic);
            let view = engine.view();
            for peer in view.peers.values() {
                let state = |at| peer.presence.lifecycle(&view.limits, at);
                prop_assert_eq!(state(Monotonic(due.0.saturating_sub(1))), state(now.monotonic));
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_silent_peer_is_told_stale_and_partitioned_by_the_deadlines_alone() {
    let mut engine = engine(&PEERS);
    engine.handle(now(1), &mut Zeros, word("s/b", 1, now(1), false), &mut Effects::default());
    let mut told = Vec::new();
    while let Some(due) = engine.next_deadline() {
        let moment = now(due.0.div_ceil(1_000_000));
        engine.handle(moment, &mut Zeros, Input::Timer, &mut Effects::default());
        told.push(engine.view().peers.get(&"s/b".parse().expect("legal")).expect("known").told);
    }
    assert_eq!(told, [Lifecycle::Stale, Lifecycle::Partitioned]);
}
