//! How full the queues of the store of runs are: each filled to its end.

use super::*;
use crate::domain::queue::tests::{Put, check};

#[tokio::test]
async fn each_queue_of_the_store_of_runs_says_how_much_is_in_it_and_how_much_it_takes() {
    let (_folder, path) = place();
    let store = opened(&path);
    let ways = store.link(|links| (links.commits.clone(), links.facts.clone(), links.pages.clone())).expect("open");
    let (mut commits, mut facts, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    // A place that is held is none that anybody else has.
    let commit = || ways.0.clone().try_reserve_owned().map(|place| commits.push(place)).is_ok();
    let fact = || ways.1.clone().try_reserve_owned().map(|place| facts.push(place)).is_ok();
    let page = || ways.2.clone().try_reserve_owned().map(|place| pages.push(place)).is_ok();
    let puts: [(&str, Put<'_>); 3] =
        [("run_commits", Box::new(commit)), ("run_facts", Box::new(fact)), ("run_pages", Box::new(page))];
    check(|| RunStore::queues(&store), puts.into());
    drop((ways, commits, facts, pages));
    store.close().await;
}
