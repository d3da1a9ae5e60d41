//! Processes of a benchmark: nodes of our own binary, and floors. Each is ended when dropped.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Outcome;

/// A node of our own binary.
pub(crate) struct Node {
    pub(crate) process: Child,
    ready: Value,
}

impl Node {
    /// Starts a node with these settings in a folder of its own.
    pub(crate) fn start(folder: &Path, name: &str, settings: &str) -> Outcome<Self> {
        let project = folder.join(name);
        std::fs::create_dir_all(&project)?;
        std::fs::write(project.join("runtime.toml"), settings)?;
        // It may hold a token.
        std::fs::set_permissions(project.join("runtime.toml"), std::fs::Permissions::from_mode(0o600))?;
        let ready = project.join("ready.json");
        // One from an earlier start in the same folder would be believed.
        drop(std::fs::remove_file(&ready));
        let process = Command::new(env!("CARGO_BIN_EXE_trust-runtime"))
            .args(["play", "--project"])
            .arg(&project)
            .arg("--ready-file")
            .arg(&ready)
            .stderr(Stdio::null())
            .spawn()?;
        let text = wait_until("the node is ready", || std::fs::read_to_string(&ready).ok())?;
        Ok(Self { process, ready: serde_json::from_str(&text)? })
    }

    /// Where one of its listeners is, the first of several.
    pub(crate) fn address(&self, listener: &str) -> String {
        let address = &self.ready[listener];
        address.get(0).unwrap_or(address).as_str().unwrap_or_default().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// A floor in a process of its own: this program with other arguments. Its first line is its address.
pub(crate) struct Floor {
    pub(crate) process: Child,
    pub(crate) address: String,
}

impl Floor {
    pub(crate) fn start(arguments: &[&str]) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        let output = process.stdout.take().ok_or("the floor has an output")?;
        BufReader::new(output).read_line(&mut address)?;
        Ok(Self { process, address: address.trim().to_owned() })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn end(process: &mut Child) {
    drop(process.kill());
    drop(process.wait());
}

pub(crate) fn wait_until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> Outcome<T> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match found() {
            Some(value) => return Ok(value),
            None if deadline < Instant::now() => return Err(format!("waited 20 s: {what}").into()),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
