//! Nodes that have their identities from an agent over the SPIFFE Workload API: real nodes, the real client, and an agent that
//! says what the test tells it to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{SEEN_MAX, program, run_to_end};
use crate::plant::{Desk, Plant, TOKEN, outcome, ping, write_settings};
use crate::watch::{Stopwatch, holds_for, wait_until};
use crate::workload_api::{Agent, Identities, Svid, authorities};

const VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Longer than a start waits for its first identity.
const START_MAX: Duration = Duration::from_secs(40);

/// Sites with a trust domain each, as SPIRE federates them.
struct Plants {
    desk: Desk,
}

impl Plants {
    fn new(sites: &[&str]) -> Self {
        let plants = Self { desk: Desk::new(&[]) };
        for site in sites {
            let ca = plants.desk.text(&format!("ca-{site}"));
            let domain = ["--trust-domain", "plants.example", "--mapping", "domain-site"];
            plants.desk.identity(&[&["init-site", "--ca", &ca, "--site", site][..], &domain].concat());
        }
        plants
    }

    /// Another certificate with another key for a node, as the agent gives it.
    fn svid(&self, ca: &str, node: &str, number: u32) -> Svid {
        let (site, name) = node.split_once('/').expect("a runtime");
        let out = self.desk.text(&format!("{ca}-{site}-{name}-{number}"));
        let issue = ["issue", "--ca", &self.desk.text(&format!("ca-{ca}")), "--node", node, "--out", &out];
        self.desk.identity(&[&issue[..], &["--dns", "localhost", "--ip", "127.0.0.1"]].concat());
        let certificate = PathBuf::from(out).join(format!("node-{name}.pem"));
        let id = format!("spiffe://{site}.plants.example/runtime/{name}");
        Svid::read(&id, &certificate, Path::new(&self.desk.anchors(ca)))
    }

    fn agent(&self, name: &str) -> Agent {
        let folder = self.desk.path(&format!("agent-{name}"));
        fs::create_dir(&folder).expect("a folder");
        Agent::serve(folder.join("api.sock"))
    }

    /// The folder of a node of site north whose identity an agent gives.
    fn project(&self, name: &str, dials: &[&Plant]) -> PathBuf {
        let project = self.desk.path(&format!("north-{name}"));
        fs::create_dir(&project).expect("a folder");
        // SPIRE's certificates name hosts, not addresses.
        let connect: Vec<_> =
            dials.iter().map(|it| format!("{:?}", it.mesh.replace("127.0.0.1", "localhost"))).collect();
        let text = format!(
            "[bundle]\nversion = 1\n[resource]\nname = {name:?}\n\
             [runtime.identity]\nsite = \"north\"\nsource = \"spire\"\ntrust_domain = \"plants.example\"\n\
             mapping = \"domain-site\"\n\
             [[runtime.identity.grant]]\nactor = \"north/alice\"\nrole = \"operator\"\n\
             [runtime.control]\nauth_token = {TOKEN:?}\n\
             [runtime.web]\nlisten = \"127.0.0.1:0\"\nauth = \"token\"\ntls = true\n\
             [runtime.tls]\nmode = \"self-managed\"\n[runtime.discovery]\nenabled = false\n\
             [runtime.mesh]\nlisten = \"127.0.0.1:0\"\nconnect = [{}]\ntls = true\n[runtime.log]\nlevel = \"debug\"\n\
             [runtime.cloud]\nprofile = \"plant\"\n",
            connect.join(", ")
        );
        write_settings(&project, &text);
        project
    }

    fn play(&self, name: &str, agent: &Agent, dials: &[&Plant]) -> Plant {
        Plant::start_with(None, self.project(name, dials), &[(VARIABLE, agent.address().into())])
    }
}

fn only(svid: Svid) -> Identities {
    Identities { svids: vec![svid], ..Identities::default() }
}

fn key_of(node: &Plant) -> String {
    let text = fs::read_to_string(node.project.join("state/ready.json")).expect("a file");
    let ready: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    format!("{}@{}", ready["web_key"].as_str().expect("a key"), ready["boot_id"])
}

#[track_caller]
fn takes_another(node: &Plant, before: &str) -> String {
    let changed = || {
        let now = key_of(node);
        if now == before { Err(now) } else { Ok(now) }
    };
    let (now, _) = wait_until("the node has another key", SEEN_MAX, changed);
    let boot = |key: &str| key.rsplit('@').next().map(str::to_owned);
    assert_eq!(boot(&now), boot(before), "the same run");
    now
}

#[track_caller]
fn logs(node: &Plant, words: &str) {
    wait_until(&format!("the log says {words:?}"), SEEN_MAX, || {
        let log = fs::read_to_string(node.project.join("log")).unwrap_or_default();
        if log.contains(words) { Ok(()) } else { Err(log) }
    });
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_node_lives_by_its_agent_through_rotations_and_an_agent_that_dies() {
    let plants = Plants::new(&["north"]);
    let (agent_a, mut agent_b) = (plants.agent("a"), plants.agent("b"));
    agent_a.say(only(plants.svid("north", "north/a", 1)));
    // Several are offered; the one with this runtime's id is taken, wherever it stands.
    let (other, first) = (plants.svid("north", "north/other", 1), plants.svid("north", "north/b", 1));
    agent_b.say(Identities { svids: vec![other.clone(), first], ..Identities::default() });
    let a = plants.play("a", &agent_a, &[]);
    let b = plants.play("b", &agent_b, &[&a]);
    a.sees("b", "trust_state", "trusted");
    a.sees("b", "lifecycle_state", "online");
    b.sees("a", "lifecycle_state", "online");
    let person = plants.desk.person("ca-north", "alice");
    let does = |id: &str| {
        outcome(&a.dispatch(&plants.desk, "north", &person, &ping(&a, "spiffe://plants.example/north/alice", "b", id)))
    };
    assert_eq!(does("p1"), "ok");

    let before = key_of(&b);
    let second = plants.svid("north", "north/b", 2);
    agent_b.say(Identities { svids: vec![second.clone(), other], ..Identities::default() });
    let now = takes_another(&b, &before);
    wait_until("a knows the new key", SEEN_MAX, || {
        let peer = a.peer("b");
        if now.starts_with(peer["fingerprint"].as_str().unwrap_or("none")) { Ok(()) } else { Err(peer.to_string()) }
    });
    assert_eq!(does("p2"), "ok");
    for file in files(&b.project) {
        let bytes = fs::read(&file).expect("a file");
        let is_there = bytes.windows(second.key.len()).any(|window| window == second.key);
        let is_text = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY");
        assert!(!is_there && !is_text, "{} holds a key", file.display());
    }

    agent_b.die();
    logs(&b, "no new identity; the last one stays in use");
    assert_eq!(does("p3"), "ok");
    agent_b.say(only(plants.svid("north", "north/b", 3)));
    agent_b.come_back();
    let last = takes_another(&b, &now);
    a.sees("b", "lifecycle_state", "online");
    assert_eq!(does("p4"), "ok");
    refused_and_the_last_good_stays(&plants, &agent_b, &b, &last);
    assert_eq!(does("p5"), "ok");
}

fn refused_and_the_last_good_stays(plants: &Plants, agent: &Agent, node: &Plant, key: &str) {
    let desk = &plants.desk;
    let good = plants.svid("north", "north/b", 4);
    let anybody = plants.svid("north", "north/c", 1);
    desk.identity(&[
        "init-site",
        "--ca",
        &desk.text("ca-false"),
        "--site",
        "north",
        "--trust-domain",
        "plants.example",
        "--mapping",
        "domain-site",
    ]);
    fs::copy(desk.text("ca-false/anchors-north.pem"), desk.text("ca-false/anchors-false.pem")).expect("copied");
    let false_one = Svid { bundle: good.bundle.clone(), ..plants.svid("false", "north/b", 1) };
    let mut bent = good.clone();
    bent.chain.truncate(good.chain.len() / 2);
    for (what, svid, words) in [
        ("another runtime's", anybody.clone(), "wanted spiffe://north.plants.example/runtime/b"),
        ("another key's", Svid { key: anybody.key, ..good.clone() }, "the certificate is not that of the private key"),
        ("another authority's", false_one, "no anchor of site north has issued it"),
        ("cut off", bent, "failed to parse X.509 SVID"),
        ("without anchors", Svid { bundle: Vec::new(), ..good.clone() }, "missing required field"),
    ] {
        agent.say(only(svid));
        logs(node, words);
        assert_eq!(key_of(node), key, "{what}");
    }
    agent.say(only(good));
    takes_another(node, key);
}

#[test]
fn a_federated_bundle_counts_for_its_own_site_from_when_it_comes_until_it_goes() {
    let plants = Plants::new(&["north", "south"]);
    let agent = plants.agent("a");
    let svid = plants.svid("north", "north/a", 1);
    agent.say(only(svid.clone()));
    let a = plants.play("a", &agent, &[]);
    let bob = plants.desk.person("ca-south", "bob");
    let is_let_in = |person: &(String, String)| {
        let options = ["--cert", &person.0, "--key", &person.1];
        a.curl(&plants.desk.anchors("north"), "/livez", &options, None).status.success()
    };
    assert!(!is_let_in(&bob), "nobody speaks for his site");
    let south = authorities(Path::new(&plants.desk.anchors("south")));
    let federated = |name: &str, bundle: &[u8]| Identities {
        svids: vec![svid.clone()],
        federated: [(name.to_owned(), bundle.to_vec())].into(),
    };
    let until = |wanted: bool| {
        wait_until("the bundle counts", SEEN_MAX, || {
            if is_let_in(&bob) == wanted { Ok(()) } else { Err(format!("not {wanted}")) }
        });
    };
    agent.say(federated("spiffe://south.plants.example", &south));
    until(true);
    // One authority's certificate speaks for the site whose bundle it stands in, and for no other.
    // What is wrong with another site's bundle does not keep the node from its own next certificate.
    let key = key_of(&a);
    let wrong = federated("spiffe://west.plants.example", &south);
    agent.say(Identities { svids: vec![plants.svid("north", "north/a", 2)], ..wrong });
    takes_another(&a, &key);
    until(false);
    agent.say(federated("spiffe://south.plants.example", &south));
    until(true);
    agent.say(federated("spiffe://south.plants.example", &[]));
    until(false);
    let alice = plants.desk.person("ca-north", "alice");
    holds_for("the own site is known all the time", Duration::from_secs(1), || {
        if is_let_in(&alice) { Ok(()) } else { Err("she is not let in".to_owned()) }
    });
}

#[test]
fn a_start_without_an_identity_ends_in_time_and_says_what_to_check() {
    let plants = Plants::new(&["north"]);
    let agent = plants.agent("x");
    agent.say(only(plants.svid("north", "north/other", 1)));
    let nowhere = plants.desk.text("agent-x/nobody.sock");
    let folder = |name: &str, mode| {
        let path = plants.desk.path(name);
        fs::create_dir(&path).expect("a folder");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("a mode");
        Some(format!("unix://{}/api.sock", path.display()))
    };
    let cases = [
        ("none", None, "wanted the agent's socket in SPIFFE_ENDPOINT_SOCKET"),
        ("tcp", Some("tcp://127.0.0.1:8081".to_owned()), "wanted a socket such as unix:///run/spire"),
        ("nobody", Some(format!("unix://{nowhere}")), "nobody.sock (SPIFFE_ENDPOINT_SOCKET)"),
        ("another", Some(agent.address()), "the agent gives spiffe://north.plants.example/runtime/other, wanted"),
        ("open", folder("open", 0o777), "others on this machine may put another socket there (mode 777)"),
        ("group", folder("group", 0o775), "others on this machine may put another socket there (mode 775)"),
    ];
    // All at once: most of them wait.
    let time = Stopwatch::start();
    std::thread::scope(|scope| {
        for (name, socket, words) in &cases {
            let project = plants.project(name, &[]);
            scope.spawn(move || {
                let mut command = program();
                command.args(["play", "--project"]).arg(project).env_remove(VARIABLE);
                command.envs(socket.iter().map(|socket| (VARIABLE, socket)));
                let (output, _) = run_to_end(&mut command, START_MAX);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(3), "{name}: {said}");
                assert!(said.contains(words), "{name}: {said}");
            });
        }
    });
    assert!(time.elapsed() < START_MAX, "{:?}", time.elapsed());
}
