//! Three sites, each a network of its own: a router, a node behind it, and one cable to each of the other two. Profile `wan`,
//! certificates and TLS everywhere, nothing shared but the anchors that were exchanged.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use crate::netns::Spaces;
use crate::plant::{Desk, Plant, TOKEN, ask, outcome, ping, write_settings};
use crate::watch::wait_until;

/// How long six nodes on a busy machine may take to see what changed.
const SEEN_MAX: Duration = Duration::from_secs(40);

const ALICE: &str = "spiffe://trust/north/alice";

/// Who has a cable to whom, by number, and which of the two listens: the first.
const CABLES: [(u8, &str, &str); 3] = [(1, "north", "south"), (2, "north", "east"), (3, "south", "east")];

/// The authorities, the networks, and what runs in them.
struct World {
    desk: Desk,
    sites: Vec<&'static str>,
    spaces: Spaces,
}

/// A site that runs.
struct Site {
    router: Plant,
    node: Plant,
}

impl World {
    fn new(test: &str, sites: &[&'static str]) -> Self {
        let spaces = Spaces::new(test, sites);
        let world = Self { desk: Desk::new(sites), sites: sites.to_vec(), spaces };
        for (number, one, other) in world.cables() {
            world.spaces.join(number, one, other);
        }
        world
    }

    fn cables(&self) -> impl Iterator<Item = (u8, &'static str, &'static str)> {
        let is_there = |site: &&str| self.sites.contains(site);
        CABLES.into_iter().filter(move |(_, one, other)| is_there(one) && is_there(other))
    }

    fn site(&self, site: &str) -> Site {
        let router = self.start(site, "gw", &self.router(site));
        let node = self.start(site, "n", &format!("role = \"client\"\nconnect = [{:?}]", router.mesh));
        Site { router, node }
    }

    /// The mesh section of a site's router, with a partner at each of its cables.
    fn router(&self, site: &str) -> String {
        let mut text = "role = \"router\"\nplugin_versions = { trust-runtime = \"0.1.0\" }\n".to_owned();
        for (number, one, other) in self.cables() {
            let (way, partner) = match site {
                _ if site == one => (format!("listen = \"10.77.{number}.1:7448\""), other),
                _ if site == other => (format!("connect = [\"10.77.{number}.1:7448\"]"), one),
                _ => continue,
            };
            text.push_str(&format!("[[runtime.mesh.partner]]\nsite = {partner:?}\n{way}\n"));
        }
        text
    }

    fn start(&self, site: &str, name: &str, mesh: &str) -> Plant {
        let project = self.desk.path(&format!("{site}-{name}"));
        let (tls, id, ca) = (project.join("tls"), format!("{site}/{name}"), self.desk.text(&format!("ca-{site}")));
        let addresses = self.addresses(site).into_iter().flat_map(|it| ["--ip".to_owned(), it.to_string()]);
        let mut arguments = vec!["issue", "--ca", &ca, "--node", &id, "--out", tls.to_str().expect("text")];
        let addresses: Vec<String> = addresses.collect();
        arguments.extend(addresses.iter().map(String::as_str));
        self.desk.identity(&arguments);
        self.settle(site, name, mesh);
        Plant::start_in(Some(self.spaces.of(site)), project)
    }

    /// Where a site's nodes may be met.
    fn addresses(&self, site: &str) -> Vec<Ipv4Addr> {
        let ends = self.cables().filter_map(|(number, one, other)| match site {
            _ if site == one => Some(Ipv4Addr::new(10, 77, number, 1)),
            _ if site == other => Some(Ipv4Addr::new(10, 77, number, 2)),
            _ => None,
        });
        std::iter::once(Ipv4Addr::LOCALHOST).chain(ends).collect()
    }

    /// Writes a node's settings.
    fn settle(&self, site: &str, name: &str, mesh: &str) {
        let anchors: Vec<_> =
            self.sites.iter().map(|it| format!("{{ site = {it:?}, path = {:?} }}", self.desk.anchors(it))).collect();
        let text = format!(
            "[bundle]\nversion = 1\n[resource]\nname = {name:?}\n\
             [runtime.identity]\nsite = {site:?}\nsource = \"files\"\nsvid_path = \"tls/node-{name}.pem\"\n\
             key_path = \"tls/node-{name}.key\"\nbans_path = {bans:?}\nanchors = [{anchors}]\n\
             [[runtime.identity.grant]]\nactor = \"{site}/alice\"\nrole = \"operator\"\n\
             [runtime.control]\nauth_token = {TOKEN:?}\n\
             [runtime.web]\nlisten = \"127.0.0.1:0\"\nauth = \"token\"\ntls = true\n\
             [runtime.tls]\nmode = \"self-managed\"\n[runtime.discovery]\nenabled = false\n\
             [runtime.log]\nlevel = \"debug\"\n[runtime.cloud]\nprofile = \"wan\"\n\
             [runtime.mesh]\nlisten = \"127.0.0.1:0\"\ntls = true\n{mesh}\n",
            bans = self.desk.bans(site).display(),
            anchors = anchors.join(", "),
        );
        write_settings(&self.desk.path(&format!("{site}-{name}")), &text);
    }

    /// Gives a node a certificate that ends so many seconds from now.
    fn issue_until(&self, site: &str, name: &str, seconds: i64) {
        let read = |file: &str| fs::read_to_string(self.desk.path(&format!("ca-{site}/{file}"))).expect("a file");
        let key = KeyPair::from_pem(&read("ca-1.key")).expect("a key");
        let issuer = Issuer::from_ca_cert_pem(&read("ca-1.pem"), key).expect("an authority");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let id = format!("spiffe://trust/{site}/runtime/{name}");
        let addresses = self.addresses(site).into_iter().map(|it| SanType::IpAddress(IpAddr::V4(it)));
        params.subject_alt_names = addresses.collect();
        params.subject_alt_names.push(SanType::URI(id.try_into().expect("ASCII")));
        let now = OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::minutes(1);
        params.not_after = now + time::Duration::seconds(seconds);
        let path = |end: &str| self.desk.path(&format!("{site}-{name}/tls/node-{name}.{end}"));
        // The key stays, so that the two files never belong to different moments.
        let key = KeyPair::from_pem(&fs::read_to_string(path("key")).expect("a key")).expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
        fs::write(path("pem"), certificate).expect("written");
    }
}

/// Adds lines to a node's settings, and gives those that were there before.
fn add(node: &Plant, text: &str) -> String {
    let path = node.project.join("runtime.toml");
    let before = fs::read_to_string(&path).expect("text");
    fs::write(&path, format!("{before}\n{text}\n")).expect("written");
    before
}

fn log_of(node: &Plant) -> String {
    fs::read_to_string(node.project.join("log")).unwrap_or_default()
}

/// Waits until a node has these peers with these states.
#[track_caller]
fn sees(node: &Plant, peers: &[&str], trust: &str, lifecycle: &str) {
    for name in peers {
        wait_until(&format!("{} has {name} {trust} and {lifecycle}", node.project.display()), SEEN_MAX, || {
            let peer = node.peer(name);
            let is_so = peer["trust_state"] == trust && peer["lifecycle_state"] == lifecycle;
            if is_so { Ok(()) } else { Err(peer.to_string()) }
        });
    }
}

/// A dispatch with the plan that was made for it.
fn acts(desk: &Desk, origin: &Plant, person: &(String, String), mut body: Json) -> Json {
    let options = ["--cert", &person.0, "--key", &person.1];
    // A word of the target that comes between the two, as after a write, makes the plan another one: it is made anew.
    let planned_and_done = || {
        let output = origin.curl(&desk.anchors("north"), "/api/runtime-cloud/actions/preflight", &options, Some(&body));
        let planned: Json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        body["plan_hash"] = planned["plan_hash"].clone();
        let answer = origin.dispatch(desk, "north", person, &body);
        if outcome(&answer) == "conflict" { Err(answer.to_string()) } else { Ok(answer) }
    };
    wait_until("nothing comes between plan and act", SEEN_MAX, planned_and_done).0
}

#[test]
fn three_sites_see_each_other_and_act_by_exact_rules_at_both_ends() {
    let world = World::new("rules", &["north", "south", "east"]);
    let [north, south, east] = ["north", "south", "east"].map(|site| world.site(site));
    sees(&north.node, &["gw", "south/gw", "south/n", "east/gw", "east/n"], "trusted", "online");
    sees(&south.node, &["gw", "north/gw", "north/n", "east/gw", "east/n"], "trusted", "online");
    sees(&east.node, &["gw", "north/gw", "north/n", "south/gw", "south/n"], "trusted", "online");
    the_links_between_nodes_are_measured(&world, &north.node);

    let desk = &world.desk;
    let person = desk.person("ca-north", "alice");
    for target in ["south/n", "east/gw"] {
        let read = ask(&north.node, ALICE, target, &format!("r-{target}"), "status_read", &json!({}));
        assert_eq!(outcome(&acts(desk, &north.node, &person, read)), "ok", "a read needs no rule: {target}");
    }
    let does = |id: &str| acts(desk, &north.node, &person, ping(&north.node, ALICE, "south/n", id));
    assert_eq!(outcome(&does("w1")), "permission_denied", "denied by default");
    let until = |wanted: &str, stage: &str| {
        let mut turn = 0;
        wait_until(&format!("{wanted} at {stage}"), SEEN_MAX, || {
            turn += 1;
            let answer = does(&format!("{stage}-{wanted}-{turn}"));
            let decided = answer.pointer("/results/0/stage").and_then(Json::as_str).unwrap_or("origin");
            if outcome(&answer) == wanted && decided == stage { Ok(()) } else { Err(answer.to_string()) }
        });
    };
    let allow = "[[runtime.cloud.wan.allow_write]]\naction = \"cmd_invoke/ping\"\ntarget = \"south/n\"";
    let without = add(&north.node, allow);
    until("permission_denied", "target");
    let accept = "[[runtime.cloud.wan.accept_write]]\naction = \"cmd_invoke/ping\"\nactor = \"north/alice\"";
    let before = add(&south.node, accept);
    until("ok", "target");
    let unplanned = north.node.dispatch(desk, "north", &person, &ping(&north.node, ALICE, "south/n", "unplanned"));
    assert_ne!(outcome(&unplanned), "ok", "wan wants a plan for another site");
    fs::write(south.node.project.join("runtime.toml"), &before).expect("written");
    until("permission_denied", "target");
    add(&south.node, accept);
    until("ok", "target");
    fs::write(north.node.project.join("runtime.toml"), without).expect("written");
    until("permission_denied", "origin");

    let token = fs::read_to_string(north.node.project.join("state/admin.token")).expect("a token");
    for (plant, site, wanted) in
        [(&north.node, "north", "200"), (&south.node, "south", "401"), (&east.router, "east", "401")]
    {
        let bearer = format!("authorization: Bearer {}", token.trim());
        let options = ["--header", &bearer, "--output", "/dev/null", "--write-out", "%{http_code}"];
        let output = plant.curl(&desk.anchors(site), "/api/runtime-cloud/state", &options, None);
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted, "a token of north at {site}");
    }
}

#[test]
fn a_guest_sets_what_its_rule_names_and_nothing_beside_it() {
    let world = World::new("params", &["north", "south"]);
    let [north, south] = ["north", "south"].map(|site| world.site(site));
    sees(&north.node, &["south/n"], "trusted", "online");
    sees(&south.node, &["north/n"], "trusted", "online");
    let person = world.desk.person("ca-north", "alice");
    let mut turn = 0;
    let mut sets = |params: Json| {
        turn += 1;
        let body =
            ask(&north.node, ALICE, "south/n", &format!("set-{turn}"), "cfg_apply", &json!({ "params": params }));
        acts(&world.desk, &north.node, &person, body)
    };
    // At home she may do everything: what is refused is refused by the other site's rule alone.
    let before = add(&north.node, "[[runtime.cloud.wan.allow_write]]\naction = \"cfg_apply\"\ntarget = \"south/n\"");
    let after = fs::read_to_string(north.node.project.join("runtime.toml")).expect("text");
    assert!(before.contains("role = \"operator\""));
    let after = after.replace("role = \"operator\"", "role = \"admin\"");
    fs::write(north.node.project.join("runtime.toml"), after).expect("written");
    let params = "params = { \"log.level\" = \"warn\" }";
    let rule = format!("[[runtime.cloud.wan.accept_write]]\naction = \"cfg_apply\"\nactor = \"north/alice\"\n{params}");
    add(&south.node, &rule);
    wait_until("the rule counts", SEEN_MAX, || {
        let answer = sets(json!({ "log.level": "warn" }));
        if outcome(&answer) == "ok" { Ok(()) } else { Err(answer.to_string()) }
    });
    for params in [
        json!({ "log.level": "info" }),
        json!({ "store.read_audit_max_mb": 1 }),
        json!({ "log.level": "warn", "store.read_audit_max_mb": 1, "store.receipts_kept_h": 1 }),
    ] {
        let answer = sets(params);
        let decided = answer.pointer("/results/0/stage").and_then(Json::as_str);
        assert_eq!((outcome(&answer).as_str(), decided), ("permission_denied", Some("target")), "{answer}");
    }
    assert_eq!(outcome(&sets(json!({ "log.level": "warn" }))), "ok");
}

/// Every node measures its way to every other, through however many routers it leads.
fn the_links_between_nodes_are_measured(world: &World, node: &Plant) {
    let bearer = format!("authorization: Bearer {TOKEN}");
    wait_until("the way to every other node is measured", SEEN_MAX, || {
        let output = node.curl(&world.desk.anchors("north"), "/api/runtime-cloud/state", &["--header", &bearer], None);
        let state: Json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let edges = state.pointer("/topology/edges").and_then(Json::as_array).cloned().unwrap_or_default();
        let leads = |from: &str, to: &str| {
            edges.iter().any(|it| it["source"] == from && it["target"] == to && it["state"] == "healthy")
        };
        let missing: Vec<_> = [("n", "south/n"), ("n", "east/n"), ("south/n", "n"), ("south/n", "east/gw")]
            .into_iter()
            .filter(|(from, to)| !leads(from, to))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("missing {missing:?} in {}", json!(edges))) }
    });
}

/// Who calls itself a router of the partner, by an authority that calls itself the partner's, is nobody.
#[test]
fn nobody_speaks_for_a_partner_but_the_partners_own_authority() {
    let world = World::new("false", &["north", "south"]);
    let north = world.start("north", "gw", &world.router("north"));
    let south = world.start("south", "gw", &world.router("south"));
    sees(&north, &["south/gw"], "trusted", "online");
    let ca = world.desk.text("ca-false");
    world.desk.identity(&["init-site", "--ca", &ca, "--site", "south"]);
    let project = world.desk.path("south-fake");
    let tls = project.join("tls");
    let out = tls.to_str().expect("text");
    world.desk.identity(&["issue", "--ca", &ca, "--node", "south/fake", "--ip", "10.77.1.2", "--out", out]);
    world.settle("south", "fake", &world.router("south"));
    trusts_also(&project, &world.desk.anchors("south"), &world.desk.text("ca-false/anchors-south.pem"));
    let _fake = Plant::start_in(Some(world.spaces.of("south")), project);
    wait_until("it is turned away", SEEN_MAX, || {
        let log = log_of(&north);
        if log.contains("no anchor of site south has issued it") { Ok(()) } else { Err(log) }
    });
    assert_eq!(north.peer("south/fake"), Json::Null);
    sees(&north, &["south/gw"], "trusted", "online");
    drop(south);
}

/// Has a project trust a second authority of its own site, so that it is the others who refuse.
fn trusts_also(project: &Path, real: &str, false_one: &str) {
    let both: String = [real, false_one].map(|path| fs::read_to_string(path).expect("anchors")).concat();
    let own = project.join("both.pem");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600);
    std::io::Write::write_all(&mut file.open(&own).expect("a file"), both.as_bytes()).expect("written");
    let path = project.join("runtime.toml");
    let text = fs::read_to_string(&path).expect("text");
    fs::write(&path, text.replace(real, own.to_str().expect("text"))).expect("written");
}

/// Entry and anchors together: nothing is left of it, until the next start with the file as it was.
#[test]
fn a_partner_that_is_taken_out_of_the_file_goes_at_once_and_comes_back_with_a_start() {
    let world = World::new("out", &["north", "south"]);
    let north = world.start("north", "gw", &world.router("north"));
    let south = world.start("south", "gw", &world.router("south"));
    sees(&north, &["south/gw"], "trusted", "online");
    let path = north.project.join("runtime.toml");
    let before = fs::read_to_string(&path).expect("text");
    let (rest, partner) = before.split_once("[[runtime.mesh.partner]]").expect("a partner");
    assert!(partner.contains("10.77.1.1:7448"), "{partner}");
    let anchor = format!(", {{ site = \"south\", path = {:?} }}", world.desk.anchors("south"));
    assert!(rest.contains(&anchor), "{rest}");
    fs::write(&path, rest.replace(&anchor, "")).expect("written");
    north.sees("south/gw", "lifecycle_state", "partitioned");
    assert!(log_of(&north).contains("links with the partner are ended"), "{}", log_of(&north));
    south.sees("north/gw", "lifecycle_state", "partitioned");
    fs::write(&path, before).expect("written");
    let project = north.project.clone();
    drop(north);
    fs::remove_file(project.join("ready.json")).expect("it was ready");
    let north = Plant::start_in(Some(world.spaces.of("north")), project);
    sees(&north, &["south/gw"], "trusted", "online");
}

/// Its anchors stay in the file: it is known, and has no link any more.
#[test]
fn a_partner_whose_entry_is_taken_away_loses_its_links_at_once_and_one_that_is_added_takes_a_start() {
    let world = World::new("entry", &["north", "south"]);
    let north = world.start("north", "gw", &world.router("north"));
    let south = world.start("south", "gw", &world.router("south"));
    sees(&north, &["south/gw"], "trusted", "online");
    let path = north.project.join("runtime.toml");
    let before = fs::read_to_string(&path).expect("text");
    let (rest, partner) = before.split_once("[[runtime.mesh.partner]]").expect("a partner");
    let after = partner.split_once("\n[").map_or("", |(_, after)| after);
    let rest = if after.is_empty() { rest.to_owned() } else { format!("{rest}[{after}") };
    fs::write(&path, rest).expect("written");
    sees(&north, &["south/gw"], "trusted", "partitioned");
    south.sees("north/gw", "lifecycle_state", "partitioned");
    // Nobody listens there any more.
    wait_until("south is refused", SEEN_MAX, || {
        let log = log_of(&south);
        if log.contains("no link yet") && log.contains("refused") { Ok(()) } else { Err(log) }
    });
    let again = north.command(&["ctl", "reload"]);
    assert_eq!(again["needs_restart"], json!([]), "it is as the file says: {again}");
    fs::write(&path, before).expect("written");
    let added = north.command(&["ctl", "reload"]);
    assert_eq!(added["needs_restart"], json!(["runtime.mesh"]), "{added}");
    assert_eq!(north.peer("south/gw")["lifecycle_state"], "partitioned", "until the next start");
}

#[test]
fn a_cut_between_sites_heals_by_itself_and_each_site_goes_on_meanwhile() {
    let world = World::new("cut", &["north", "south"]);
    let [north, south] = ["north", "south"].map(|site| world.site(site));
    let person = world.desk.person("ca-north", "alice");
    let read = |target: &str, id: &str| {
        outcome(&acts(
            &world.desk,
            &north.node,
            &person,
            ask(&north.node, ALICE, target, id, "status_read", &json!({})),
        ))
    };
    sees(&north.node, &["gw", "south/n"], "trusted", "online");
    sees(&south.node, &["gw", "north/n"], "trusted", "online");
    // A peer may be seen a moment before it has said that its links are secure.
    wait_until("a read crosses", SEEN_MAX, || match read("south/n", "before").as_str() {
        "ok" => Ok(()),
        other => Err(other.to_owned()),
    });

    world.spaces.set(1, "north", "down");
    sees(&north.node, &["south/gw", "south/n"], "trusted", "partitioned");
    sees(&south.node, &["north/gw", "north/n"], "trusted", "partitioned");
    assert_eq!(read("south/n", "cut"), "target_unreachable");
    sees(&north.node, &["gw"], "trusted", "online");
    sees(&south.node, &["gw"], "trusted", "online");
    assert_eq!(read("gw", "at-home"), "ok", "the own site goes on");

    world.spaces.set(1, "north", "up");
    sees(&north.node, &["south/gw", "south/n"], "trusted", "online");
    sees(&south.node, &["north/gw", "north/n"], "trusted", "online");
    wait_until("a read crosses again", SEEN_MAX, || match read("south/n", "healed").as_str() {
        "ok" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn a_certificate_that_ends_while_sites_are_linked_ends_the_link() {
    let world = World::new("ends", &["north", "south"]);
    let north = world.start("north", "gw", &world.router("north"));
    let south = world.start("south", "gw", &world.router("south"));
    sees(&north, &["south/gw"], "trusted", "online");
    world.issue_until("south", "gw", 15);
    wait_until("the short certificate is in use", SEEN_MAX, || {
        let log = log_of(&south);
        if log.contains("the own certificate was renewed") { Ok(()) } else { Err(log) }
    });
    sees(&north, &["south/gw"], "trusted", "online");
    sees(&north, &["south/gw"], "trusted", "partitioned");
    let log = log_of(&north);
    assert!(log.contains("a link was ended") && log.contains("it has expired"), "{log}");

    world.issue_until("south", "gw", 3_600);
    sees(&north, &["south/gw"], "trusted", "online");
}
