//! The command line. Data on standard output, the rest on standard error, exit codes as documented.

pub mod args;
pub mod client;
pub mod commands;
pub mod exit;
mod explanation;
mod logging;
pub mod output;
pub mod run_args;
mod runner;
pub mod token_args;

use std::ffi::OsString;

use clap::{CommandFactory, Parser};

use crate::cli::args::{Cli, Command};
use crate::cli::commands::{audit, control, identity, peers, play, policy, runs, status, token, validate};
use crate::cli::exit::{Exit, Failure};
use crate::cli::runner::wait_for;

/// Parses the arguments, runs the command, says what went wrong, and gives the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // A closed terminal cannot be told anything.
            drop(error.print());
            return exit;
        }
    };
    match execute(cli.command) {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::note(&format!("trust-runtime: {}", failure.message));
            }
            failure.exit
        }
    }
}

/// The process's environment as far as it is text: a variable that is not cannot be one of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Validate(command) => validate::run(&command),
        Command::Audit(command) => audit::run(&command),
        Command::Identity(command) => identity::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Policy(command) => policy::run(&command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "trust-runtime", &mut std::io::stdout());
            Ok(())
        }
        Command::Play(command) => wait_for(async move { play::run(&command).await }),
        Command::Status(reach) => wait_for(async move { status::run(&reach).await }),
        Command::Peers(command) => wait_for(async move { peers::run(&command).await }),
        Command::Runs(command) => wait_for(async move { runs::run(&command).await }),
        Command::Ctl(command) => wait_for(async move { control::run(&command).await }),
    }
}
