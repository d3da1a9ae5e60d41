//! One check of the workload's health: a program that ends with 0 while all is well.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::text::shown_in_part;
use crate::workload::{Exit, Launcher, Lines, Output, Pending, Process, Program};

/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 200;

/// Longest line that is looked at.
const LINE_BYTES_MAX: usize = 1024;

/// Runs the check. One that takes too long is ended, with all that it started.
pub(super) fn check(
    launcher: Arc<dyn Launcher>,
    program: Program,
    within: Duration,
) -> Pending<'static, Result<(), String>> {
    Box::pin(async move {
        match tokio::time::timeout(within, ask(launcher, program)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(format!("the check took more than {} ms", within.as_millis())),
        }
    })
}

async fn ask(launcher: Arc<dyn Launcher>, program: Program) -> Result<(), String> {
    let started = launcher.start(program, Vec::new()).await.map_err(|error| error.to_string())?;
    let Process { stdout, stderr, ended, control: _control, pid: _ } = started;
    let (exit, out, err) = tokio::join!(ended, last_line(stdout), last_line(stderr));
    if exit == Exit::Code(0) {
        return Ok(());
    }
    let said = err.or(out).map(|line| format!(", saying: {}", shown_in_part(&line, REASON_CHARS_MAX)));
    Err(format!("the check {exit}{}", said.unwrap_or_default()))
}

async fn last_line(stream: Output) -> Option<String> {
    let mut lines = Lines::within(stream, LINE_BYTES_MAX);
    let mut last = None;
    while let Ok(Some(line)) = lines.next().await {
        last = Some(line.text);
    }
    last
}
