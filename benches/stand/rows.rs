//! The measured rows, how they are printed, and the arguments that say so.

use std::time::Duration;

use serde_json::{Value, json};

/// One measured line: the node, its floor, and what we aim at.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) node: f64,
    pub(crate) floor: f64,
    pub(crate) unit: &'static str,
    /// The ratio node to floor that is aimed at: at most for times and sizes, at least for rates.
    pub(crate) aim: f64,
}

/// Prints the rows as a table, or as JSON with `--json`.
pub(crate) fn print(rows: &[Row], arguments: &Arguments) {
    if arguments.has("--json") {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| json!({ "name": row.name, "ratio": row.node / row.floor, "aim": row.aim, "unit": row.unit }))
            .collect();
        println!("{}", Value::from(rows));
        return;
    }
    println!("{:<34} {:>10} {:>10} {:>7} {:>8}", "", "node", "floor", "ratio", "aim");
    for row in rows {
        let bound = if row.unit == "1/s" { ">=" } else { "<=" };
        let (node, floor, ratio) = (row.node, row.floor, row.node / row.floor);
        println!("{:<34} {node:>10.1} {floor:>10.1} {ratio:>7.2} {bound:>4} {:.2}  {}", row.name, row.aim, row.unit);
    }
}

/// What a benchmark was called with.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    pub(crate) fn given() -> Self {
        Self(std::env::args().collect())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|it| it == name)
    }

    /// What follows a name.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|it| it == name)?;
        self.0.get(at + 1).map(String::as_str)
    }
}

pub(crate) fn micros(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e6
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
