//! What is set and protects less than it seems: settings without effect, and secrets that others may read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::settings::reading::{self, File};
use crate::settings::{FILE_NAME, Reading, Unmet, read_project};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn read_all(body: &str, profile: &str, environment: &[(&str, &str)]) -> Reading {
    let text = format!("[bundle]\nversion = 1\n[runtime.cloud]\nprofile = {profile:?}\n{body}");
    let file = File { name: "runtime.toml", exposure: None };
    let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    reading::read(&text, file, "node", environment, Unmet::Refuse).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Whether the setting is missing, and what is warned of.
fn judged(reading: &Reading, setting: &str) -> (bool, Vec<String>) {
    let warnings = reading.warnings.iter().map(|it| format!("{}: {}", it.place, it.message)).collect();
    let of_setting = reading.missing.iter().filter(|it| it.setting == setting);
    (of_setting.filter(|it| it.reason.starts_with("has no effect in this version: ")).count() == 1, warnings)
}

#[test]
fn a_protection_without_effect_is_refused_in_plant_and_wan_and_a_warning_in_dev() {
    for (setting, body) in [
        ("runtime.mesh.auth_token", format!("[runtime.mesh]\nauth_token = {TOKEN:?}\n")),
        ("runtime.time.source", "[runtime.time]\nsource = \"synchronised\"\n".to_owned()),
    ] {
        for profile in ["plant", "wan"] {
            assert_eq!(judged(&read_all(&body, profile, &[]), setting), (true, Vec::new()), "{setting}");
        }
        let in_dev = read_all(&body, "dev", &[]);
        assert!(in_dev.missing.is_empty());
        let (_, warnings) = judged(&in_dev, setting);
        assert_eq!(warnings.len(), 1, "{setting}");
        let wanted = format!("runtime.toml:6:{}: {setting}: has no effect in this version: ", column(&body));
        assert!(warnings[0].starts_with(&wanted), "{warnings:?}");
        assert!(!in_dev.warnings[0].place.excerpt().contains(TOKEN));
    }
}

/// Where the value of the second line begins, from 1.
fn column(body: &str) -> usize {
    body.lines().nth(1).and_then(|line| line.split_inclusive("= ").next()).map_or(0, str::len).saturating_add(1)
}

#[test]
fn what_merely_has_no_function_yet_is_a_warning_everywhere() {
    for (setting, body) in [
        ("runtime.mesh.publish", "[runtime.mesh]\npublish = [\"a\"]\n".to_owned()),
        ("runtime.mesh.subscribe", "[runtime.mesh]\nsubscribe = { \"a/b\" = \"c\" }\n".to_owned()),
        ("runtime.mesh.zenohd_version", "[runtime.mesh]\nzenohd_version = \"1.9.0\"\n".to_owned()),
        ("runtime.discovery.advertise", "[runtime.discovery]\nadvertise = false\n".to_owned()),
        (
            "runtime.cloud.links.transports",
            "[[runtime.cloud.links.transports]]\nsource = \"node\"\ntarget = \"b\"\ntransport = \"mqtt\"\n".to_owned(),
        ),
    ] {
        for profile in ["dev", "plant", "wan"] {
            let (is_refused, warnings) = judged(&read_all(&body, profile, &[]), setting);
            assert!(!is_refused && warnings.len() == 1, "{setting}: {warnings:?}");
            assert!(warnings[0].contains(&format!(": {setting}: has no effect in this version: ")), "{warnings:?}");
            assert!(warnings[0].starts_with("runtime.toml:5:") || warnings[0].starts_with("runtime.toml:6:"));
        }
    }
}

#[test]
fn a_default_that_is_written_down_is_no_concern_and_a_variable_is_one() {
    let defaults = "[runtime.mesh]\nzenohd_version = \"1.7.2\"\npublish = []\nsubscribe = {}\n\
                    [runtime.admin]\nenabled = false\nlisten = \"127.0.0.1:8081\"\n[runtime.control]\nmode = \"production\"\n\
                    [runtime.time]\nsource = \"system\"\n[runtime.discovery]\nadvertise = true\n[runtime.store]\nruns_kept = 50\n";
    assert_eq!(read_all(defaults, "dev", &[]).warnings, []);
    let plain: Vec<_> = read_all("", "plant", &[]).missing;
    assert_eq!(read_all(defaults, "plant", &[]).missing, plain);
    let variable = [("TRUST_RUNTIME__TIME__SOURCE", "synchronised")];
    assert!(judged(&read_all(defaults, "wan", &variable), "runtime.time.source").0);
    let (_, warnings) = judged(&read_all(defaults, "dev", &variable), "runtime.time.source");
    assert!(warnings[0].starts_with("environment: runtime.time.source: "), "{warnings:?}");
}

#[test]
fn in_wan_a_site_that_is_known_by_anchors_alone_is_a_warning_until_its_bundle_is_followed() {
    let identity = "[runtime.identity]\nsite = \"north\"\nanchors = [\n { site = \"north\", path = \"n.pem\" },\n \
                    { site = \"south\", path = \"s.pem\" },\n { site = \"east\", path = \"e.pem\" },\n]\n";
    let followed = |site: &str| format!("[[runtime.identity.partner]]\nsite = {site:?}\n");
    for (profile, body, wanted) in [
        ("wan", identity.to_owned(), &[("9:2", "south"), ("10:2", "east")] as &[_]),
        ("wan", format!("{identity}{}", followed("south")), &[("10:2", "east")]),
        ("wan", format!("{identity}{}{}", followed("south"), followed("east")), &[]),
        ("plant", identity.to_owned(), &[]),
        ("dev", identity.to_owned(), &[]),
    ] {
        let reading = read_all(&body, profile, &[]);
        let said: Vec<_> = reading.warnings.iter().map(|it| format!("{}: {}", it.place, it.message)).collect();
        let wanted = wanted.iter().map(|(at, site)| {
            format!("runtime.toml:{at}: runtime.identity.anchors: site {site} is known by its anchors alone")
        });
        let wanted: Vec<_> = wanted.collect();
        assert_eq!(said.len(), wanted.len(), "{profile}: {said:?}");
        assert!(said.iter().zip(&wanted).all(|(said, wanted)| said.starts_with(wanted)), "{profile}: {said:?}");
        assert!(reading.missing.iter().all(|it| !it.reason.contains("stale")), "it is no reason not to start");
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

/// What is said of the mode: what keeps the node from starting, and what is warned of.
fn of_mode(project: &Path, environment: &[(String, String)]) -> (Vec<String>, Vec<String>) {
    let reading = read_project(project, environment.to_vec(), Unmet::Refuse).expect("valid");
    let missing = reading.missing.iter().map(|it| format!("{}: {}", it.setting, it.reason));
    let warnings = reading.warnings.iter().map(|it| format!("{}: {}", it.place, it.message));
    let is_of_mode = |text: &String| text.contains("set its mode to 600");
    (missing.filter(is_of_mode).collect(), warnings.filter(is_of_mode).collect())
}

#[test]
fn a_settings_file_with_a_secret_is_its_owners_alone() {
    let project = tempfile::tempdir().expect("a folder");
    let path = project.path().join(FILE_NAME);
    for (section, setting) in [
        (format!("[runtime.control]\nauth_token = {TOKEN:?}\n"), "runtime.control.auth_token"),
        (format!("[runtime.mesh]\nauth_token = {TOKEN:?}\n"), "runtime.mesh.auth_token"),
        ("[runtime.workload]\nprogram = \"p\"\nenv = { PASSWORD = \"x\" }\n".to_owned(), "runtime.workload.env"),
        (String::new(), ""),
    ] {
        for (profile, mode) in
            ["dev", "plant", "wan"].into_iter().flat_map(|it| [(it, 0o600), (it, 0o640), (it, 0o604)])
        {
            let text = format!("[bundle]\nversion = 1\n[runtime.cloud]\nprofile = {profile:?}\n{section}");
            fs::write(&path, text).expect("written");
            set_mode(&path, mode);
            let (missing, warnings) = of_mode(project.path(), &[]);
            let is_open = mode != 0o600 && !section.is_empty();
            let said = format!("{setting}: {}: is open to others (mode {mode:o}); set its mode to 600", path.display());
            let place = warnings.iter().all(|it| it.starts_with(&format!("{}:", path.display())));
            assert_eq!(missing, if is_open && profile != "dev" { vec![said.clone()] } else { Vec::new() }, "{profile}");
            assert_eq!(warnings.len(), usize::from(is_open && profile == "dev"), "{profile} {warnings:?}");
            assert!(place && warnings.iter().all(|it| it.ends_with(&said)), "{warnings:?}");
        }
    }
}

#[test]
fn the_file_behind_a_variable_is_its_owners_alone_and_a_variable_may_hold_a_secret() {
    let project = tempfile::tempdir().expect("a folder");
    let (path, token) = (project.path().join(FILE_NAME), project.path().join("token"));
    fs::write(&token, TOKEN).expect("written");
    for (profile, is_refused) in [("dev", false), ("plant", true), ("wan", true)] {
        fs::write(&path, format!("[bundle]\nversion = 1\n[runtime.cloud]\nprofile = {profile:?}\n")).expect("written");
        set_mode(&path, 0o644);
        let name = "TRUST_RUNTIME__CONTROL__AUTH_TOKEN";
        assert_eq!(of_mode(project.path(), &[(name.to_owned(), TOKEN.to_owned())]), Default::default());
        let variable = [(format!("{name}_FILE"), token.to_string_lossy().into_owned())];
        for mode in [0o400, 0o600] {
            set_mode(&token, mode);
            assert_eq!(of_mode(project.path(), &variable), Default::default(), "{profile} {mode:o}");
        }
        set_mode(&token, 0o644);
        let reason = format!("{}: is open to others (mode 644); set its mode to 600", token.display());
        let said = format!("runtime.control.auth_token: {reason}");
        let (missing, warnings) = of_mode(project.path(), &variable);
        let warned = format!("environment: {said}");
        let wanted = if is_refused { (vec![said], Vec::new()) } else { (Vec::new(), vec![warned]) };
        assert_eq!((missing, warnings), wanted, "{profile}");
    }
}
