//! Plants whose nodes have certificates: each site its own authority, HTTPS, and callers known by theirs.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::harness::{SEEN_MAX, program, run_to_end};
use crate::watch::wait_until;

/// How long a command or a call may take.
pub(crate) const COMMAND_MAX: Duration = Duration::from_secs(20);

/// How long a node may take to serve.
const START_MAX: Duration = Duration::from_secs(20);

pub(crate) const TOKEN: &str = "5d0c9b7e41f24a8e9c3b6f7a2d1e8c40";

/// The authorities of a few sites, in one folder.
pub(crate) struct Desk(TempDir);

impl Desk {
    pub(crate) fn new(sites: &[&str]) -> Self {
        let desk = Self(tempfile::Builder::new().prefix("trust-plant-").tempdir().expect("a folder"));
        for site in sites {
            desk.identity(&["init-site", "--ca", &desk.text(&format!("ca-{site}")), "--site", site]);
        }
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    #[track_caller]
    pub(crate) fn identity(&self, arguments: &[&str]) {
        let (output, _) = run_to_end(program().arg("identity").args(arguments), COMMAND_MAX);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A person's certificate and key.
    pub(crate) fn person(&self, ca: &str, name: &str) -> (String, String) {
        let out = format!("{name}-of-{ca}");
        let arguments = ["issue", "--ca", &self.text(ca), "--actor", name, "--out", &self.text(&out)];
        self.identity(&arguments);
        (self.text(&format!("{out}/actor-{name}.pem")), self.text(&format!("{out}/actor-{name}.key")))
    }

    /// The folder of a node that has its certificate from this authority.
    pub(crate) fn project(&self, ca: &str, site: &str, name: &str, life: &[&str]) -> PathBuf {
        let project = self.path(&format!("{site}-{name}"));
        let (tls, id) = (project.join("tls").display().to_string(), format!("{site}/{name}"));
        let ca = self.text(ca);
        let arguments = ["issue", "--ca", &ca, "--node", &id, "--ip", "127.0.0.1", "--dns", "localhost", "--out", &tls];
        self.identity(&[&arguments, life].concat());
        project
    }

    pub(crate) fn anchors(&self, site: &str) -> String {
        self.text(&format!("ca-{site}/anchors-{site}.pem"))
    }

    pub(crate) fn bans(&self, site: &str) -> PathBuf {
        self.path(&format!("ca-{site}/bans.txt"))
    }

    /// Starts a node of this profile that knows these sites and dials these others.
    pub(crate) fn play(&self, profile: &str, site: &str, name: &str, knows: &[&str], dials: &[&Plant]) -> Plant {
        self.play_with((profile, site, name), knows, dials, &[], "")
    }

    /// The same with further options of `identity issue` and further lines of `[runtime.identity]`.
    pub(crate) fn play_with(
        &self,
        (profile, site, name): (&str, &str, &str),
        knows: &[&str],
        dials: &[&Plant],
        life: &[&str],
        identity: &str,
    ) -> Plant {
        // Only routers link sites inside TLS; here every node is a peer.
        let mesh_tls = profile != "dev";
        let ca = &format!("ca-{site}");
        let project = self.project(ca, site, name, life);
        let connect: Vec<_> = dials.iter().map(|it| format!("{:?}", it.mesh)).collect();
        let mesh = format!("connect = [{}]\ntls = {mesh_tls}\n", connect.join(", "));
        write_settings(&project, &self.settings((profile, site, name), knows, &mesh, identity));
        Plant::start(project)
    }

    /// A plant's node with these further lines of `[runtime.mesh]` and this in its environment.
    pub(crate) fn play_by(&self, site: &str, name: &str, mesh: &str, environment: &[(&'static str, PathBuf)]) -> Plant {
        let project = self.project(&format!("ca-{site}"), site, name, &[]);
        let mesh = format!("tls = true\n{mesh}\n");
        write_settings(&project, &self.settings(("plant", site, name), &[site], &mesh, ""));
        Plant::start_with(None, project, environment)
    }

    /// A node of this profile that knows these sites, with this as its `[runtime.mesh]`.
    pub(crate) fn play_as(&self, (profile, site, name): (&str, &str, &str), knows: &[&str], mesh: &str) -> Plant {
        let project = self.project(&format!("ca-{site}"), site, name, &[]);
        write_settings(&project, &self.settings((profile, site, name), knows, mesh, ""));
        Plant::start(project)
    }

    /// The text of runtime.toml; `mesh` begins with lines of `[runtime.mesh]`.
    pub(crate) fn settings(
        &self,
        (profile, site, name): (&str, &str, &str),
        knows: &[&str],
        mesh: &str,
        identity: &str,
    ) -> String {
        let anchors: Vec<_> =
            knows.iter().map(|it| format!("{{ site = {it:?}, path = {:?} }}", self.anchors(it))).collect();
        format!(
            "[bundle]\nversion = 1\n[resource]\nname = {name:?}\n\
             [runtime.identity]\nsite = {site:?}\nsource = \"files\"\nsvid_path = \"tls/node-{name}.pem\"\n\
             key_path = \"tls/node-{name}.key\"\nbans_path = {bans:?}\nanchors = [{anchors}]\n{identity}\n\
             [[runtime.identity.grant]]\nactor = \"{site}/alice\"\nrole = \"operator\"\n\
             [runtime.control]\nauth_token = {TOKEN:?}\n\
             [runtime.web]\nlisten = \"127.0.0.1:0\"\nauth = \"token\"\ntls = true\n\
             [runtime.tls]\nmode = \"self-managed\"\n\
             [runtime.discovery]\nenabled = false\n\
             [runtime.log]\nlevel = \"debug\"\n[runtime.cloud]\nprofile = {profile:?}\n\
             [runtime.mesh]\nlisten = \"127.0.0.1:0\"\n{mesh}\n",
            bans = self.bans(site).display(),
            anchors = anchors.join(", "),
        )
    }
}

/// Writes the settings of a node, which hold its admin token, so that the owner alone can read them.
pub(crate) fn write_settings(project: &Path, text: &str) {
    let path = project.join("runtime.toml");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.expect("a file").write_all(text.as_bytes()).expect("settings are written");
}

/// A running node with a certificate.
pub(crate) struct Plant {
    child: Child,
    namespace: Option<String>,
    pub(crate) project: PathBuf,
    pub(crate) web: String,
    pub(crate) mesh: String,
}

impl Plant {
    pub(crate) fn start(project: PathBuf) -> Self {
        Self::start_in(None, project)
    }

    /// Starts it in a network namespace, where all that concerns it happens from then on.
    pub(crate) fn start_in(namespace: Option<String>, project: PathBuf) -> Self {
        Self::start_with(namespace, project, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(
        namespace: Option<String>,
        project: PathBuf,
        environment: &[(&'static str, PathBuf)],
    ) -> Self {
        let mut command = within(namespace.as_deref(), program());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::start_by(command, namespace, project)
    }

    /// Starts it so that it cannot write to this folder until it is let: a mount that it alone sees, and that ends with it.
    pub(crate) fn start_unable_to_write(project: PathBuf, folder: &Path) -> Self {
        const MOUNTED: &str = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNTED]).arg(folder);
        Self::start_by(running(command, &program()), None, project)
    }

    /// Lets it write there again.
    pub(crate) fn may_write(&self, folder: &Path) {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--mount", "umount", "--lazy"]).arg(folder);
        let (output, _) = run_to_end(&mut command, COMMAND_MAX);
        assert!(output.status.success(), "{output:?}");
    }

    fn start_by(mut command: Command, namespace: Option<String>, project: PathBuf) -> Self {
        let log = fs::File::create(project.join("log")).expect("a log");
        let ready = project.join("ready.json");
        // Left behind by an earlier start.
        drop(fs::remove_file(&ready));
        command.args(["play", "--project"]).arg(&project).arg("--ready-file").arg(&ready);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = command.spawn().expect("the program starts");
        // From here on it ends with this value, whatever happens.
        let mut plant = Self { child, namespace, project, web: String::new(), mesh: String::new() };
        let (ready, _) = wait_until("the node is ready", START_MAX, || {
            if let Some(status) = plant.child.try_wait().expect("our child") {
                panic!("it ended with {status}");
            }
            let text = fs::read_to_string(&ready).map_err(|error| error.to_string())?;
            serde_json::from_str::<Json>(&text).map_err(|error| error.to_string())
        });
        let text = |pointer: &str| ready.pointer(pointer).and_then(Json::as_str).map(str::to_owned);
        plant.web = text("/web").expect("in the file");
        // A client listens to nobody.
        plant.mesh = text("/mesh/0").unwrap_or_default();
        plant
    }

    /// A command of the program on this project: over HTTPS, by the node's own certificate, as its admin.
    pub(crate) fn command(&self, arguments: &[&str]) -> Json {
        let mut command = within(self.namespace.as_deref(), program());
        let command = command.args(arguments).arg("--json").arg("--project").arg(&self.project);
        let (output, _) = run_to_end(command, COMMAND_MAX);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?}: {error}: {}", String::from_utf8_lossy(&output.stderr));
        })
    }

    /// What curl says, with these options.
    pub(crate) fn curl(&self, anchors: &str, path: &str, options: &[&str], body: Option<&Json>) -> Output {
        let mut command = within(self.namespace.as_deref(), Command::new("curl"));
        command.args(["--silent", "--show-error", "--max-time", "15", "--cacert", anchors]).args(options);
        if let Some(body) = body {
            command.args(["--header", "content-type: application/json", "--data", &body.to_string()]);
        }
        command.arg(format!("{}{path}", self.web)).output().expect("curl is there")
    }

    pub(crate) fn peer(&self, name: &str) -> Json {
        let peers = self.command(&["peers", "list"]);
        let found = peers.as_array().and_then(|all| all.iter().find(|it| it["runtime_id"] == name)).cloned();
        found.unwrap_or(Json::Null)
    }

    #[track_caller]
    pub(crate) fn sees(&self, name: &str, key: &str, wanted: &str) {
        wait_until(&format!("{name} has {key} {wanted}"), SEEN_MAX, || {
            let peer = self.peer(name);
            if peer[key] == wanted { Ok(()) } else { Err(peer.to_string()) }
        });
    }

    pub(crate) fn dispatch(&self, desk: &Desk, site: &str, person: &(String, String), body: &Json) -> Json {
        let options = ["--cert", &person.0, "--key", &person.1];
        let output = self.curl(&desk.anchors(site), "/api/runtime-cloud/actions/dispatch", &options, Some(body));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_not_json| json!({ "curl": String::from_utf8_lossy(&output.stderr) }))
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stops(&mut self) {
        let asked = Command::new("kill").arg(self.pid().to_string()).status().expect("kill is there");
        assert!(asked.success(), "it has ended before");
        wait_until("it has stopped", SEEN_MAX, || match self.child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it serves HTTPS.
    pub(crate) fn address(&self) -> SocketAddr {
        self.web.trim_start_matches("https://").parse().expect("an address")
    }

    pub(crate) fn name(&self) -> &str {
        self.project.file_name().and_then(|it| it.to_str()).and_then(|it| it.rsplit('-').next()).expect("a name")
    }
}

/// A program as it is run in a network namespace, or here.
fn within(namespace: Option<&str>, here: Command) -> Command {
    let Some(namespace) = namespace else { return here };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]);
    running(command, &here)
}

/// This command, with that program as what it runs in the end.
fn running(mut command: Command, here: &Command) -> Command {
    command.arg(here.get_program());
    for (name, _) in here.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    command
}

impl Drop for Plant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.web, fs::read_to_string(self.project.join("log")).unwrap_or_default());
        }
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn ask(origin: &Plant, actor: &str, target: &str, id: &str, action: &str, payload: &Json) -> Json {
    json!({
        "api_version": "1.0", "request_id": id, "connected_via": origin.name(), "target_runtimes": [target],
        "actor": actor, "action_type": action, "payload": payload,
    })
}

pub(crate) fn ping(origin: &Plant, actor: &str, target: &str, id: &str) -> Json {
    ask(origin, actor, target, id, "cmd_invoke", &json!({ "command": "ping" }))
}

/// The code of the only decision or result; `ok` where it was done.
pub(crate) fn outcome(answer: &Json) -> String {
    if answer["ok"] == true {
        return "ok".to_owned();
    }
    let places = ["/results/0/denial_code", "/preflight/denial_code", "/code"];
    let code = places.iter().find_map(|place| answer.pointer(place)?.as_str());
    code.map_or_else(|| answer.to_string(), str::to_owned)
}

#[test]
fn callers_and_nodes_are_who_their_certificates_say() {
    let desk = Desk::new(&["north", "evil"]);
    let a = desk.play("plant", "north", "a", &["north"], &[]);
    let b = desk.play("plant", "north", "b", &["north"], &[&a]);
    a.sees("b", "trust_state", "trusted");
    a.sees("b", "lifecycle_state", "online");
    b.sees("a", "lifecycle_state", "online");

    let alice = "spiffe://trust/north/alice";
    let person = desk.person("ca-north", "alice");
    assert_eq!(outcome(&a.dispatch(&desk, "north", &person, &ping(&a, alice, "b", "p1"))), "ok");
    let level = json!({ "params": { "log.level": "debug" } });
    let apply = ask(&a, alice, "b", "p2", "cfg_apply", &level);
    assert_eq!(outcome(&a.dispatch(&desk, "north", &person, &apply)), "acl_denied_cfg_write", "granted is operator");
    let as_bob = ping(&a, "spiffe://trust/north/bob", "b", "p3");
    assert_eq!(outcome(&a.dispatch(&desk, "north", &person, &as_bob)), "permission_denied");

    // Whoever has nothing, or what is no actor's, is nobody; what does not hold at all does not get through the handshake.
    let state = "/api/runtime-cloud/state";
    let status = |options: &[&str]| {
        let options: Vec<_> =
            ["--output", "/dev/null", "--write-out", "%{http_code}"].iter().chain(options).copied().collect();
        let output = a.curl(&desk.anchors("north"), state, &options, None);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(status(&[]), (true, "401".to_owned()));
    let node = (b.project.join("tls/node-b.pem"), b.project.join("tls/node-b.key"));
    let as_node = ["--cert", node.0.to_str().expect("text"), "--key", node.1.to_str().expect("text")];
    assert_eq!(status(&as_node), (true, "401".to_owned()));
    let evil = desk.person("ca-evil", "alice");
    assert!(!status(&["--cert", &evil.0, "--key", &evil.1]).0, "another site's authority");
    assert!(!status(&["--tlsv1.2", "--tls-max", "1.2"]).0, "an old version of TLS");
    assert_eq!(status(&["--cert", &person.0, "--key", &person.1]), (true, "200".to_owned()), "the listener lives on");
    let wrong = a.curl(&desk.anchors("evil"), state, &[], None);
    assert!(!wrong.status.success(), "and proves who it is");
}

#[test]
fn a_ban_counts_on_running_nodes() {
    let desk = Desk::new(&["north"]);
    let a = desk.play("plant", "north", "a", &["north"], &[]);
    let _b = desk.play("plant", "north", "b", &["north"], &[&a]);
    a.sees("b", "lifecycle_state", "online");
    let person = desk.person("ca-north", "alice");
    let alice = "spiffe://trust/north/alice";
    assert_eq!(outcome(&a.dispatch(&desk, "north", &person, &ping(&a, alice, "b", "p1"))), "ok");
    let ca = desk.text("ca-north");
    for id in [alice, "spiffe://trust/north/runtime/b"] {
        desk.identity(&["ban", "--ca", &ca, "--id", id, "--reason", "stolen"]);
    }
    wait_until("alice is shut out", SEEN_MAX, || {
        let answer = a.dispatch(&desk, "north", &person, &ping(&a, alice, "a", "p2"));
        if answer.get("curl").is_some() { Ok(()) } else { Err(answer.to_string()) }
    });
    a.sees("b", "lifecycle_state", "partitioned");
}

/// Both open and inside TLS: what it says is refused, or it does not get a link at all.
#[test]
fn a_stranger_with_a_false_authoritys_certificate_is_nobody() {
    for profile in ["dev", "plant"] {
        let desk = Desk::new(&["north"]);
        let a = desk.play(profile, "north", "a", &["north"], &[]);
        let b = desk.play(profile, "north", "b", &["north"], &[&a]);
        a.sees("b", "lifecycle_state", "online");
        let stranger = false_node(&desk, &b);
        if profile == "dev" {
            wait_until("the stranger's words are refused", SEEN_MAX, || {
                let bearer = format!("authorization: Bearer {TOKEN}");
                let output = a.curl(&desk.anchors("north"), "/healthz?verbose", &["--header", &bearer], None);
                let health = String::from_utf8_lossy(&output.stdout).into_owned();
                if health.contains("bad_certificate") { Ok(()) } else { Err(health) }
            });
        } else {
            wait_until("the stranger's dials are refused", SEEN_MAX, || {
                let log = fs::read_to_string(a.project.join("log")).unwrap_or_default();
                if log.contains("no anchor of site north has issued it") { Ok(()) } else { Err(log) }
            });
        }
        assert_eq!(a.peer("c"), Json::Null, "in {profile}");
        a.sees("b", "lifecycle_state", "online");
        drop(stranger);
    }
}

/// A node of an authority that calls itself by the site's name, and is not the one that others know. It dials whom b dials.
fn false_node(desk: &Desk, b: &Plant) -> Plant {
    let ca = desk.text("ca-false");
    desk.identity(&["init-site", "--ca", &ca, "--site", "north"]);
    let project = desk.project("ca-false", "north", "c", &[]);
    let text = fs::read_to_string(b.project.join("runtime.toml")).expect("text");
    // It takes the others for who they are, so that it is they who refuse.
    let anchors = [desk.anchors("north"), desk.text("ca-false/anchors-north.pem")];
    let both: String = anchors.iter().map(|path| fs::read_to_string(path).expect("anchors")).collect();
    let own_anchors = desk.text("both-anchors.pem");
    fs::write(&own_anchors, both).expect("written");
    let text = text.replace("name = \"b\"", "name = \"c\"").replace("node-b", "node-c");
    write_settings(&project, &text.replace(&desk.anchors("north"), &own_anchors));
    Plant::start(project)
}

#[test]
fn two_sites_act_on_each_other_by_exact_rules_at_both_ends() {
    let desk = Desk::new(&["north", "south"]);
    let both = ["north", "south"];
    let north = desk.play("dev", "north", "a", &both, &[]);
    let south = desk.play("dev", "south", "s", &both, &[&north]);
    north.sees("south/s", "trust_state", "trusted");
    north.sees("south/s", "lifecycle_state", "online");
    south.sees("north/a", "lifecycle_state", "online");
    let alice = "spiffe://trust/north/alice";
    let person = desk.person("ca-north", "alice");
    let does = |id: &str| outcome(&north.dispatch(&desk, "north", &person, &ping(&north, alice, "south/s", id)));
    let read = ask(&north, alice, "south/s", "r1", "status_read", &json!({}));
    assert_eq!(outcome(&north.dispatch(&desk, "north", &person, &read)), "ok", "a read needs no rule");
    assert_eq!(does("w1"), "permission_denied", "denied by default");

    let add = |node: &Plant, text: &str| {
        let path = node.project.join("runtime.toml");
        let before = fs::read_to_string(&path).expect("text");
        fs::write(&path, format!("{before}\n{text}\n")).expect("written");
        before
    };
    let until = |wanted: &str, stage: &str| {
        let mut turn = 0;
        wait_until(&format!("{wanted} at {stage}"), SEEN_MAX, || {
            turn += 1;
            let body = ping(&north, alice, "south/s", &format!("{stage}-{wanted}-{turn}"));
            let answer = north.dispatch(&desk, "north", &person, &body);
            let decided = answer.pointer("/results/0/stage").and_then(Json::as_str).unwrap_or("origin").to_owned();
            assert!(!answer.to_string().contains("accept_write"), "their rules are theirs: {answer}");
            if outcome(&answer) == wanted && decided == stage { Ok(()) } else { Err(answer.to_string()) }
        });
    };
    add(&north, "[[runtime.cloud.wan.allow_write]]\naction = \"cmd_invoke/ping\"\ntarget = \"south/s\"");
    until("permission_denied", "target");
    let rule = "[[runtime.cloud.wan.accept_write]]\naction = \"cmd_invoke/ping\"\nactor = \"north/alice\"";
    let before = add(&south, rule);
    until("ok", "target");
    fs::write(south.project.join("runtime.toml"), before).expect("written");
    until("permission_denied", "target");
    // A token of one site opens nothing at the other.
    let bearer = format!(
        "authorization: Bearer {}",
        fs::read_to_string(Path::new(&north.project).join("state/admin.token")).expect("a token").trim()
    );
    let options = ["--header", &bearer, "--output", "/dev/null", "--write-out", "%{http_code}"];
    let output = south.curl(&desk.anchors("south"), "/api/runtime-cloud/state", &options, None);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "401");
}
