//! How full the queues of a node itself are: each filled to its end while its loop does not get to run.

use super::Alone;
use crate::domain::queue::Queue;
use crate::domain::queue::tests::{Put, check};
use crate::handle::Operations as _;

const OWN: [&str; 3] = ["errands", "mailbox", "urgent"];

#[tokio::test]
async fn each_queue_of_a_node_says_how_much_is_in_it_and_how_much_it_takes() {
    let alone = Alone::new().await;
    let node = &alone.node.operations;
    let own = || node.queues().into_iter().filter(|queue| OWN.contains(&queue.name)).collect::<Vec<Queue>>();
    let taken = async {
        while own().iter().any(|queue| queue.length != 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), taken).await.expect("what there was is taken");
    let errands = node.0.errands.upgrade().expect("it runs");
    let (mut accepted, mut mails, mut first) = (Vec::new(), Vec::new(), Vec::new());
    // A place that is held is none that anybody else has.
    let errand = || errands.clone().try_reserve_owned().map(|place| accepted.push(place)).is_ok();
    let mail = || node.0.mailbox.clone().try_reserve_owned().map(|place| mails.push(place)).is_ok();
    let urgent = || node.0.urgent.clone().try_reserve_owned().map(|place| first.push(place)).is_ok();
    let puts: [(&str, Put<'_>); 3] =
        [("errands", Box::new(errand)), ("mailbox", Box::new(mail)), ("urgent", Box::new(urgent))];
    check(own, puts.into());
}
