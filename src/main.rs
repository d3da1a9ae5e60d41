//! The `trust-runtime` program: arguments in, exit code out. Everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    trust_runtime::tls::install_provider();
    trust_runtime::cli::run(std::env::args_os()).into()
}
