//! Names a plan for ten minutes, so that what is dispatched is what was preflighted (DESIGN, *Preflight*).
//!
//! The hash is a MAC of this boot over who, what, to whom, what was decided by which rule, and what the targets published. No
//! request id and no time stand in it: the minute it was minted in is tried out when it is checked.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::envelope::request_digest;
use crate::domain::policy::Decision;
use crate::domain::preflight::Plan;
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
        hex(&self.mac(view, request, plan, minute_of(now)).finalize().into_bytes())
    }

    pub(super) fn is_current(&self, hash: &str, view: &View, request: &Request, plan: &Plan, now: Wall) -> bool {
        let Ok(given) = crate::domain::identity::parse_hex32(hash) else { return false };
        let newest = minute_of(now);
        (0..MINUTES_GOOD).any(|age| {
            let minute = newest.saturating_sub(age);
            self.mac(view, request, plan, minute).verify_slice(&given).is_ok()
        })
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    fn mac(&self, view: &View, request: &Request, plan: &Plan, minute: u64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of 32 bytes");
        mac.update(&minute.to_be_bytes());
        mac.update(&view.settings.policy_hash.0);
        let mut field = |text: &str| {
            mac.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(text.as_bytes());
        };
        field(request.asker.role.as_str());
        // Actor, action and parameters are the same for every target: one digest names them all.
        field(&request_digest(&request.asker.actor, &request.action, view.me()).to_string());
        for row in &plan.rows {
            field(row.target.site.as_str());
            field(row.target.name.as_str());
            match &row.decision {
                Decision::Allow { rule } => {
                    field("allow");
                    field(rule);
                }
                Decision::Deny(denial) => {
                    field(denial.code.as_str());
                    field(&denial.rule);
                }
            }
            let published = view.peers.get(&row.target).and_then(|peer| peer.identity.as_ref());
            match published {
                Some(identity) => field(&format!("{} {}", identity.policy_hash, identity.config_revision)),
                None if row.target == *view.me() => field(&view.overlay.revision.to_string()),
                None => field("unknown"),
            }
        }
        mac
    }
}

fn minute_of(now: Wall) -> u64 {
    now.0.checked_div(MINUTE.as_nanos()).unwrap_or(0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
