//! runtime.toml as somebody may write it.

use trust_runtime::settings::{self, PROBLEMS_MAX, Settings};

fn parse(text: &str) -> Result<Settings, settings::Problems> {
    settings::parse(text, "runtime.toml", "own", [])
}

/// Whether it is valid as a whole.
pub fn is_accepted(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| parse(text).is_ok())
}

/// The same text gives the same settings or the same problems, and a bounded number of those, each with a place in the text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match (parse(text), parse(text)) {
        (Ok(one), Ok(other)) => {
            assert_eq!(one, other);
            assert_eq!(one.runtime_id.to_string().parse(), Ok(one.runtime_id.clone()));
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert!(!one.problems.is_empty() && one.problems.len() <= PROBLEMS_MAX, "{one}");
            let lines = text.lines().count().max(1);
            assert!(one.problems.iter().all(|problem| problem.line <= lines + 1), "{one}");
        }
        (one, other) => panic!("once {one:?}, then {other:?}"),
    }
}
