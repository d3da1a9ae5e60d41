//! How full the queues of the store are: each filled to its end while nobody takes anything from it.

use super::*;
use crate::domain::queue::tests::{Put, check};
use crate::store::contract::refused;
use crate::store::sqlite::{Bounds, lock, open_within};

/// A quota of nothing has both writers of rotated chains ask for the key before they let anything go.
#[test]
fn each_queue_of_the_store_says_how_much_is_in_it_and_how_much_it_takes() {
    let (_folder, path) = place();
    let options = Options { read_audit_max_mb: 0, ..options(&path) };
    let bounds = Bounds { interval: Duration::from_secs(3_600), refusals_max_mb: 0, ..Bounds::OF_A_NODE };
    let store = open_within(&options, bounds).expect("opens");
    let key = lock(&store.key);
    store.append_reads(vec![draft(1), draft(2), refused(3), refused(4)]).expect("room");
    let began = tokio::time::Instant::now();
    while store.queues().iter().any(|queue| queue.length != 0) {
        assert!(began.elapsed() < PATIENCE, "they take what there is: {:?}", store.queues());
        std::thread::yield_now();
    }
    let ways = store.link(|links| (links.commits.clone(), links.facts.clone(), links.pages.clone())).expect("open");
    let (mut commits, mut facts, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    // A place that is held is none that anybody else has.
    let commit = || ways.0.clone().try_reserve_owned().map(|place| commits.push(place)).is_ok();
    let fact = || ways.1.clone().try_reserve_owned().map(|place| facts.push(place)).is_ok();
    let page = || ways.2.clone().try_reserve_owned().map(|place| pages.push(place)).is_ok();
    let puts: [(&str, Put<'_>); 5] = [
        ("read_records", Box::new(|| store.append_reads(vec![draft(5)]).is_ok())),
        ("refusal_records", Box::new(|| store.append_reads(vec![refused(6)]).is_ok())),
        ("store_commits", Box::new(commit)),
        ("store_facts", Box::new(fact)),
        ("store_pages", Box::new(page)),
    ];
    check(|| store.queues(), puts.into());
    drop(key);
    drop((ways, commits, facts, pages));
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(store.close());
}
