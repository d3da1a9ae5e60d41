//! The `trust-runtime` program: arguments in, exit code out. Everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Guards of programs are this binary too, and need nothing of what follows.
    if let Some(code) = trust_runtime::workload::guard::stage(std::env::args_os()) {
        return code;
    }
    trust_runtime::tls::install_provider();
    trust_runtime::cli::run(std::env::args_os()).into()
}
