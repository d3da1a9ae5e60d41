//! The one table of settings that are read and have no effect yet. Whoever gives one its function deletes its line.
//!
//! Nobody should believe in a protection that is not there: `plant` and `wan` do not start with one. What merely does
//! nothing yet is a warning in every profile.

use crate::settings::concern::Concern;
use crate::settings::raw::Node;
use crate::settings::table::Table;

/// What somebody who sets it would count on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// That something is done.
    Function,
    /// That something is kept out.
    Protection,
}

/// One key, or one section or list with all of its keys.
#[derive(Debug)]
struct Inert {
    path: &'static str,
    promise: Promise,
    /// What holds instead.
    instead: &'static str,
}

const fn protection(path: &'static str, instead: &'static str) -> Inert {
    Inert { path, promise: Promise::Protection, instead }
}

const fn function(path: &'static str, instead: &'static str) -> Inert {
    Inert { path, promise: Promise::Function, instead }
}

const INERT: &[Inert] = &[
    protection("runtime.mesh.auth_token", "mesh links ask for no secret, runtime.mesh.tls proves who links"),
    protection("runtime.time.source", "the wall clock is believed whether it is synchronised or not"),
    function("runtime.discovery.advertise", "a node that scouts also answers, runtime.discovery.enabled ends both"),
    function("runtime.mesh.zenohd_version", "no peer's version is compared with it"),
    function("runtime.mesh.publish", "no signal is published"),
    function("runtime.mesh.subscribe", "no signal is taken"),
    function("runtime.cloud.links.transports", "the mesh alone links runtimes"),
];

/// What of the table says something else than its default, in the order of the table.
pub(crate) fn concerns(root: &Node) -> impl Iterator<Item = Concern> {
    INERT.iter().filter_map(|inert| concern(inert, root))
}

fn concern(inert: &Inert, root: &Node) -> Option<Concern> {
    let (parent, name) = inert.path.rsplit_once('.')?;
    let table = Table::of(root, parent);
    table.is_changed(name).then(|| Concern {
        setting: inert.path,
        at: table.list(name).first().map_or_else(|| table.at(name), |entry| entry.at.clone()),
        reason: format!("has no effect in this version: {}", inert.instead),
        is_about_protection: inert.promise == Promise::Protection,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::KEYS;

    #[test]
    fn every_line_of_the_table_names_a_key_or_a_section() {
        for inert in INERT {
            let below = [format!("{}.", inert.path), format!("{}[].", inert.path)];
            let is_known = |path: &str| path == inert.path || below.iter().any(|it| path.starts_with(it));
            assert!(KEYS.iter().any(|key| is_known(key.path)), "{}", inert.path);
        }
    }
}
