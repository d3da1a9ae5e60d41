//! Input that nobody writes by accident, and a good deal that somebody does.

use proptest::prelude::*;

use super::{EXAMPLES, NO_ENVIRONMENT};
use crate::settings::raw::{DEPTH_MAX, FILE_BYTES_MAX};
use crate::settings::{FILE_NAME, PROBLEMS_MAX, Problems, load, parse};

fn refused(text: &str) -> Problems {
    let problems = parse(text, "f", "node", NO_ENVIRONMENT).expect_err("refused");
    assert!(!problems.problems.is_empty() && problems.problems.len() <= PROBLEMS_MAX);
    assert!(!problems.to_string().contains('\0'));
    problems
}

/// The first problem's place and message.
fn first(text: &str) -> (usize, usize, String) {
    let problems = refused(text);
    let problem = &problems.problems[0];
    (problem.line, problem.column, problem.message.clone())
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_read() {
    let text = EXAMPLES[3].1.replace('\n', "\r\n");
    parse(&format!("\u{feff}{text}"), "f", "node", NO_ENVIRONMENT).expect("valid");
    let (line, column, _) = first("\u{feff}lisen = 1\r\n[bundle]\r\nversion = 1\r\n");
    assert_eq!((line, column), (1, 1));
    let (line, column, _) = first("[bundle]\r\nversion = 1\r\nx = 1\r\n");
    assert_eq!((line, column), (3, 1));
}

#[test]
fn nul_and_other_control_characters_are_refused_with_their_place() {
    assert_eq!(first("[bundle]\nversion = \0").0, 2);
    assert_eq!(first("[bundle]\nversion = 1\n# \u{7}").0, 3);
    let message = first("[bundle]\nversion = 1\n[runtime.workload]\nprogram = \"a\\u0000b\"").2;
    assert!(message.starts_with("wanted a path"), "{message}");
}

#[test]
fn a_file_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
    let head = "[bundle]\nversion = 1\n#";
    let padded = |length: usize| format!("{head}{}", "x".repeat(length - head.len()));
    parse(&padded(FILE_BYTES_MAX), "f", "node", NO_ENVIRONMENT).expect("valid");
    assert!(first(&padded(FILE_BYTES_MAX + 1)).2.contains("wanted at most 262144 bytes"));
}

#[test]
fn nesting_is_bounded_before_it_can_use_up_the_stack() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let nested = |depth: usize| format!("x = {}1{}", open.repeat(depth), close.repeat(depth));
        assert!(first(&nested(DEPTH_MAX + 1)).2.contains("levels"), "{open}");
        assert!(first(&nested(60_000)).2.contains("levels"), "{open}");
    }
    // Brackets in texts and comments are no nesting.
    let texts = "x = \"[[[[[[[[[[[[[[[[[[[[\" # [[[[[[[[[[[[[[[[[[[[[[[\ny = '''\n[[[[[[[[[[[[[[[[[[[[ \\'''\n";
    let messages: Vec<_> = refused(texts).problems.into_iter().map(|it| it.message).collect();
    assert!(messages.iter().all(|it| !it.contains("levels")), "{messages:?}");
    // Dotted names are multiplied by the brackets around them.
    let dotted = "a.".repeat(78) + "a = {";
    let worst = format!("{}a = 1{}", dotted.repeat(DEPTH_MAX), "}".repeat(DEPTH_MAX));
    let message = first(&worst).2;
    assert!(message.contains("levels"), "{message}");
    assert!(first(&format!("{}a = 1", "a.".repeat(100_000))).2.contains("recursion"));
}

#[test]
fn a_thousand_faults_are_counted_and_a_hundred_listed() {
    let text: String = (0..5_000).map(|index| format!("unknown_{index} = 1\n")).collect();
    let problems = refused(&text);
    assert_eq!((problems.problems.len(), problems.omitted), (PROBLEMS_MAX, 4_901));
    assert!(problems.to_string().ends_with("5001 problems, 4901 of them not shown"));
}

#[test]
fn invalid_utf8_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(FILE_NAME), b"[bundle]\nversion = 1 # \xff").expect("written");
    let problems = load(folder.path(), NO_ENVIRONMENT).expect_err("refused");
    let problem = &problems.problems[0];
    assert_eq!((problem.line, problem.column), (2, 15));
    assert!(problem.message.contains("UTF-8"));
}

#[test]
fn a_missing_file_and_a_folder_in_its_place_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let problems = load(folder.path(), NO_ENVIRONMENT).expect_err("missing").to_string();
    assert!(problems.contains(FILE_NAME) && problems.contains("play --project"), "{problems}");
    std::fs::create_dir(folder.path().join(FILE_NAME)).expect("made");
    let problems = load(folder.path(), NO_ENVIRONMENT).expect_err("a folder").to_string();
    assert!(problems.contains("it is not a file"), "{problems}");
}

#[test]
fn a_file_cannot_steer_the_terminal() {
    let shown = refused("\"a\\u001b[31m\" = 1\n\"\u{202e}evil\" = 1\n[runtime.web]\nlisten = \"\\u001b]0;x\\u0007\"")
        .to_string();
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}') && !shown.contains('\u{7}'), "{shown:?}");
}

#[test]
fn no_secret_appears_in_an_error_or_in_debug_output() {
    for text in [
        "[runtime.control]\nauth_token = \"hunter two\"",
        "[runtime.control]\nauth_tokn = \"hunter2\"",
        "[runtime.control]\nauth_token = hunter2",
        "[runtime.control]\nauth_token: \"hunter2\"",
        "[runtime.control]\nauth_token = \"hunter2",
        "[runtime]\ncontrol = \"hunter2\"",
        "[runtime.mesh]\nlisen = 1\nauth_token = \"hunter2\\n\"",
        "runtime.control = { auth_token = \"hunter2\", mod = \"debug\" }",
        "[runtime.cloud]\nprofile = \"wan\"\n[runtime.control]\nauth_token = \"hunter2\"",
        "[runtime.workload]\nprogram = \"p\"\nenv = { PASSWORD = \"hunter2\", \"A=\" = \"hunter2\" }",
        "[runtime.workload]\nprogram = \"p\"\nenv = { PASSWORD = \"hunter2\", N = 1 }",
    ] {
        let problems = refused(text);
        let shown = format!("{problems}\n{problems:?}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
    let text = "bundle.version = 1\nruntime.control.auth_token = \"hunter2\"\nruntime.mesh.auth_token = \"hunter2\"\n\
                runtime.workload = { program = \"p\", env = { P = \"hunter2\" } }";
    let settings = parse(text, "f", "node", NO_ENVIRONMENT).expect("valid");
    assert!(settings.control.auth_token.as_ref().is_some_and(|token| token.matches("hunter2")));
    assert!(!format!("{settings:?}").contains("hunter"));
}

fn any_mutation() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0_usize..40, "[\\PC\n\\[\\]{}=.\"'#]{0,6}");
    (0..EXAMPLES.len(), prop::collection::vec(edit, 1..6)).prop_map(|(example, edits)| {
        let mut text: Vec<char> = EXAMPLES[example].1.chars().collect();
        for (at, length, inserted) in edits {
            let begin = at.index(text.len().saturating_add(1));
            let end = text.len().min(begin.saturating_add(length));
            text.splice(begin..end, inserted.chars());
        }
        text.into_iter().collect()
    })
}

/// Reads the text, and where it is refused, shows why.
fn survives(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = parse(text, "f", "node", NO_ENVIRONMENT) {
        prop_assert!(!problems.problems.is_empty());
        prop_assert!(problems.to_string().lines().all(|line| line.chars().count() < 1_200));
        let lines = text.lines().count();
        prop_assert!(problems.problems.iter().all(|it| it.line <= lines.saturating_add(1)));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        survives(&text)?;
    }

    #[test]
    fn a_mutated_example_is_read_or_refused(text in any_mutation()) {
        survives(&text)?;
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(
        key in prop::sample::select(crate::settings::KEYS),
        value in prop_oneof!["[0-9]{1,25}", "\"\\PC{0,40}\"", "\\[[\"a0-9,]{0,9}\\]", "-?[0-9]\\.[0-9]", "true", "2030-01-01"],
    ) {
        let path = key.path.replace("[]", "");
        survives(&format!("{path} = {value}"))?;
        let variable = ("TRUST_RUNTIME__WEB__LISTEN".to_owned(), value);
        prop_assert!(parse("bundle.version = 1", "f", "node", [variable]).is_err());
    }
}
