//! What is stolen at one site opens nothing at another, though the sites know each other and act on each other.

use serde_json::{Value as Json, json};

use crate::harness::{Cluster, SEEN_MAX};
use crate::plant::{Desk, Plant, ask, outcome, ping, write_settings};
use crate::watch::wait_until;

const ALICE: &str = "spiffe://trust/north/alice";

/// The status that a node gives to whoever shows this.
fn status(desk: &Desk, at: &Plant, site: &str, shown: &[&str], path: &str, body: Option<&Json>) -> String {
    let options = [&["--output", "/dev/null", "--write-out", "%{http_code}"], shown].concat();
    let output = at.curl(&desk.anchors(site), path, &options, body);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A new token counts within a second.
#[track_caller]
fn opens(desk: &Desk, at: &Plant, site: &str, shown: &[&str]) {
    wait_until("it opens", SEEN_MAX, || {
        let status = status(desk, at, site, shown, "/api/runtime-cloud/state", None);
        if status == "200" { Ok(()) } else { Err(status) }
    });
}

/// Every door of a node that takes credentials, with who asks in the name of whom.
fn doors(at: &Plant, site: &str) -> Vec<(&'static str, Option<Json>)> {
    let own = format!("spiffe://trust/{site}/alice");
    let target = format!("{site}/{}", at.name());
    let dispatch = "/api/runtime-cloud/actions/dispatch";
    vec![
        ("/api/runtime-cloud/state", None),
        ("/api/runtime-cloud/audit", None),
        ("/runs/01ARZ3NDEKTSV4RRFFQ69G5FAV", None),
        (dispatch, Some(ping(at, ALICE, &target, "stolen-1"))),
        (dispatch, Some(ping(at, &own, &target, "stolen-2"))),
        (dispatch, Some(ask(at, &own, &target, "stolen-3", "status_read", &json!({})))),
        ("/api/runtime-cloud/control/reload", Some(json!({}))),
    ]
}

/// A node of each of two sites that know each other and are linked: peers in `dev`, and else routers that are partners inside TLS.
fn linked(desk: &Desk, profile: &str) -> (Plant, Plant) {
    let both = ["north", "south"];
    if profile == "dev" {
        let south = desk.play_with((profile, "south", "s"), &both, &[], &[], "");
        let north = desk.play_with((profile, "north", "a"), &both, &[&south], &[], "");
        return (north, south);
    }
    // Kept until both have started: nobody else gets the port.
    let cluster = Cluster::new();
    let address = cluster.reserve();
    let router = |partner: &str, way: &str| {
        format!(
            "tls = true\nrole = \"router\"\nplugin_versions = {{ trust-runtime = \"0.1.0\" }}\n\
             [[runtime.mesh.partner]]\nsite = {partner:?}\n{way}\n"
        )
    };
    let south = router("north", &format!("listen = \"{address}\""));
    let south = desk.play_as((profile, "south", "s"), &both, &south);
    let north = router("south", &format!("connect = [\"{address}\"]"));
    (desk.play_as((profile, "north", "a"), &both, &north), south)
}

/// What becomes of a dispatch by the plan that was made for it, without which nobody acts on another site in `wan`.
fn acts(desk: &Desk, north: &Plant, person: &(String, String), mut body: Json) -> Json {
    let options = ["--cert", &person.0, "--key", &person.1];
    let output = north.curl(&desk.anchors("north"), "/api/runtime-cloud/actions/preflight", &options, Some(&body));
    let planned: Json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if let Some(plan) = planned["plan_hash"].as_str() {
        body["plan_hash"] = json!(plan);
    }
    north.dispatch(desk, "north", person, &body)
}

#[test]
fn a_certificate_and_a_token_that_were_stolen_in_one_site_open_nothing_in_another() {
    what_is_stolen_in_north_opens_nothing_in_south("dev");
}

#[test]
fn what_was_stolen_in_one_plant_opens_nothing_in_another() {
    what_is_stolen_in_north_opens_nothing_in_south("plant");
}

#[test]
fn what_was_stolen_in_one_site_of_a_wan_opens_nothing_in_another() {
    what_is_stolen_in_north_opens_nothing_in_south("wan");
}

/// Alice of north may act in south, from a node of north. With her certificate or her token nobody does so at a node of south.
fn what_is_stolen_in_north_opens_nothing_in_south(profile: &str) {
    let desk = Desk::new(&["north", "south"]);
    let (north, south) = linked(&desk, profile);
    for (node, list) in [(&north, "allow_write"), (&south, "accept_write")] {
        let text = std::fs::read_to_string(node.project.join("runtime.toml")).expect("settings");
        let target = if list == "allow_write" { "target = \"south/*\"\n" } else { "" };
        let rule = format!("action = \"cmd_invoke/ping\"\nactor = \"north/alice\"\n{target}");
        write_settings(&node.project, &format!("{text}\n[[runtime.cloud.wan.{list}]]\n{rule}"));
        node.command(&["ctl", "reload"]);
    }
    let person = desk.person("ca-north", "alice");
    let certificate = ["--cert", person.0.as_str(), "--key", person.1.as_str()];
    let made = north.command(&["token", "create", "--role", "admin", "--actor", "alice"]);
    let bearer = format!("authorization: Bearer {}", made["token"].as_str().expect("shown once"));
    let token = ["--header", bearer.as_str()];

    // Both are good where they were made, and Alice is let in south by way of her node.
    north.sees("south/s", "lifecycle_state", "online");
    let mut turn = 0;
    wait_until("she acts in south", SEEN_MAX, || {
        turn += 1;
        let answer = acts(&desk, &north, &person, ping(&north, ALICE, "south/s", &format!("by-her-node-{turn}")));
        if outcome(&answer) == "ok" { Ok(()) } else { Err(answer.to_string()) }
    });
    for shown in [certificate.as_slice(), token.as_slice()] {
        opens(&desk, &north, "north", shown);
    }
    let node_key = format!("{}/tls/node-a", north.project.display());
    let (node_pem, node_key) = (format!("{node_key}.pem"), format!("{node_key}.key"));
    let node = ["--cert", node_pem.as_str(), "--key", node_key.as_str()];
    let together = [certificate.as_slice(), token.as_slice()].concat();
    for shown in [certificate.as_slice(), token.as_slice(), &node, &together] {
        for (path, body) in doors(&south, "south") {
            assert_eq!(status(&desk, &south, "south", shown, path, body.as_ref()), "401", "{path} {shown:?} {body:?}");
        }
    }
    // What is of south opens the same doors, so that it is not the doors.
    let made = south.command(&["token", "create", "--role", "admin", "--actor", "*"]);
    let own = format!("authorization: Bearer {}", made["token"].as_str().expect("shown once"));
    opens(&desk, &south, "south", &["--header", &own]);
}
