//! The steps in which an authority changes its key: the anchors name both keys from before the first certificate of the new
//! one until after the last certificate of the old one, so that no node is ever cut off.

use crate::cli::commands::identity::authority::{Authority, seconds};
use crate::cli::commands::identity::ledger::Ledger;
use crate::cli::commands::identity::list;
use crate::cli::exit::{Exit, Failure};
use crate::domain::time::Wall;

/// Makes the next key. Gives its number.
pub(super) fn prepare(authority: &mut Authority, now: Wall) -> Result<u32, Failure> {
    if let Some(next) = authority.state.next {
        return Err(conflict(format!(
            "key {next} is prepared already: bring the anchors to every node, then activate"
        )));
    }
    if let Some(previous) = authority.state.previous {
        return Err(conflict(format!("key {previous} is not retired yet: retire it first")));
    }
    // It signs that the next one follows it. Without it every node would have to accept the next one by words.
    authority.key(authority.state.active)?;
    let next = authority.state.active.saturating_add(1);
    authority.make_key(next, now)?;
    authority.state.next = Some(next);
    authority.state.count_on(now);
    authority.save()?;
    Ok(next)
}

/// Lets the next key sign. Gives its number.
pub(super) fn activate(authority: &mut Authority) -> Result<u32, Failure> {
    let Some(next) = authority.state.next else {
        return Err(conflict("no key is prepared: begin with `identity rotate prepare`".to_owned()));
    };
    authority.state.previous = Some(authority.state.active);
    authority.state.active = next;
    authority.state.next = None;
    authority.save()?;
    Ok(next)
}

/// Takes the old key out of the anchors and removes it. Gives its number.
pub(super) fn retire(authority: &mut Authority, is_forced: bool, now: Wall) -> Result<u32, Failure> {
    let Some(previous) = authority.state.previous else {
        return Err(conflict("no key is to be retired: `identity rotate activate` comes before".to_owned()));
    };
    let holding = still_holding(authority, previous, now)?;
    if !holding.is_empty() && !is_forced {
        let message = format!(
            "{} certificates of key {previous} still hold ({}): renew them first, or say --force to cut them off",
            holding.len(),
            shown(&holding)
        );
        return Err(conflict(message));
    }
    authority.state.previous = None;
    authority.state.count_on(now);
    authority.save()?;
    Ok(previous)
}

/// The ids whose newest certificate is one of this key, neither over nor banned.
fn still_holding(authority: &Authority, number: u32, now: Wall) -> Result<Vec<String>, Failure> {
    let bans = authority.bans()?;
    let mut newest = std::collections::BTreeMap::new();
    for entry in Ledger::of(&authority.folder).read()? {
        newest.insert(entry.id.clone(), entry);
    }
    let holds = newest
        .into_values()
        .filter(|it| it.generation == number && it.not_after >= seconds(now) && !list::is_banned(it, &bans));
    Ok(holds.map(|entry| entry.id).collect())
}

/// The first few of many.
fn shown(ids: &[String]) -> String {
    let first: Vec<&str> = ids.iter().take(3).map(String::as_str).collect();
    let more = if ids.len() > first.len() { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

fn conflict(message: String) -> Failure {
    Failure::new(Exit::Conflict, message)
}
