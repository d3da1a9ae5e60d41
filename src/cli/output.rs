//! What people and scripts see: data on standard output, the rest on standard error.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value as Json;

use crate::cli::exit::Failure;

/// Prints a line of data. A reader that has gone away (`| head`) ends the command without noise.
pub fn line(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
    }
}

/// Prints a line for people beside the data.
pub fn note(text: &str) {
    // Where standard error is closed, nobody wants to read it.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints JSON, indented.
pub fn json(value: &Json) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?)
}

/// Prints rows under a header.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    line(&table.trim_fmt())
}

/// A field of a JSON object as people read it; `-` when it is absent.
pub fn field(object: &Json, name: &str) -> String {
    match object.get(name) {
        None | Some(Json::Null) => "-".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
