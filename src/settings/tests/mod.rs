//! Whole files: the examples, the scaffold's template, every rule of the settings, and hostile input.

mod concerns;
mod explained;
mod hostile;
mod listeners;
mod overrides;
mod federation;
mod partners;
mod project;
mod rendering;
mod tokens;

use std::collections::BTreeMap;

use super::profile::preconditions;
use super::*;
use crate::domain::identity::Subject;
use crate::domain::policy::{RuleEffect, Side, Verdict};
use crate::domain::time::Millis;

const EXAMPLES: &[(&str, &str)] = &[
    ("runtime-a-dev.toml", include_str!("../../../examples/runtime_cloud/runtime-a-dev.toml")),
    ("runtime-b-dev.toml", include_str!("../../../examples/runtime_cloud/runtime-b-dev.toml")),
    ("runtime-plant.toml", include_str!("../../../examples/runtime_cloud/runtime-plant.toml")),
    ("runtime-wan.toml", include_str!("../../../examples/runtime_cloud/runtime-wan.toml")),
];

const NO_ENVIRONMENT: [(String, String); 0] = [];

fn read(body: &str) -> Result<Settings, Problems> {
    parse(&format!("[bundle]\nversion = 1\n{body}"), "runtime.toml", "node", NO_ENVIRONMENT)
}

/// The faults as `key: message`.
fn faults(body: &str) -> Vec<String> {
    match read(body) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.problems.iter().map(|it| format!("{}: {}", it.key, it.message)).collect(),
    }
}

#[test]
fn every_example_loads() {
    for (name, text) in EXAMPLES {
        if let Err(problems) = parse(text, name, "node", NO_ENVIRONMENT) {
            panic!("{problems}");
        }
    }
}

#[test]
fn every_toml_file_of_the_examples_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/runtime_cloud");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("examples are there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    found.sort();
    assert_eq!(found, EXAMPLES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

#[test]
fn the_dev_examples_are_the_two_runtimes_of_the_guide() {
    for (text, name, web, mesh) in [
        (EXAMPLES[0].1, "default-site/runtime-a", "127.0.0.1:18081", "127.0.0.1:5201"),
        (EXAMPLES[1].1, "default-site/runtime-b", "127.0.0.1:18082", "127.0.0.1:5202"),
    ] {
        let settings = parse(text, "f", "node", NO_ENVIRONMENT).expect("valid");
        assert_eq!(settings.runtime_id.to_string(), name);
        assert_eq!(settings.web.listen.to_string(), web);
        assert_eq!(settings.mesh.listen.to_string(), mesh);
        assert_eq!((settings.mesh.role, settings.profile), (MeshRole::Peer, Profile::Dev));
        assert_eq!(settings.mesh.zenohd_version.to_string(), "1.7.2");
        assert_eq!(settings.discovery.scouting, Scouting::Loopback);
        assert_eq!(preconditions(&settings), Vec::new());
    }
}

#[test]
fn the_form_of_ids_is_the_one_that_the_file_names() {
    let id = |text: &str| {
        let settings = read(text).expect("valid");
        let naming = settings.identity.naming();
        naming.id_of(&Subject::of_runtime(&settings.runtime_id)).expect("an id").to_string()
    };
    assert_eq!(id(""), "spiffe://trust/default-site/runtime/node");
    let own = "[runtime.identity]\nmapping = \"domain-site\"\ntrust_domain = \"plant.example\"\nsite = \"hall-1\"\n";
    assert_eq!(id(own), "spiffe://hall-1.plant.example/runtime/node");
}

#[test]
fn an_almost_empty_file_has_the_documented_defaults() {
    let settings = read("").expect("valid");
    assert_eq!(settings.runtime_id.to_string(), "default-site/node");
    assert_eq!(settings.identity.trust_domain.as_str(), "trust");
    assert_eq!(settings.web.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.mesh.listen.to_string(), "127.0.0.1:5200");
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:8081");
    assert!(settings.web.enabled && settings.mesh.enabled && !settings.admin.enabled);
    let timing = settings.timing;
    assert_eq!((timing.period_ms, timing.lease_ms, timing.probe_ms), (Millis(1_000), Millis(3_000), Millis(1_000)));
    assert_eq!((timing.stale_ms, timing.partition_ms), (Millis(2_000), Millis(4_000)));
    assert_eq!(settings.store.receipts_kept, Millis::from_hours(24));
    let store = &settings.store;
    assert_eq!((store.runs_kept, store.runs_max_mb, store.read_audit_max_mb), (50, 512, 64));
    assert_eq!(settings.policy, crate::domain::policy::Policy::default());
    assert_eq!(settings.workload, None);
}

#[test]
fn how_much_is_kept_changes_with_a_reload() {
    let running = read("").expect("valid");
    for line in ["receipts_kept_h = 1", "runs_kept = 7", "runs_max_mb = 128", "read_audit_max_mb = 1"] {
        let file = read(&format!("[runtime.store]\n{line}\n")).expect("valid");
        let changes = running.changes_to(&file);
        assert_eq!((changes.live, changes.restart), (vec!["runtime.store"], vec![]), "{line}");
        assert_eq!(running.with_live_of(&file).store, file.store, "{line}");
    }
}

#[test]
fn the_rules_of_the_wan_example_are_typed() {
    let settings = parse(EXAMPLES[3].1, "f", "node", NO_ENVIRONMENT).expect("valid");
    let policy = &settings.policy;
    assert_eq!((policy.allow_write.len(), policy.accept_write.len()), (3, 2));
    assert_eq!(policy.allow_write[1].params, vec![("log.level".to_owned(), "\"debug\"".to_owned())]);
    assert_eq!(policy.allow_write[2].effect, RuleEffect::Deny);
    let actor = "spiffe://trust/plant-north/anyone".parse().expect("legal");
    let target = "plant-south/line-1".parse().expect("legal");
    let action = crate::domain::action::Action::cmd_invoke("restart", BTreeMap::new()).expect("legal");
    let now = crate::domain::time::Wall(0);
    let question = crate::domain::policy::Question { actor: &actor, action: &action, target: &target, now };
    let verdict = policy.ask(Side::Outbound, question);
    assert!(matches!(verdict, Verdict::Allowed(rule) if rule.id == "south-restart"), "{verdict:?}");
}

/// The rules' answer to the question in an example body, read as a person would send it.
fn answer(body: &str) -> bool {
    let settings = parse(EXAMPLES[3].1, "f", "node", NO_ENVIRONMENT).expect("valid");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let text = |pointer: &str| body.pointer(pointer).and_then(serde_json::Value::as_str).expect("a text").to_owned();
    assert_eq!(text("/connected_via"), settings.runtime_id.name.as_str());
    assert_eq!((text("/api_version").as_str(), text("/action_type").as_str()), ("1.0", "cmd_invoke"));
    let actor = text("/actor").parse().expect("an actor");
    let target = text("/target_runtimes/0").parse().expect("a runtime of another site");
    let action = crate::domain::action::Action::cmd_invoke(&text("/payload/command"), BTreeMap::new()).expect("legal");
    let now = crate::domain::time::Wall(0);
    let question = crate::domain::policy::Question { actor: &actor, action: &action, target: &target, now };
    matches!(settings.policy.ask(Side::Outbound, question), Verdict::Allowed(_))
}

#[test]
fn the_cross_site_examples_get_the_answer_in_their_name() {
    assert!(answer(include_str!("../../../examples/runtime_cloud/preflight-cross-site-allow.json")));
    assert!(!answer(include_str!("../../../examples/runtime_cloud/preflight-cross-site-deny.json")));
}

#[test]
fn the_status_example_asks_the_first_dev_runtime_about_the_second() {
    let text = include_str!("../../../examples/runtime_cloud/dispatch-status-read.json");
    let body: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let name = |index: usize| {
        let settings = parse(EXAMPLES[index].1, "f", "node", NO_ENVIRONMENT).expect("valid");
        settings.runtime_id.name.to_string()
    };
    assert_eq!((&body["connected_via"], &body["target_runtimes"][0]), (&name(0).into(), &name(1).into()));
    assert_eq!(body["actor"], "spiffe://trust/default-site/operator-1");
    assert_eq!((&body["action_type"], &body["api_version"]), (&"status_read".into(), &"1.0".into()));
    assert_eq!(body["payload"], serde_json::json!({}));
}

#[test]
fn plant_and_wan_say_what_they_still_need() {
    for (_, text) in &EXAMPLES[2..] {
        let settings = parse(text, "f", "node", NO_ENVIRONMENT).expect("valid");
        let missing: Vec<_> = preconditions(&settings).iter().map(|it| it.setting).collect();
        assert!(missing.contains(&"runtime.control.auth_token"), "{missing:?}");
        assert_eq!(settings.discovery.scouting, Scouting::Off);
    }
    let settings = read("[runtime.cloud]\nprofile = \"plant\"").expect("valid");
    let missing: Vec<_> = preconditions(&settings).iter().map(|it| it.setting).collect();
    assert_eq!(
        missing,
        [
            "runtime.web.auth",
            "runtime.control.auth_token",
            "runtime.tls.mode",
            "runtime.web.tls",
            "runtime.mesh.tls",
            "runtime.identity.source",
            "runtime.identity.anchors",
        ]
    );
}

#[test]
fn links_inside_tls_want_a_certificate_in_every_profile() {
    let text =
        "[runtime.tls]\nmode = \"self-managed\"\ncert_path = \"c\"\nkey_path = \"k\"\n[runtime.mesh]\ntls = true\n";
    let missing: Vec<_> = preconditions(&read(text).expect("valid")).iter().map(|it| it.setting).collect();
    assert_eq!(missing, ["runtime.identity.source"]);
    let without = format!("{text}enabled = false\n");
    assert_eq!(preconditions(&read(&without).expect("valid")), Vec::new());
}

#[test]
fn the_table_of_keys_agrees_with_the_live_settings_of_the_domain() {
    let api_name = |path: &str| match path.strip_prefix("runtime.").unwrap_or(path) {
        cloud if cloud.starts_with("cloud.") => format!("runtime_{cloud}"),
        name => name.to_owned(),
    };
    for key in KEYS {
        let live = crate::domain::config::find(&api_name(key.path));
        assert_eq!(live.is_some(), key.applies == Applies::Live, "{}", key.path);
        match (live.map(|it| it.kind), key.kind) {
            (Some(crate::domain::config::Kind::Int { min, max }), kind) => assert_eq!(kind, Kind::Int { min, max }),
            (Some(crate::domain::config::Kind::OneOf(texts)), kind) => assert_eq!(kind, Kind::OneOf(texts)),
            (None, _) => (),
        }
    }
    for live in crate::domain::config::KEYS {
        assert!(KEYS.iter().any(|key| api_name(key.path) == live.name), "{} has no key", live.name);
    }
}

#[test]
fn every_default_is_a_value_of_its_key_and_every_path_is_unique() {
    for key in KEYS {
        assert_eq!(KEYS.iter().filter(|it| it.path == key.path).count(), 1, "{}", key.path);
        assert!(!key.is_required || key.default.is_empty(), "{}: required and defaulted", key.path);
        assert!(
            key.doc.ends_with('.') && key.doc.starts_with(|it: char| it.is_uppercase() || it == '`'),
            "{}",
            key.doc
        );
        if key.default.is_empty() {
            continue;
        }
        let is_text = !matches!(
            key.kind,
            Kind::Bool | Kind::Int { .. } | Kind::Params | Kind::SecretMap | Kind::TextList | Kind::TextMap
        );
        let value = if is_text { format!("{:?}", key.default) } else { key.default.to_owned() };
        let root = raw::read(&format!("x = {value}")).expect("a TOML value");
        let raw::Raw::Table(entries) = &root.value else { panic!("a document is a table") };
        assert!(key.kind.accepts(&entries["x"].node.value), "{} = {}", key.path, key.default);
    }
}

#[test]
fn impossible_values_are_refused_by_name() {
    for (body, wanted) in [
        ("[runtime.web]\nlisten = \"8080\"", "runtime.web.listen: wanted an IP address and a port"),
        ("[runtime.web]\nlisten = 8080", "runtime.web.listen: wanted an IP address and a port"),
        ("[runtime.web]\nlisten = \"127.0.0.1:70000\"", "runtime.web.listen: wanted an IP address and a port"),
        ("[runtime.web]\nenabled = \"yes\"", "runtime.web.enabled: wanted true or false, got \"yes\""),
        ("[runtime.web]\nhosts = [\"a b\"]", "runtime.web.hosts: wanted a host name"),
        ("[runtime.web]\nhosts = [1]", "runtime.web.hosts: wanted a list of strings, got a list with the number 1"),
        ("[runtime.web]\ntls = true", "runtime.web.tls: wanted certificates"),
        ("[runtime.tls]\nmode = \"provisioned\"", "runtime.tls.cert_path: wanted a path because of mode"),
        (
            "[runtime.tls]\nrequire_remote = true\n[runtime.web]\nlisten = \"0.0.0.0:1\"",
            "runtime.web.tls: wanted true because 0.0.0.0:1 is not loopback",
        ),
        (
            "[runtime.tls]\nrequire_remote = true\n[runtime.admin]\nenabled = true\nlisten = \"0.0.0.0:1\"",
            "runtime.admin.listen: wanted loopback because of runtime.web.tls = false",
        ),
        ("[runtime.identity]\nsource = \"files\"", "runtime.identity.svid_path: wanted a path because of source"),
        ("[runtime.identity]\ntrust_domain = \"Trust\"", "runtime.identity.trust_domain: wanted a trust domain"),
        ("[runtime.mesh.timing]\nstale_ms = 1999", "runtime.mesh.timing.stale_ms: wanted at least two periods (2000)"),
        (
            "[runtime.mesh.timing]\npartition_ms = 2000",
            "runtime.mesh.timing.partition_ms: wanted more than stale_ms (2000), got 2000",
        ),
        ("[runtime.mesh.timing]\nlease_ms = 0", "runtime.mesh.timing.lease_ms: wanted a whole number from 200"),
        ("[runtime.mesh.timing]\nperiod_ms = 1.5", "runtime.mesh.timing.period_ms: wanted a whole number from 50"),
        (
            "[runtime.mesh]\nzenohd_version = \"1.7.1\"",
            "runtime.mesh.zenohd_version: wanted 1.7.2 or later below 2.0.0",
        ),
        (
            "[runtime.mesh]\nzenohd_version = \"2.0.0\"",
            "runtime.mesh.zenohd_version: wanted 1.7.2 or later below 2.0.0",
        ),
        ("[runtime.mesh]\nzenohd_version = \"1.7\"", "runtime.mesh.zenohd_version: wanted a version"),
        ("[runtime.mesh]\nrole = \"router\"", "runtime.mesh.plugin_versions: wanted the versions"),
        (
            "[runtime.mesh]\nrole = \"router\"\nplugin_versions = {}",
            "runtime.mesh.plugin_versions: wanted the versions",
        ),
        ("[runtime.mesh]\nrole = \"client\"", "runtime.mesh.connect: wanted at least one router"),
        ("[runtime.mesh]\nrole = \"leader\"", "runtime.mesh.role: wanted one of \"peer\", \"client\", \"router\""),
        ("[runtime.mesh]\nconnect = [\"10.0.0.1\"]", "runtime.mesh.connect: wanted host:port, got \"10.0.0.1\""),
        (
            "[runtime.mesh]\nconnect = [\"tls/a:1\"]",
            "runtime.mesh.connect: wanted tcp because of runtime.mesh.tls = false",
        ),
        ("[runtime.mesh]\nconnect = [\"a:1\", \"tcp/a:1\"]", "runtime.mesh.connect: a:1 is given twice"),
        ("[runtime.mesh]\npublish = [\"a/*\"]", "runtime.mesh.publish: wanted a signal's name"),
        ("[runtime.mesh]\nlisten = \"0.0.0.0:8080\"", "runtime.web.listen: 127.0.0.1:8080 is already taken by"),
        ("[runtime.discovery]\ninterfaces = [\"\"]", "runtime.discovery.interfaces: wanted an interface's name"),
        (
            "[[runtime.command]]\nname = \"ping\"\nprogram = \"p\"",
            "runtime.command[0].name: ping is a built-in command",
        ),
        ("[[runtime.command]]\nname = \"x\"", "runtime.command[0].program: wanted a path, got nothing"),
        ("[[runtime.agent]]\nname = \"cmd.x\"\nprogram = \"p\"", "runtime.agent[0].name: names that begin with"),
        ("[runtime.workload]\nargs = []", "runtime.workload.program: wanted a path, got nothing"),
        (
            "[runtime.workload]\nprogram = \"p\"\nenv = { \"A=B\" = \"c\" }",
            "runtime.workload.env: wanted a variable's name",
        ),
        ("[resource]\nname = \"a b\"", "resource.name: wanted a name"),
        ("[runtime.store]\nruns_kept = 99999999999999999999", "runtime.store.runs_kept: wanted a whole number"),
    ] {
        let found = faults(body);
        assert!(found.iter().any(|it| it.starts_with(wanted)), "{body}\n wanted {wanted}\n got {found:#?}");
    }
}

#[test]
fn rules_that_say_too_much_or_nothing_are_refused() {
    let accept = |rule: &str| format!("[runtime.cloud.wan]\naccept_write = [{{ {rule} }}]");
    let allow = |rule: &str| format!("[runtime.cloud.wan]\nallow_write = [{{ {rule} }}]");
    for (body, wanted) in [
        (accept("action = \"cfg_apply\""), "accept_write[0].actor: wanted a string, got nothing"),
        (accept("action = \"cfg_apply\", actor = \"*\""), "accept_write[0].actor: wanted an actor with its site"),
        (accept("action = \"cfg_apply\", actor = \"*/a\""), "accept_write[0].actor: wanted an actor with its site"),
        (accept("action = \"cfg_apply\", actor = \"alice\""), "accept_write[0].actor: wanted <site>/<principal>"),
        (
            accept("action = \"cfg_apply\", actor = \"spiffe://other/s/a\""),
            "accept_write[0].actor: wanted the trust domain trust, got other",
        ),
        (allow("action = \"cfg_apply\""), "allow_write[0].target: wanted a string, got nothing"),
        (allow("action = \"cfg_apply\", target = \"site-*\""), "allow_write[0].target: wanted `*` or a whole name"),
        (allow("action = \"cfg_appyl\", target = \"*\""), "allow_write[0].action: wanted cfg_apply, cmd_invoke"),
        (allow("action = \"cfg_apply/x\", target = \"*\""), "allow_write[0].action: wanted cfg_apply, cmd_invoke"),
        (allow("action = \"status_read\", target = \"*\""), "allow_write[0].action: wanted a write"),
        (allow("action = \"*\", target = \"*\", effect = \"maybe\""), "allow_write[0].effect: wanted one of"),
        (allow("action = \"*\", target = \"*\", params = { a = { b = 1 } }"), "allow_write[0].params: wanted a table"),
        (
            allow("action = \"*\", target = \"*\", not_before = 2030-01-01"),
            "allow_write[0].not_before: wanted a moment",
        ),
        (
            allow("action=\"*\", target=\"*\", not_before=2030-01-02T00:00:00Z, not_after=2030-01-01T00:00:00Z"),
            "allow_write[0].not_after: wanted a moment after not_before",
        ),
        (
            "[runtime.cloud.wan]\nallow_write = [{ id = \"a\", action = \"*\", target = \"*\" }]\n\
             accept_write = [{ id = \"a\", action = \"*\", actor = \"s/*\" }]"
                .to_owned(),
            "accept_write[0].id: the id a is given twice",
        ),
        (allow("action = \"*\", target = \"*\", id = \"a b\""), "allow_write[0].id: wanted at most 128 letters"),
        (
            allow(&format!("action = \"*\", target = \"*\", id = \"{}\"", "i".repeat(129))),
            "allow_write[0].id: wanted at most 128 letters",
        ),
        (
            format!("[runtime.cloud.wan]\nallow_write = [{}]", "{ action = \"*\", target = \"*\" },".repeat(1_001)),
            "allow_write: wanted at most 1000",
        ),
    ] {
        let wanted = format!("runtime.cloud.wan.{wanted}");
        let found = faults(&body);
        assert!(found.iter().any(|it| it.starts_with(&wanted)), "{body:.200}\n wanted {wanted}\n got {found:#?}");
    }
    let longest = format!("action = \"*\", target = \"*\", id = \"{}\"", "i".repeat(128));
    assert_eq!(faults(&allow(&longest)), Vec::<String>::new());
    // A rule that denies may say as much as it likes.
    assert_eq!(faults(&accept("effect = \"deny\", action = \"*\", actor = \"*\"")), Vec::<String>::new());
}

#[test]
fn the_files_own_questions_are_asked_at_load() {
    let body = |expect: &str, extra: &str| {
        format!(
            "[runtime.cloud.wan]\n\
             allow_write = [{{ id = \"r\", action = \"cfg_apply\", target = \"b/*\", params = {{ n = 1 }}, \
             not_before = 2030-01-01T00:00:00Z }}]\n\
             [[runtime.cloud.wan.test]]\nactor = \"default-site/x\"\naction = \"cfg_apply\"\ntarget = \"b/r\"\n\
             expect = \"{expect}\"\n{extra}"
        )
    };
    assert_eq!(faults(&body("allow", "params = { n = 1 }")), Vec::<String>::new());
    assert_eq!(faults(&body("deny", "params = { n = 2 }")), Vec::<String>::new());
    assert_eq!(
        faults(&body("deny", "params = { n = 1 }")),
        ["runtime.cloud.wan.test[0]: wanted deny, got allow: rule r allows it"]
    );
    assert_eq!(
        faults(&body("allow", "params = { n = 1 }\nat = 2029-12-31T23:59:59Z")),
        ["runtime.cloud.wan.test[0]: wanted allow, got deny: no rule speaks of it"]
    );
    assert_eq!(
        faults(&body("allow", "params = { n = 1 }\nside = \"inbound\"")),
        ["runtime.cloud.wan.test[0]: wanted allow, got deny: no rule speaks of it"]
    );
    assert_eq!(faults(&body("allow", "params = { n = 1 }\nat = \"2030-01-01T00:00:00Z\"")), Vec::<String>::new());
}

#[test]
fn duplicates_are_refused() {
    for (body, wanted) in [
        ("[[runtime.command]]\nname = \"x\"\nprogram = \"p\"\n".repeat(2), "runtime.command[1].name: the name x"),
        ("[[runtime.agent]]\nname = \"x\"\nprogram = \"p\"\n".repeat(2), "runtime.agent[1].name: the name x"),
        (
            "[[runtime.identity.grant]]\nactor = \"s/a\"\nrole = \"admin\"\n".repeat(2),
            "runtime.identity.grant[1].actor",
        ),
        ("[[runtime.identity.anchors]]\nsite = \"s\"\npath = \"p\"\n".repeat(2), "runtime.identity.anchors[1].site"),
        (
            "[[runtime.cloud.links.transports]]\nsource=\"node\"\ntarget=\"b\"\ntransport=\"mesh\"\n".repeat(2),
            "runtime.cloud.links.transports[1]",
        ),
        ("[runtime.web]\ntls = false\ntls = false".to_owned(), ": duplicate key"),
    ] {
        let found = faults(&body);
        assert_eq!(found.len(), 1, "{body}: {found:#?}");
        assert!(found[0].starts_with(wanted), "{body}\n wanted {wanted}\n got {found:#?}");
    }
}

#[test]
fn a_links_source_is_this_runtime() {
    let body = |source, target| {
        format!(
            "[runtime.cloud.links]\ntransports = [{{ source = \"{source}\", target = \"{target}\", transport = \"mqtt\" }}]"
        )
    };
    assert!(faults(&body("node", "b")).is_empty());
    assert!(faults(&body("default-site/node", "s/b")).is_empty());
    assert!(faults(&body("b", "node"))[0].contains("wanted this runtime, default-site/node, got default-site/b"));
    assert!(faults(&body("node", "node"))[0].contains("wanted another runtime"));
}

#[test]
fn scouting_follows_where_the_mesh_listens() {
    let scouting = |body: &str| read(body).expect("valid").discovery.scouting;
    assert_eq!(scouting(""), Scouting::Loopback);
    assert_eq!(scouting("[runtime.mesh]\nlisten = \"[::1]:5200\""), Scouting::Loopback);
    let address = "10.1.2.3".parse().expect("legal");
    assert_eq!(scouting("[runtime.mesh]\nlisten = \"10.1.2.3:5200\""), Scouting::Address(address));
    assert_eq!(scouting("[runtime.mesh]\nlisten = \"0.0.0.0:5200\""), Scouting::Everywhere);
    let named = "[runtime.mesh]\nlisten = \"0.0.0.0:5200\"\n[runtime.discovery]\ninterfaces = [\"eth0\"]";
    assert_eq!(scouting(named), Scouting::Interfaces(vec!["eth0".to_owned()]));
    assert_eq!(scouting("[runtime.discovery]\nenabled = false"), Scouting::Off);
    assert_eq!(scouting("[runtime.mesh]\nenabled = false"), Scouting::Off);
    assert_eq!(
        scouting("[runtime.cloud]\nprofile = \"wan\"\n[runtime.mesh]\nlisten = \"10.1.2.3:5200\""),
        Scouting::Off
    );
}

#[test]
fn a_longer_period_moves_the_defaults_that_depend_on_it() {
    let timing = read("[runtime.mesh.timing]\nperiod_ms = 5000").expect("valid").timing;
    assert_eq!((timing.stale_ms, timing.partition_ms), (Millis(10_000), Millis(20_000)));
    let timing = read("[runtime.mesh.timing]\nperiod_ms = 50").expect("valid").timing;
    assert_eq!((timing.stale_ms, timing.partition_ms), (Millis(2_000), Millis(4_000)));
}

#[test]
fn a_worthless_token_is_refused_where_it_matters() {
    let body = |profile, token| {
        format!("[runtime.cloud]\nprofile = \"{profile}\"\n[runtime.control]\nauth_token = \"{token}\"")
    };
    let good = "3f9a2c7e51d804b6";
    for (token, wanted) in [
        ("short", "wanted at least 24 characters"),
        ("CHANGE-ME-0123456789abcdefghijkl", "got a placeholder"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeats itself"),
    ] {
        assert!(faults(&body("dev", token)).is_empty());
        for profile in ["plant", "wan"] {
            let found = faults(&body(profile, token));
            assert!(found.len() == 1 && found[0].contains(wanted), "{found:?}");
        }
    }
    assert!(faults(&body("wan", &good.repeat(2))).is_empty());
}

/// In `dev` writes of strangers are taken on loopback, so a node that reaches out must not look as if it were there.
#[test]
fn a_mesh_is_on_loopback_only_if_nothing_of_it_leaves_the_machine() {
    for (mesh, is_on_loopback) in [
        ("", true),
        ("connect = [\"127.0.0.1:1\", \"tcp/[::1]:2\"]", true),
        ("listen = \"10.0.0.1:1\"", false),
        ("connect = [\"127.0.0.1:1\", \"10.0.0.5:7447\"]", false),
        // A name may mean another machine tomorrow.
        ("connect = [\"localhost:1\"]", false),
        ("role = \"client\"\nconnect = [\"10.0.0.5:7447\"]", false),
        ("enabled = false\nconnect = [\"10.0.0.5:7447\"]", true),
    ] {
        let settings = read(&format!("[runtime.mesh]\n{mesh}\n")).expect(mesh);
        assert_eq!(settings.is_mesh_on_loopback(), is_on_loopback, "{mesh}");
    }
}
