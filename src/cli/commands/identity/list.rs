//! `identity list`: the authority's keys, what they have issued, and what needs somebody's attention.

use serde_json::json;
use time::format_description::well_known::Rfc3339;

use crate::cli::commands::identity::authority::{Authority, seconds};
use crate::cli::commands::identity::certificate::moment;
use crate::cli::commands::identity::ledger::{Entry, Ledger};
use crate::cli::exit::Failure;
use crate::cli::output;
use crate::domain::identity::renewal::Stage;
use crate::domain::identity::{Ban, Bans, Fingerprint};
use crate::domain::time::{Millis, Wall};

/// Shows everything.
pub(super) fn run(authority: &Authority, as_json: bool, now: Wall) -> Result<(), Failure> {
    let bans = authority.bans()?;
    let entries = Ledger::of(&authority.folder).read()?;
    let keys = keys(authority, now)?;
    if as_json {
        let issued: Result<Vec<_>, Failure> = entries.iter().map(|entry| body(entry, &bans, now)).collect();
        let keys: Vec<_> = keys
            .iter()
            .map(|[number, role, until, state, certificate]| {
                let key = number.parse::<u32>().unwrap_or_default();
                json!({ "key": key, "role": role, "not_after": until, "state": state, "certificate": certificate })
            })
            .collect();
        return output::json(&json!({
            "site": authority.site.as_str(),
            "trust_domain": authority.naming.trust_domain.as_str(),
            "keys": keys,
            "issued": issued?,
            "bans": bans.len(),
        }));
    }
    output::table(["KEY", "ROLE", "UNTIL", "STATE", "CERTIFICATE"], keys.into_iter().collect())?;
    output::line("")?;
    let rows: Result<Vec<_>, Failure> = entries
        .iter()
        .map(|entry| {
            let until = shown(Wall(0).plus(Millis::from_secs(entry.not_after)))?;
            let state = state(entry, &bans, now).to_owned();
            Ok([entry.id.clone(), entry.generation.to_string(), until, state, entry.certificate.clone()])
        })
        .collect();
    output::table(["ID", "KEY", "UNTIL", "STATE", "CERTIFICATE"], rows?)
}

fn keys(authority: &Authority, now: Wall) -> Result<Vec<[String; 5]>, Failure> {
    let state = &authority.state;
    let row = |number: u32| {
        let signer = authority.signer(number)?;
        let role = if number == state.active {
            "active"
        } else if state.next == Some(number) {
            "next"
        } else {
            "previous"
        };
        let until = shown(signer.not_after)?;
        Ok([
            number.to_string(),
            role.to_owned(),
            until,
            by_end((seconds(signer.not_before), seconds(signer.not_after)), now).to_owned(),
            signer.certificate.to_string(),
        ])
    };
    state.anchors().into_iter().map(row).collect()
}

fn body(entry: &Entry, bans: &Bans, now: Wall) -> Result<serde_json::Value, Failure> {
    Ok(json!({
        "id": entry.id,
        "serial": entry.serial,
        "ca_key": entry.generation,
        "issued": shown(Wall(0).plus(Millis::from_secs(entry.issued)))?,
        "not_after": shown(Wall(0).plus(Millis::from_secs(entry.not_after)))?,
        "state": state(entry, bans, now),
        "certificate": entry.certificate,
        "key": entry.key,
    }))
}

/// `banned`, `expired`, `expiring` or `valid`.
fn state(entry: &Entry, bans: &Bans, now: Wall) -> &'static str {
    if is_banned(entry, bans) { "banned" } else { by_end((entry.issued, entry.not_after), now) }
}

/// Whether the list shuts out this certificate, its key or its id.
pub(super) fn is_banned(entry: &Entry, bans: &Bans) -> bool {
    let certificate = entry.certificate.parse::<Fingerprint>().map(Ban::Certificate);
    let key = entry.key.parse::<Fingerprint>().map(Ban::Key);
    let id = entry.id.parse().map(|id| Ban::of_id(&id));
    certificate.is_ok_and(|ban| bans.has(&ban))
        || key.is_ok_and(|ban| bans.has(&ban))
        || id.is_ok_and(|ban| bans.has(&ban))
}

/// The stage of a certificate that holds from this second until the end of that one.
fn by_end((from, until): (u64, u64), now: Wall) -> &'static str {
    let at = |second| Wall(0).plus(Millis::from_secs(second));
    Stage::of(at(from), at(until), at(seconds(now))).word()
}

/// A moment as people and programs read it.
pub(super) fn shown(at: Wall) -> Result<String, Failure> {
    moment(at)?.format(&Rfc3339).map_err(|error| Failure::failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_marked_by_the_second() {
        let now = Wall::from_millis(1_800_000_000_999);
        let day = 24 * 3_600;
        // Of a life of thirty days.
        let at = |left: i64| {
            let until = seconds(now).saturating_add_signed(left);
            by_end((until - 30 * day, until), now)
        };
        for (left, wanted) in [(-1, "expired"), (0, "expiring"), (864_000, "expiring"), (864_001, "valid")] {
            assert_eq!(at(left), wanted, "{left}");
        }
    }
}
