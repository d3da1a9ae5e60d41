//! Who meets whom through a router in a plant: clients meet everybody, peers only those that they are linked with.

use std::fs;

use crate::harness::SEEN_MAX;
use crate::plant::{Desk, Plant};
use crate::watch::wait_until;

/// What a peer says that is linked with a router, at the part that helps.
const REMEDY: &str = "set runtime.mesh.role = \"client\", or name each other peer in runtime.mesh.connect";

fn log(node: &Plant) -> String {
    fs::read_to_string(node.project.join("log")).expect("a log")
}

#[test]
fn a_peer_that_has_only_a_router_in_common_with_another_is_told_how_to_meet_it() {
    let desk = Desk::new(&["north"]);
    let play = |name: &str, mesh: &str| desk.play_by("north", name, mesh, &[]);
    let router = play("r", "role = \"router\"\nplugin_versions = { trust-runtime = \"0.1.0\" }");
    let (a, b) =
        (play("a", &format!("connect = [{:?}]", router.mesh)), play("b", &format!("connect = [{:?}]", router.mesh)));
    let client = play("c", &format!("role = \"client\"\nconnect = [{:?}]", router.mesh));
    for (node, others) in
        [(&client, ["r", "a", "b"].as_slice()), (&router, &["a", "b", "c"]), (&a, &["r", "c"]), (&b, &["r", "c"])]
    {
        others.iter().for_each(|other| node.sees(other, "lifecycle_state", "online"));
    }

    // Meets both: by the router a client, and by its own link a peer.
    let d = play("d", &format!("connect = [{:?}, {:?}]", router.mesh, a.mesh));
    d.sees("a", "lifecycle_state", "online");
    a.sees("d", "lifecycle_state", "online");
    // By now whoever meets anybody has met him.
    for (node, stranger) in [(&a, "b"), (&b, "a"), (&d, "b"), (&b, "d")] {
        assert!(node.peer(stranger).is_null(), "{} has met {stranger}: no page says so", node.name());
    }

    for peer in [&a, &b, &d] {
        wait_until(&format!("{} says so", peer.name()), SEEN_MAX, || {
            let log = log(peer);
            if log.contains(REMEDY) { Ok(()) } else { Err(log) }
        });
    }
    for other in [&client, &router] {
        assert!(!log(other).contains("carries nothing from peer to peer"), "{} is no peer", other.name());
    }
}
