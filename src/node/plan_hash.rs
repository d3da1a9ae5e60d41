//! Names a plan for ten minutes, so that what is dispatched is what was preflighted (DESIGN, *Preflight*).
//!
//! The hash is a MAC of this boot over who, what, to whom, what was decided by which rule, and what the targets published. No
//! request id and no time stand in it: the minute it was minted in is tried out when it is checked.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::audit::Hash;
use crate::domain::code::Code;
use crate::domain::envelope::request_digest;
use crate::domain::id::{Segment, SiteId};
use crate::domain::policy::Decision;
use crate::domain::preflight::{Plan, Row};
use crate::domain::time::{Millis, Wall};
use crate::engine::Entropy;
use crate::engine::view::View;
use crate::handle::Request;
use crate::node::clock::SystemEntropy;

/// A plan hash is good for the minute it was minted in and the nine after it, so at most ten.
const MINUTES_GOOD: u64 = 10;
const MINUTE: Millis = Millis::from_secs(60);

/// The key of one boot.
pub(super) struct PlanKey([u8; 32]);

impl std::fmt::Debug for PlanKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PlanKey")
    }
}

impl PlanKey {
    pub(super) fn random() -> Self {
        let mut key = [0; 32];
        SystemEntropy.fill(&mut key);
        Self(key)
    }

    pub(super) fn mint(&self, view: &View, request: &Request, plan: &Plan, now: Wall) -> String {
        let mac = self.mac(&content(view, request, plan), minute_of(now));
        Hash(mac.finalize().into_bytes().into()).to_string()
    }

    pub(super) fn is_current(&self, hash: &str, view: &View, request: &Request, plan: &Plan, now: Wall) -> bool {
        let Ok(given) = crate::domain::identity::parse_hex32(hash) else { return false };
        let content = content(view, request, plan);
        let newest = minute_of(now);
        (0..MINUTES_GOOD).any(|age| self.mac(&content, newest.saturating_sub(age)).verify_slice(&given).is_ok())
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    fn mac(&self, content: &[u8], minute: u64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of 32 bytes");
        mac.update(&minute.to_be_bytes());
        mac.update(content);
        mac
    }
}

/// Marks a row about whose target the same is to be said as about the one before. Most plans are long runs of such rows, and
/// hashing them out would cost more than deciding them.
const SAME: u8 = 1;
const OTHER: u8 = 0;

/// Everything the hash stands for but the minute. Every field is preceded by its length, so that no two plans share bytes.
fn content(view: &View, request: &Request, plan: &Plan) -> Vec<u8> {
    // About what a row takes that says the same as the one before.
    let mut bytes = Vec::with_capacity(plan.rows.len().saturating_mul(24).saturating_add(512));
    bytes.extend_from_slice(&view.settings.policy_hash.0);
    put(&mut bytes, request.asker.role.as_str().as_bytes());
    // Actor, action and parameters are the same for every target: one digest names them all.
    put(&mut bytes, &request_digest(&request.asker.actor, &request.action, view.me()).0);
    write_rows(&mut bytes, plan.rows.iter().map(|row| (&row.target.name, said(view, row))));
    bytes
}

fn write_rows<'a>(bytes: &mut Vec<u8>, rows: impl Iterator<Item = (&'a Segment, Said<'a>)>) {
    let mut before = None;
    for (name, said) in rows {
        put(bytes, name.as_str().as_bytes());
        if before == Some(said) {
            bytes.push(SAME);
        } else {
            bytes.push(OTHER);
            said.write(bytes);
        }
        before = Some(said);
    }
}

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
    bytes.extend_from_slice(field);
}

/// All that a plan says about a target, but its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said<'a> {
    site: &'a SiteId,
    /// The code of a denial; absent where it is allowed.
    code: Option<Code>,
    rule: &'a str,
    published: Published<'a>,
}

/// What a target published of itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Published<'a> {
    /// It is this runtime: the revision of its configuration.
    Own(u64),
    /// Its rules and the revision of its configuration.
    Peer(&'a Hash, u64),
    /// Nothing is known.
    Nothing,
}

fn said<'a>(view: &'a View, row: &'a Row) -> Said<'a> {
    let (code, rule) = match &row.decision {
        Decision::Allow { rule } => (None, rule),
        Decision::Deny(denial) => (Some(denial.code), &denial.rule),
    };
    let identity = view.peers.get(&row.target).and_then(|peer| peer.identity.as_ref());
    let published = match identity {
        Some(identity) => Published::Peer(&identity.policy_hash, identity.config_revision),
        None if row.target == *view.me() => Published::Own(view.overlay.revision),
        None => Published::Nothing,
    };
    Said { site: &row.target.site, code, rule, published }
}

impl Said<'_> {
    fn write(self, bytes: &mut Vec<u8>) {
        put(bytes, self.site.as_str().as_bytes());
        put(bytes, self.code.map_or("allow", Code::as_str).as_bytes());
        put(bytes, self.rule.as_bytes());
        match self.published {
            Published::Own(revision) => put(bytes, &revision.to_be_bytes()),
            Published::Peer(policy, revision) => {
                put(bytes, &policy.0);
                put(bytes, &revision.to_be_bytes());
            }
            Published::Nothing => put(bytes, b"unknown"),
        }
    }
}

fn minute_of(now: Wall) -> u64 {
    now.0.checked_div(MINUTE.as_nanos()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_plans_share_bytes() {
        let names: [Segment; 2] = ["a", "b"].map(|name| name.parse().expect("legal"));
        let sites: [SiteId; 2] = ["s", "t"].map(|site| site.parse().expect("legal"));
        let hashes = [Hash([1; 32]), Hash([2; 32])];
        let first = Said { site: &sites[0], code: None, rule: "r", published: Published::Nothing };
        let said = [
            first,
            Said { site: &sites[1], ..first },
            Said { code: Some(Code::Timeout), ..first },
            Said { rule: "q", ..first },
            Said { published: Published::Own(0), ..first },
            Said { published: Published::Own(1), ..first },
            Said { published: Published::Peer(&hashes[0], 0), ..first },
            Said { published: Published::Peer(&hashes[0], 1), ..first },
            Said { published: Published::Peer(&hashes[1], 0), ..first },
        ];
        let rows: Vec<_> = names.iter().flat_map(|name| said.map(|said| (name, said))).collect();
        let mut plans: Vec<Vec<(&Segment, Said<'_>)>> = vec![Vec::new()];
        for length in 0..3 {
            let longest = plans.iter().filter(|plan| plan.len() == length).cloned().collect::<Vec<_>>();
            plans.extend(longest.iter().flat_map(|plan| rows.iter().map(|row| [plan.as_slice(), &[*row]].concat())));
        }
        let bytes = |plan: &Vec<_>| {
            let mut bytes = Vec::new();
            write_rows(&mut bytes, plan.iter().copied());
            bytes
        };
        assert_eq!(plans.iter().map(bytes).collect::<BTreeSet<_>>().len(), 1 + 18 + 18 * 18 + 18 * 18 * 18);
    }
}
