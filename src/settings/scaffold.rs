//! The first files of a project folder: a commented runtime.toml for `dev`, and the state folder.
//!
//! Nothing that is already there is touched. A crash leaves either no runtime.toml or a whole one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::domain::id::SEGMENT_BYTES_MAX;
use crate::settings::FILE_NAME;

/// The name of a runtime whose folder's name has no legal character.
const FALLBACK_NAME: &str = "runtime";

/// The state folder that the written settings name.
const STATE_FOLDER: &str = "state";

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaffold {
    /// The runtime's name in the written file; the folder's legal name where nothing was written.
    pub name: String,
    /// The project folder, if it was made.
    pub project_made: Option<PathBuf>,
    /// runtime.toml, if it was written; `None` means that there was one.
    pub settings_written: Option<PathBuf>,
    /// The state folder, if it was made.
    pub state_made: Option<PathBuf>,
}

/// Why the project folder could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that is not a folder has the project's name.
    #[error("{0}: wanted a folder, got something else")]
    NotAFolder(PathBuf),
    /// The operating system refused.
    #[error("{path}: cannot {what}: {source}")]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

fn refused<'a>(path: &'a Path, what: &'static str) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Refused { path: path.to_owned(), what, source }
}

/// Sets up a project folder that has no runtime.toml.
pub fn scaffold(project: &Path) -> Result<Scaffold, Error> {
    let project_made = make_project(project)?;
    let name = legal_name(project);
    let settings = project.join(FILE_NAME);
    if is_there(&settings)? {
        return Ok(Scaffold { name, project_made, settings_written: None, state_made: None });
    }
    let state = project.join(STATE_FOLDER);
    let state_made = make_private_folder(&state).map_err(refused(&state, "make the state folder"))?.then_some(state);
    let settings_written = write_new(&settings, &content(&name))?.then_some(settings);
    Ok(Scaffold { name, project_made, settings_written, state_made })
}

fn make_project(project: &Path) -> Result<Option<PathBuf>, Error> {
    match fs::metadata(project) {
        Ok(found) if found.is_dir() => Ok(None),
        Ok(_) => Err(Error::NotAFolder(project.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(project).map_err(refused(project, "make the project folder"))?;
            Ok(Some(project.to_owned()))
        }
        Err(error) => Err(refused(project, "look at the project folder")(error)),
    }
}

/// Whether the name is taken; a link to nowhere takes it too.
fn is_there(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused(path, "look at the file")(error)),
    }
}

/// Makes a folder that only its owner can enter; `false` when there is one.
fn make_private_folder(path: &Path) -> io::Result<bool> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file that must not be there yet; `false` when somebody else was faster.
fn write_new(path: &Path, text: &str) -> Result<bool, Error> {
    let temporary = path.with_file_name(format!(".{FILE_NAME}.{}", std::process::id()));
    // Left over from a crash of a process with the same number.
    drop(fs::remove_file(&temporary));
    let written = write_durably(&temporary, text).and_then(|()| publish(&temporary, path));
    if !matches!(written, Ok(Published::Renamed)) {
        drop(fs::remove_file(&temporary));
    }
    let published = written.map_err(refused(path, "write the settings"))?;
    if let Some(folder) = path.parent() {
        // The name is durable only with its folder; some file systems cannot, and the file is only a convenience.
        drop(File::open(folder).and_then(|folder| folder.sync_all()));
    }
    Ok(published != Published::Taken)
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // A token is likely to be added to the file.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[derive(Debug, PartialEq, Eq)]
enum Published {
    Linked,
    Renamed,
    Taken,
}

/// Gives the file its name. A link never replaces, which a rename would; file systems without links get the rename.
fn publish(temporary: &Path, path: &Path) -> io::Result<Published> {
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(Published::Linked),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Published::Taken),
        Err(_) if fs::symlink_metadata(path).is_ok() => Ok(Published::Taken),
        Err(_) => fs::rename(temporary, path).map(|()| Published::Renamed),
    }
}

/// The folder's name as one legal segment.
pub fn legal_name(project: &Path) -> String {
    let absolute = fs::canonicalize(project);
    let path = absolute.as_deref().unwrap_or(project);
    let folder = path.file_name().unwrap_or_default().to_string_lossy();
    let is_legal = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
    let mapped: String = folder.chars().map(|it| if is_legal(it) { it } else { '-' }).collect();
    let trimmed: String = mapped.trim_matches(['-', '.']).chars().take(SEGMENT_BYTES_MAX).collect();
    let name = trimmed.trim_end_matches(['-', '.']);
    if name.is_empty() { FALLBACK_NAME.to_owned() } else { name.to_owned() }
}

fn content(name: &str) -> String {
    TEMPLATE.replace("{name}", name)
}

const TEMPLATE: &str = include_str!("scaffold.toml");
