//! Limits on requests of a real node, as it is delivered: nobody honest meets them, whatever somebody else sends meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Cluster, Setup};
use crate::http::send;
use crate::question::{DISPATCH, read, with};
use crate::watch::{Stopwatch, wait_until};

const CALLERS: usize = 64;

/// Together fewer than a node that has rested lets through at once.
const REQUESTS_PER_CALLER: usize = 15;

/// Acts of a flood, and how many of them the node of that test lets through in a second; twice as many at once.
const FLOOD: usize = 200;
const ACTS_PER_S: u32 = 5;

#[test]
fn sixty_four_callers_with_one_token_are_all_answered_while_somebody_guesses() {
    let cluster = Cluster::new();
    let [a, _b] = cluster.site(["a", "b"]);
    let token = fs::read_to_string(a.state_folder().join("admin.token")).expect("a token");
    let (web, token) = (a.web(), token.trim());
    let is_over = AtomicBool::new(false);
    let ask = |caller: usize, number: usize| {
        let body = read("a", &format!("office-{caller}-{number}"), &["b"]);
        let body = with(body, "actor", "spiffe://trust/default-site/admin");
        let answer = send(web, DISPATCH, Some(token), Some(&body)).and_then(|sent| sent.answer());
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.body["ok"].as_bool()), (200, Some(true)), "{}", answer.text);
    };
    let guess = || {
        let answer = send(web, "/api/runtime-cloud/state", Some("guess"), None).and_then(|sent| sent.answer());
        answer.expect("an answer").status
    };
    let told = (0..2_000).take_while(|_| guess() == 401).count();
    assert!((100..2_000).contains(&told), "{told} guesses were told so before one was put off");
    thread::scope(|scope| {
        let guesser = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert!([401, 503].contains(&guess()));
            }
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| scope.spawn(move || (0..REQUESTS_PER_CALLER).for_each(|number| ask(caller, number))))
            .collect();
        let answered = callers.into_iter().map(thread::ScopedJoinHandle::join).filter(Result::is_ok).count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(answered, CALLERS);
        guesser.join().expect("every guess is answered");
    });
}

#[test]
fn a_node_holds_a_flood_to_what_its_settings_say() {
    let cluster = Cluster::new();
    let a = cluster.play("a", Setup::new().acts_per_s(ACTS_PER_S));
    let watch = Stopwatch::start();
    let statuses: Vec<_> =
        (0..FLOOD).map(|number| a.post(DISPATCH, &read("a", &format!("flood-{number}"), &["a"])).status).collect();
    let most = 2 * u64::from(ACTS_PER_S) + u64::from(ACTS_PER_S) * (1 + watch.elapsed().as_secs());
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    let (done, held_back) = (count(200), count(429));
    assert_eq!(done + held_back, FLOOD, "{statuses:?}");
    let done = u64::try_from(done).expect("small");
    assert!((2 * u64::from(ACTS_PER_S)..=most).contains(&done), "{done} of {FLOOD} were let through, {most} may be");
    assert!(0 < held_back, "a loop without a pause sends more than {most}");
    // It may look at what became of them all the while, and act again when it has waited.
    assert_eq!(a.get("/api/runtime-cloud/audit").status, 200);
    wait_until("it acts again", Duration::from_secs(5), || {
        let answer = a.post(DISPATCH, &read("a", "afterwards", &["a"]));
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    });
}
