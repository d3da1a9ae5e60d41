//! The project folder: what the first start writes, and what it leaves alone.

use std::fs;
use std::path::Path;

use super::NO_ENVIRONMENT;
use crate::settings::{FILE_NAME, Profile, ScaffoldError, legal_name, load, scaffold};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("readable");
    let mut names: Vec<_> =
        entries.map(|it| it.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_empty_folder_becomes_a_project_that_loads() {
    let base = temporary();
    let project = base.path().join("line 1/Runtime Ä");
    let done = scaffold(&project).expect("made");
    assert_eq!(done.project_made.as_deref(), Some(project.as_path()));
    assert_eq!(done.settings_written, Some(project.join(FILE_NAME)));
    assert_eq!(done.state_made, Some(project.join("state")));
    assert_eq!(names(&project), [FILE_NAME, "state"]);
    let settings = load(&project, NO_ENVIRONMENT).expect("valid");
    assert_eq!((settings.runtime_id.name.as_str(), settings.profile), (done.name.as_str(), Profile::Dev));
    assert_eq!(done.name, "Runtime");
    assert_eq!(project.join(&settings.store.path), project.join("state"));
    assert_eq!(settings.web.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.mesh.listen.to_string(), "127.0.0.1:5200");
}

#[test]
fn the_second_start_touches_nothing() {
    let project = temporary();
    fs::write(project.path().join(FILE_NAME), "mine").expect("written");
    let done = scaffold(project.path()).expect("nothing to do");
    assert_eq!((done.project_made, done.settings_written, done.state_made), (None, None, None));
    assert_eq!(names(project.path()), [FILE_NAME]);
    assert_eq!(fs::read_to_string(project.path().join(FILE_NAME)).expect("readable"), "mine");
}

#[test]
fn other_files_and_a_state_folder_stay_as_they_are() {
    let project = temporary();
    fs::write(project.path().join("notes.txt"), "mine").expect("written");
    fs::create_dir(project.path().join("state")).expect("made");
    fs::write(project.path().join("state/control.db"), "mine").expect("written");
    let done = scaffold(project.path()).expect("made");
    assert_eq!((done.project_made, done.state_made), (None, None));
    assert_eq!(names(project.path()), ["notes.txt", FILE_NAME, "state"]);
    assert_eq!(names(&project.path().join("state")), ["control.db"]);
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_enter_what_was_made() {
    use std::os::unix::fs::PermissionsExt;
    let project = temporary();
    scaffold(project.path()).expect("made");
    let mode = |name: &str| fs::metadata(project.path().join(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode(FILE_NAME)), (0o700, 0o600));
}

#[cfg(unix)]
#[test]
fn a_link_to_nowhere_is_not_written_through() {
    let project = temporary();
    let elsewhere = project.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, project.path().join(FILE_NAME)).expect("linked");
    assert_eq!(scaffold(project.path()).expect("nothing to do").settings_written, None);
    assert!(!elsewhere.exists());
}

#[test]
fn a_file_in_the_folders_place_is_named() {
    let base = temporary();
    let project = base.path().join("p");
    fs::write(&project, "").expect("written");
    assert!(matches!(scaffold(&project), Err(ScaffoldError::NotAFolder(path)) if path == project));
    let error = scaffold(&project.join("below")).expect_err("no folder").to_string();
    assert!(error.contains("cannot") && error.contains("below"), "{error}");
    // Also stands for a folder that cannot be written, which a test that runs as root cannot make.
    let taken = base.path().join("q");
    fs::create_dir(&taken).expect("made");
    fs::write(taken.join("state"), "").expect("written");
    let error = scaffold(&taken).expect_err("no state folder").to_string();
    assert!(error.contains("cannot make the state folder"), "{error}");
    assert_eq!(names(&taken), ["state"]);
}

#[test]
fn any_folder_name_becomes_a_legal_name() {
    for (folder, name) in [
        ("/x/runtime-a", "runtime-a"),
        ("/x/line 1", "line-1"),
        ("/x/...", "runtime"),
        ("/x/.hidden", "hidden"),
        ("/x/ÄÖ", "runtime"),
        ("/x/a$b", "a-b"),
        ("/", "runtime"),
        ("", "runtime"),
    ] {
        assert_eq!(legal_name(Path::new(folder)), name, "{folder}");
    }
    let long = legal_name(Path::new(&format!("/x/{}", "a".repeat(200))));
    assert_eq!(long.len(), 64);
}
