//! A repository of nothing but scripts and what a test puts beside them: a script takes the folder above its own for the root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Verdict, run};

pub(crate) struct Root(TempDir);

impl Root {
    /// With a copy of every script.
    pub(crate) fn new() -> Self {
        let root = Self(tempfile::tempdir().expect("a folder"));
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        fs::create_dir(root.path("scripts")).expect("made");
        for entry in fs::read_dir(scripts).expect("scripts") {
            let path = entry.expect("readable").path();
            if path.extension() == Some(OsStr::new("sh")) {
                fs::copy(&path, root.path("scripts").join(path.file_name().expect("a name"))).expect("copied");
            }
        }
        root
    }

    pub(crate) fn path(&self, at: &str) -> PathBuf {
        self.0.path().join(at)
    }

    /// Puts a file where it stands in a repository.
    pub(crate) fn write(&self, at: &str, text: &str) {
        let path = self.path(at);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn gate(&self, name: &str, arguments: &[&str], variables: &[(&str, &Path)]) -> Verdict {
        run(&self.path("scripts").join(name), arguments, variables)
    }
}
