//! The page of metrics, and what holds of every row of the table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::reference::reference;
use super::table::{ALL, Kind, Row};
use super::{Metrics, Reading};

#[test]
fn the_page_of_metrics_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&page, reference()).expect("written");
    }
    assert_eq!(fs::read_to_string(&page).expect("docs/reference/metrics.md"), reference(), "UPDATE_GOLDEN=1 renews it");
}

/// One prefix, base units, and nothing in a name that the exposition adds itself.
#[test]
fn names_follow_the_rules_of_prometheus() {
    let names: BTreeSet<_> = ALL.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ALL.len(), "no metric stands twice");
    for Row { name, kind, labels, meaning } in ALL {
        let is_legal = |it: &str| it.chars().all(|it| it.is_ascii_lowercase() || it == '_');
        assert!(name.starts_with("trust_runtime_") || name.starts_with("process_"), "{name}");
        assert!(is_legal(name) && labels.iter().all(|(label, values)| is_legal(label) && !values.is_empty()), "{name}");
        for (unit, base) in [("_ms", "seconds"), ("_millis", "seconds"), ("_kb", "bytes"), ("_minutes", "seconds")] {
            assert!(!name.contains(unit), "{name}: the base unit is {base}");
        }
        for added in ["_total", "_bucket", "_count", "_sum", "_info", "_created"] {
            assert!(!name.ends_with(added), "{name}: the exposition adds {added}");
        }
        assert!(kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
        assert!(!meaning.is_empty() && !meaning.ends_with('.') && !meaning.contains('|'), "{name}");
    }
}

/// Two may ask at once, and the one who has looked first may be the one who writes last.
#[test]
fn what_is_counted_elsewhere_does_not_fall_here() {
    let metrics = Metrics::default();
    let shown = |count| {
        let text = metrics.expose(&Reading { refused: vec![("busy", count)], ..Reading::default() }).expect("written");
        text.lines().find(|line| line.starts_with("trust_runtime_mesh_refused_total")).expect("a line").to_owned()
    };
    assert_eq!(shown(7), shown(5));
    assert_ne!(shown(7), shown(8));
}

#[test]
fn counters_with_few_words_begin_at_nothing_and_not_with_the_first_event() {
    let text = Metrics::default().expose(&Reading::default()).expect("written");
    for series in [
        r#"trust_runtime_preflights_total{result="allowed"} 0"#,
        r#"trust_runtime_preflights_total{result="denied"} 0"#,
        r#"trust_runtime_store_commits_total{result="ok"} 0"#,
        r#"trust_runtime_store_commits_total{result="failed"} 0"#,
        r#"trust_runtime_runs_ended_total{result="completed"} 0"#,
        r#"trust_runtime_runs_ended_total{result="errored"} 0"#,
    ] {
        assert!(text.lines().any(|line| line == series), "{series}: {text}");
    }
}
