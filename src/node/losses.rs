//! What a start puts on record of audit records that a checkpoint speaks of and that are gone.

use crate::domain::audit::{Draft, Outcome};
use crate::domain::identity::SpiffeId;
use crate::domain::time::Now;
use crate::engine::view::Settings;
use crate::engine::{Entropy, audit_id};

/// One record for each chain that has lost some, in the chain of writes, which has not.
pub(super) fn drafts(losses: Vec<String>, settings: &Settings, now: Now, entropy: &mut dyn Entropy) -> Vec<Draft> {
    let draft = |detail| Draft {
        audit_id: audit_id(now, entropy),
        at: now.wall,
        actor: SpiffeId::of_runtime(&settings.trust_domain, &settings.me).to_string(),
        actor_verified: true,
        origin: settings.me.clone(),
        action: "records_lost".to_owned(),
        target: settings.me.clone(),
        request_id: None,
        outcome: Outcome::Failed,
        code: None,
        detail,
        policy_hash: settings.policy_hash,
    };
    losses.into_iter().map(draft).collect()
}
