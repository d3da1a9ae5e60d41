//! The page of all metrics as Markdown, from the table. A test compares `docs/reference/metrics.md` with it.

use super::table::{ALL, Kind, Row};

const HEAD: &str = "\
# Metrics

<!-- Generated from src/metrics/table.rs: UPDATE_GOLDEN=1 cargo test --lib metrics -->

`GET /metrics` gives them in the text form of OpenMetrics 1.0, which Prometheus reads; a credential with the role viewer is enough.
An example of a scrape, a dashboard and alerts are in [examples/observability](../../examples/observability/README.md).

No label has a value that somebody outside can choose: paths are those of the route table, codes and reasons are fixed words, and
neither actors nor runtimes nor runs are labels.
A counter with labels is there from when it was first counted; those whose labels have two words at most are there from the start.
What cannot be known, such as the skew of the clock where no peer is heard, is absent and not 0.
Counters begin anew with each start of the node; `process_start_time_seconds` says when that was.
Numbers are counted where something happens; gauges are looked at when somebody asks.

The exposition adds `_total` to the name of a counter, `_info` to that of an info, and `_bucket`, `_sum` and `_count` to that of a
histogram.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
";

/// The whole page.
pub fn reference() -> String {
    ALL.iter().fold(HEAD.to_owned(), |mut page, row| {
        let Row { name, kind, labels, meaning } = row;
        let shown: Vec<String> = labels.iter().map(|(label, values)| format!("`{label}`: {values}")).collect();
        let (labels, unit) = (or_dash(&shown.join("; ")), or_dash(row.unit().unwrap_or_default()));
        let name = format!("{name}{}", suffix(*kind));
        page.push_str(&format!("| `{name}` | {} | {unit} | {labels} | {meaning} |\n", kind.as_str()));
        page
    })
}

/// What the exposition adds to the name where there is one line for each set of labels.
pub const fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "_total",
        Kind::Gauge | Kind::Histogram => "",
        Kind::Info => "_info",
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { text.to_owned() }
}
