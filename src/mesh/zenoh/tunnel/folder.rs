//! Where the sockets lie that Zenoh speaks over.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::mesh::zenoh::secure;

/// A folder that only this user may enter. Its path is short, because a socket's path may have 107 bytes.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn create() -> io::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("trust-mesh-{:016x}", u64::from_be_bytes(name)));
        // Fails where there is something already, whoever made it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// The place of one socket.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a folder of sockets was left behind");
        }
    }
}

/// A socket's place as Zenoh writes it.
pub(super) fn locator(path: &Path) -> String {
    format!("{}/{}", secure::PROTOCOL, path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_for_its_owner_and_goes_with_the_tunnel() {
        let folder = Folder::create().expect("a folder");
        let path = folder.0.clone();
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
