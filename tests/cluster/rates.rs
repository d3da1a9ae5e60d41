//! Limits on requests of a real node, as it is delivered: nobody honest meets them, whatever somebody else sends meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::Cluster;
use crate::http::send;
use crate::question::{DISPATCH, read, with};

const CALLERS: usize = 64;
const REQUESTS_PER_CALLER: usize = 20;

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
