//! Who waits at the owner of a run for its next event, and is shut out meanwhile.

use std::sync::Arc;

use rcgen::{CertifiedIssuer, KeyPair};

use super::liar::payload;
use super::support::key;
use super::*;
use crate::domain::action::Action;
use crate::domain::envelope::Envelope;
use crate::domain::identity::authority::Authority;
use crate::domain::preflight::Profile;
use crate::domain::time::{Millis, Wall};
use crate::engine::input::Request;
use crate::engine::view::Settings;
use crate::node::arrived::tests::{authority_of_site, keys_until, trusting};
use crate::node::reach::desk::KEPT_BYTES_MAX;
use crate::wire::mesh::{Keys, RunAsked};

/// From now on this node runs with other settings.
async fn reload(member: &Member, change: impl FnOnce(&mut Settings)) {
    let mut settings = (*member.node.operations().view().settings).clone();
    change(&mut settings);
    let request = Request::Reload { asker: engineer(), settings: Arc::new(settings), detail: "trust".to_owned() };
    in_time(member.node.operations.0.ask_engine_first(request)).await.expect("reloaded");
}

/// What `a` says in the end to `s/b`, which asked it for the second event of a run while the first trust held, and whether that
/// event was in the answer. The certificate of `s/b` lives for an hour or for as long as is said, and its question is at least
/// so long.
async fn told_after(
    issuer: &CertifiedIssuer<'_, KeyPair>,
    (life, length): (Option<Millis>, usize),
    change: impl AsyncFnOnce(&Member, Wall),
) -> (String, bool) {
    let hub = Hub::new().expect("a hub");
    let a = Member::join(&hub, "s/a", Kept::new()).await;
    reload(&a, |settings| settings.authority = trust(issuer, None)).await;
    let run = a.begin(1).await.run;
    let now = a.node.operations().now().wall;
    // Certificates end with whole seconds.
    let end = now.plus(life.unwrap_or(Millis::from_hours(1))).as_millis().div_ceil(1_000);
    let end = Wall::from_millis(end.saturating_mul(1_000));
    let keys = keys_until(issuer, now, end);
    let mut question = question(&keys, run, now);
    question.resize(question.len().max(length), b' ');
    let mut waiting = std::pin::pin!(hub.ask_foreign(&a.id, "truST/s/a/svc/rpc/run/s/b", question));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "it waits at the owner");
    change(&a, end).await;
    a.say(run, 1, "not for everybody").await;
    let answer = payload(&in_time(waiting).await.expect("an answer")).expect("signed");
    let denied = a.run_reads().iter().filter(|draft| draft.outcome == Outcome::Denied).count();
    let said = answer["said"].as_str().expect("a word").to_owned();
    assert_eq!(denied, usize::from(said == "denied"), "it is on record");
    (said, answer.to_string().contains("not for everybody"))
}

/// `s/b` asks `s/a` to be told of the second event of a run.
fn question(keys: &Keys, run: RunId, now: Wall) -> Vec<u8> {
    let asker = engineer();
    let read = Envelope {
        target: parsed("s/a"),
        target_key: key("s/a").fingerprint(),
        target_boot: None,
        origin: parsed("s/b"),
        actor: asker.actor,
        role: asker.role,
        actor_verified: true,
        request_id: parsed("waiting"),
        action: Action::StatusRead,
        issued: now,
        expires: now.plus(Action::StatusRead.kind().window()),
        boot: 1,
        sequence: 1,
        policy_hash: Hash([0; 32]),
    };
    let asked = RunAsked::Events { from: 1, kinds: None, limit: 9, wait: Millis(9_000), takes_held: false };
    message::seal_run_question(keys, &read, run, &asked).0
}

fn trust(issuer: &CertifiedIssuer<'_, KeyPair>, ban: Option<&str>) -> Option<Authority> {
    trusting(&[("s", issuer.der().clone())], ban).authority.clone()
}

#[tokio::test]
async fn who_waits_for_an_event_is_judged_by_the_trust_of_the_answer() {
    let issuer = authority_of_site();
    let banning = |ban: Option<&'static str>| {
        let authority = trust(&issuer, ban);
        async move |a: &Member, _| reload(a, |settings| settings.authority = authority).await
    };
    let (events, denied) = (("events".to_owned(), true), ("denied".to_owned(), false));
    assert_eq!(told_after(&issuer, (None, 0), banning(None)).await, events, "the same trust");
    for (length, told) in [(0, &events), (KEPT_BYTES_MAX, &events), (KEPT_BYTES_MAX + 1, &denied)] {
        let other = banning(Some("id spiffe://trust/s/eve"));
        let what = format!("another trust that has it too, asked in {length} bytes");
        assert_eq!(told_after(&issuer, (None, length), other).await, *told, "{what}");
    }
    for (what, ban) in [("the actor", "id spiffe://trust/s/alice"), ("the origin", "id spiffe://trust/s/runtime/b")] {
        assert_eq!(told_after(&issuer, (None, 0), banning(Some(ban))).await, denied, "{what} is banned");
    }
    let left =
        async |a: &Member, _| reload(a, |settings| settings.authority = trusting(&[], None).authority.clone()).await;
    assert_eq!(told_after(&issuer, (None, 0), left).await, denied, "its anchors are taken away");
}

#[tokio::test]
async fn who_waits_for_an_event_is_told_nothing_once_his_certificate_has_ended() {
    let issuer = authority_of_site();
    let over = async |a: &Member, end| until("it has ended", async || end < a.node.operations().now().wall).await;
    let told = told_after(&issuer, (Some(Millis::from_secs(2)), 0), over).await;
    assert_eq!(told, ("denied".to_owned(), false));
}

/// His own node may not have heard of it.
#[tokio::test]
async fn a_reader_at_another_node_is_told_that_he_was_shut_out_and_not_what_came_meanwhile() {
    let issuer = authority_of_site();
    let ban = |settings: &mut Settings| settings.authority = trust(&issuer, Some("id spiffe://trust/s/alice"));
    let promise = |settings: &mut Settings| settings.profile = Profile::Plant;
    for (what, code) in [("a ban", Code::PermissionDenied), ("a profile of certificates", Code::UntrustedIdentity)] {
        let (_hub, members) = site(&["s/a", "s/b"]).await;
        let [a, b] = members.as_slice() else { panic!("two") };
        let run = a.begin(1).await.run;
        let mut follower = follow(b, run, None).await;
        let waiting = waits_at_owner(&mut follower).await;
        reload(a, |settings| if what == "a ban" { ban(settings) } else { promise(settings) }).await;
        a.say(run, 1, "not for everybody").await;
        match in_time(waiting).await {
            Err(Absent::Failed(failure)) => assert_eq!(failure.code, code, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(
            a.run_reads().iter().any(|draft| draft.outcome == Outcome::Denied && draft.code == Some(code)),
            "{what}"
        );
    }
}
