//! The environment over the file.

use crate::settings::{KEYS, Kind, Problems, Settings, parse, variable};

const FILE: &str = "[bundle]\nversion = 1\n[runtime.web]\nlisten = \"127.0.0.1:1\"\n";

fn read(variables: &[(&str, &str)]) -> Result<Settings, Problems> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    parse(FILE, "runtime.toml", "node", owned.collect::<Vec<_>>())
}

fn fault(variables: &[(&str, &str)]) -> String {
    let problems = read(variables).expect_err("refused");
    assert_eq!(problems.problems.len(), 1, "{problems}");
    assert_eq!((problems.problems[0].file.as_str(), problems.problems[0].line), ("environment", 0));
    problems.to_string()
}

#[test]
fn a_variable_beats_the_file_and_the_default() {
    let settings = read(&[
        ("TRUST_RUNTIME__WEB__LISTEN", "127.0.0.1:2"),
        ("TRUST_RUNTIME__RESOURCE__NAME", "other"),
        ("TRUST_RUNTIME__MESH__TIMING__PERIOD_MS", "500"),
        ("TRUST_RUNTIME__MESH__ENABLED", "false"),
        ("TRUST_RUNTIME__LOG__LEVEL", "debug"),
        ("TRUST_RUNTIME_OF_SOMEBODY_ELSE", "x"),
        ("PATH", "/bin"),
    ])
    .expect("valid");
    assert_eq!(settings.web.listen.to_string(), "127.0.0.1:2");
    assert_eq!(settings.runtime_id.to_string(), "default-site/other");
    assert_eq!(settings.timing.period_ms.0, 500);
    assert!(!settings.mesh.enabled);
    assert_eq!(settings.log.level.as_str(), "debug");
}

#[test]
fn a_wrong_variable_names_itself_and_its_key() {
    let shown = fault(&[("TRUST_RUNTIME__WEB__LISTEN", "8080")]);
    assert!(shown.contains("TRUST_RUNTIME__WEB__LISTEN (runtime.web.listen): wanted an IP address"), "{shown}");
    assert!(shown.contains("write \"127.0.0.1:8080\""), "{shown}");
    assert!(fault(&[("TRUST_RUNTIME__WEB__TLS", "yes")]).contains("wanted true or false"));
    assert!(fault(&[("TRUST_RUNTIME__MESH__TIMING__PERIOD_MS", "1")]).contains("wanted a whole number from 50"));
    assert!(fault(&[("TRUST_RUNTIME__MESH__TIMING__STALE_MS", "1999")]).contains("at least two periods"));
    let shown = fault(&[("TRUST_RUNTIME__WEB__LISEN", "x")]);
    assert!(shown.contains("did you mean TRUST_RUNTIME__WEB__LISTEN?"), "{shown}");
    assert!(fault(&[("TRUST_RUNTIME__MESH__CONNECT", "a:1")]).contains("set it in runtime.toml"));
    assert!(fault(&[("TRUST_RUNTIME__WEB__LISTEN_FILE", "x")]).contains("only secrets are read from files"));
}

#[test]
fn a_variable_does_not_hide_a_fault_of_the_file() {
    let text = "[bundle]\nversion = 1\n[runtime.web]\nlisten = 1\n";
    let variable = ("TRUST_RUNTIME__WEB__LISTEN".to_owned(), "127.0.0.1:2".to_owned());
    let problems = parse(text, "runtime.toml", "node", [variable]).expect_err("refused");
    assert_eq!((problems.problems.len(), problems.problems[0].line), (1, 4), "{problems}");
}

#[test]
fn a_secret_is_read_from_a_file_without_its_line_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let name = "TRUST_RUNTIME__CONTROL__AUTH_TOKEN_FILE";
    let shown = path.to_string_lossy().into_owned();
    assert!(fault(&[(name, &shown)]).contains("No such file"));
    for (content, is_read) in [
        ("s3cret\n".to_owned(), true),
        ("s3cret\r\n".to_owned(), true),
        ("s3cret".to_owned(), true),
        (String::new(), false),
        ("two words\n".to_owned(), false),
        ("s3cret\n\n".to_owned(), false),
        ("x".repeat(1_025), false),
        ("x".repeat(10_000), false),
    ] {
        std::fs::write(&path, &content).expect("written");
        match read(&[(name, &shown)]) {
            Ok(settings) => {
                assert!(is_read, "{content:.20}");
                assert!(settings.control.auth_token.is_some_and(|token| token.matches("s3cret")));
            }
            Err(problems) => {
                assert!(!is_read, "{problems}");
                assert!(!problems.to_string().contains("words") && !problems.to_string().contains("xxx"), "{problems}");
            }
        }
    }
    std::fs::write(&path, "s3cret").expect("written");
    assert!(fault(&[(name, &shown), ("TRUST_RUNTIME__CONTROL__AUTH_TOKEN", "x")]).contains("got both"));
}

#[test]
fn every_scalar_has_a_variable_of_its_own_and_none_can_be_taken_for_a_file() {
    let names: Vec<String> = KEYS.iter().filter_map(variable).collect();
    for (index, name) in names.iter().enumerate() {
        assert!(!names[..index].contains(name), "{name}");
        assert!(!name.ends_with("_FILE"), "{name}");
        assert!(name.chars().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_'), "{name}");
    }
    for key in KEYS {
        let is_single = !key.path.contains("[]") && key.kind.is_scalar();
        assert_eq!(variable(key).is_some(), is_single, "{}", key.path);
        assert!(key.kind != Kind::Secret || variable(key).is_some(), "{}", key.path);
    }
}
