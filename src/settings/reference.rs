//! The reference of all keys as Markdown, from the table of keys. A test compares `docs/reference/settings.md` with it.

use crate::settings::environment::variable;
use crate::settings::key::{KEYS, Key};
use crate::settings::kind::Kind;

const HEAD: &str = "\
# Settings

<!-- Generated from the table of keys in src/settings/key.rs: UPDATE_GOLDEN=1 cargo test --lib settings -->

`runtime.toml` lies in the project folder and is read as a whole: an unknown key, a wrong type or an impossible value refuses
the file, and every fault is reported at once with its line.
A file has at most 256 KiB, 16 levels of nesting and 1,000 entries in each list.

*Applies* says when a change takes effect:

- **live**: at once, through the API or the file.
- **reload**: at once when the file is read again, which a running node does when it changes; not through the API.
- **restart**: at the next start.
- **file**: at the next start, and only through the file, because the key names a program.

Every key with a single value outside a list can be overridden by an environment variable: without `runtime.`, in capitals,
with `__` for each dot.
`TRUST_RUNTIME__WEB__LISTEN` stands for `runtime.web.listen`.
A token can be read from a file: `TRUST_RUNTIME__CONTROL__AUTH_TOKEN_FILE` names one for `runtime.control.auth_token`.
Such a file has at most 1,026 bytes.
In `plant` and `wan` it must be its owner's alone (mode 600), and so must `runtime.toml` where a secret is written in it; in `dev`
`play` and `validate` warn.
A variable that begins with `TRUST_RUNTIME__` and stands for no key is refused.

Some keys have no effect in this version.
`play` and `validate` name each of them that is set; `plant` and `wan` do not start with one that looks like protection.
In `wan` they also name each other site that is known by `runtime.identity.anchors` alone: anchors never go stale, a bundle does.

Relative paths are relative to the project folder; only the file that a `_FILE` variable names is looked for from the folder in
which the process was started.
";

/// The whole reference page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for key in KEYS {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if parent != section {
            section = parent;
            page.push_str(&heading(parent));
        }
        page.push_str(&row(key, name));
    }
    page
}

fn heading(parent: &str) -> String {
    let title = match parent.strip_suffix("[]") {
        Some(list) => format!("[[{list}]]"),
        None => format!("[{parent}]"),
    };
    format!("\n## `{title}`\n\n| key | type | default | applies | since | meaning |\n|---|---|---|---|---|---|\n")
}

fn row(key: &Key, name: &str) -> String {
    let default = match (key.is_required, key.default, key.kind) {
        (true, _, _) => "required".to_owned(),
        (false, "", _) => "none".to_owned(),
        (
            false,
            text,
            Kind::Bool | Kind::Int { .. } | Kind::Params | Kind::SecretMap | Kind::TextList | Kind::TextMap,
        ) => {
            format!("`{text}`")
        }
        (false, text, _) => format!("`\"{text}\"`"),
    };
    let unit = if key.unit.is_empty() { String::new() } else { format!(" {}", key.unit) };
    let secret =
        if variable(key).is_some() && key.kind.is_secret() { " Never shown; can be read from a file." } else { "" };
    let (wanted, applies, since) = (key.kind.wanted(), key.applies.as_str(), key.since);
    format!("| `{name}` | {wanted} | {default}{unit} | {applies} | {since} | {}{secret} |\n", key.doc)
}
