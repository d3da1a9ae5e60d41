//! What the target demands of an envelope before anything happens: pure, asked by the read path and the write path alike.

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain::code::Code;
use crate::domain::envelope::Envelope;
use crate::domain::identity::TrustState;
use crate::domain::offer::Known;
use crate::domain::policy::{Denial, Side, granted_role};
use crate::domain::preflight::{self, Asker, Case, Profile};
use crate::domain::time::Wall;
use crate::engine::input::Received;
use crate::engine::view::{BUNDLE_RULE, ClockState, Peer, View, stale_reason};

/// Whether this runtime acts on the envelope now. Gives the rule that allows it.
///
/// Signature and delegation are already verified. The order is that of `reference` section 4: audience, origin, window,
/// this runtime's boot, trust, then policy.
pub fn judge(view: &View, received: &Received, now: Wall) -> Result<Cow<'static, str>, Denial> {
    identify(view, received, now)?;
    received.envelope.check_window(now)?;
    decide(view, received, now)
}

/// Whether a read that this runtime has let in, and that has waited since for what it asks, is let in still: the same but for
/// the window, in which it came.
pub fn judge_again(view: &View, received: &Received, now: Wall) -> Result<Cow<'static, str>, Denial> {
    identify(view, received, now)?;
    decide(view, received, now)
}

fn decide(view: &View, received: &Received, now: Wall) -> Result<Cow<'static, str>, Denial> {
    let envelope = &received.envelope;
    check_own_boot(view, envelope)?;
    check_origin(view, received, now)?;
    check_actor(view, envelope)?;
    let asker = Asker {
        actor: envelope.actor.clone(),
        role: granted_role(&view.settings.grants, &envelope.actor, envelope.role, &view.me().site),
        is_verified: envelope.actor_verified,
    };
    let case = Case {
        asker: &asker,
        action: &envelope.action,
        target: &envelope.target,
        origin: &envelope.origin,
        policy: &view.settings.policy,
        profile: view.settings.profile,
        offer: Known::Own(&view.settings.offer),
        now,
    };
    preflight::authorize(case, Side::Inbound)
}

/// Whether the envelope is for this runtime and comes from whom it names: all that an answer from memory demands.
///
/// What was carried out stays carried out, whatever window, policy or trust say by now.
pub fn identify(view: &View, received: &Received, now: Wall) -> Result<(), Denial> {
    let Received { signer, envelope, .. } = received;
    check_audience(view, envelope, now)?;
    if signer.runtime() != &envelope.origin {
        let reason = format!("signed by {}, not by its origin {}", signer.runtime(), envelope.origin);
        return Err(Denial::at_target(Code::UntrustedIdentity, "origin", reason));
    }
    if envelope.actor.site != envelope.origin.site || envelope.actor.trust_domain != view.settings.trust_domain {
        let reason = format!("{} cannot vouch for {}", envelope.origin, envelope.actor);
        return Err(Denial::at_target(Code::PermissionDenied, "actor_site", reason));
    }
    pinned(view, received, now).map(|_peer| ())
}

/// In plant and wan nobody acts whom no credential vouched for, whatever profile the origin runs in; and a ban on an actor
/// counts here, where it is known, though the origin may not have heard of it.
fn check_actor(view: &View, envelope: &Envelope) -> Result<(), Denial> {
    let actor = &envelope.actor;
    if view.settings.profile != Profile::Dev && !envelope.actor_verified {
        let reason = format!("no credential vouched for {actor} at {}", envelope.origin);
        return Err(Denial::at_target(Code::PermissionDenied, "actor_verified", reason));
    }
    if view.is_banned(actor) {
        return Err(Denial::at_target(Code::PermissionDenied, "ban", format!("{actor} is banned")));
    }
    Ok(())
}

fn pinned<'a>(view: &'a View, received: &Received, now: Wall) -> Result<&'a Peer, Denial> {
    let origin = &received.envelope.origin;
    let is_its_key = |peer: &&Arc<Peer>| peer.speaks_by(&received.signer, now);
    view.peers.get(origin).filter(is_its_key).map(Arc::as_ref).ok_or_else(|| {
        let reason = format!("the key of {origin} is not the one pinned here");
        Denial::at_target(Code::UntrustedIdentity, "pin", reason)
    })
}

fn check_audience(view: &View, envelope: &Envelope, now: Wall) -> Result<(), Denial> {
    if envelope.target == *view.me() && view.is_own_key(envelope.target_key, now) {
        return Ok(());
    }
    let reason = format!("meant for {} with the key {}", envelope.target, envelope.target_key);
    Err(Denial::at_target(Code::UntrustedIdentity, "audience", reason))
}

/// What an earlier boot refused is not remembered: a refusal may cost no disk write, and a full disk takes none. So a write
/// counts in the one boot that it was written to, and what was carried out there is answered from its receipt before this.
/// A later boot than this is no better: the write would wait for it.
fn check_own_boot(view: &View, envelope: &Envelope) -> Result<(), Denial> {
    if envelope.action.kind().is_read() || envelope.target_boot == Some(view.boot) {
        return Ok(());
    }
    let (me, now) = (view.me(), view.boot);
    let reason = match envelope.target_boot {
        Some(boot) => format!("written to boot {boot} of {me}, which is now in boot {now}"),
        None => format!("it names no boot of {me}: its origin runs a version of before that was asked"),
    };
    Err(Denial::at_target(Code::Replayed, "target_boot", reason))
}

fn check_origin(view: &View, received: &Received, now: Wall) -> Result<(), Denial> {
    let origin = &received.envelope.origin;
    let peer = pinned(view, received, now)?;
    if received.envelope.boot < peer.boot {
        let reason =
            format!("signed in boot {} of {origin}, which is now in boot {}", received.envelope.boot, peer.boot);
        return Err(Denial::at_target(Code::Replayed, "boot", reason));
    }
    if view.settings.profile != Profile::Dev && received.signer.vouched.is_none() {
        // Also where its key was pinned while this runtime was in `dev`.
        return Err(Denial::at_target(
            Code::UntrustedIdentity,
            "trust",
            format!("no certificate vouches for {origin}"),
        ));
    }
    // It may have waited since it was checked: a ban counts for what is carried out after it, not for what arrives after it.
    if !view.settings.vouches_still(&received.signer, now) {
        let reason = format!("the certificate that vouched for {origin} when its request came counts no more");
        return Err(Denial::at_target(Code::UntrustedIdentity, "trust", reason));
    }
    if received.envelope.action.kind().is_read() {
        return Ok(());
    }
    if view.clock == ClockState::Uncertain && view.settings.profile != Profile::Dev {
        let reason = "the target's clock is uncertain, so it grants nothing new";
        return Err(Denial::at_target(Code::ClockUncertain, "clock", reason));
    }
    if let Some(stale) = view.stale(&origin.site, now) {
        return Err(Denial::at_target(Code::StaleData, BUNDLE_RULE, stale_reason(&origin.site, stale)));
    }
    let is_dev = view.settings.profile == Profile::Dev;
    let is_accepted = match peer.trust {
        // Whom a person approved in `dev` has to prove itself in the other profiles.
        TrustState::Trusted => is_dev || received.signer.vouched.is_some(),
        TrustState::Untrusted => is_dev && view.settings.is_mesh_on_loopback,
    };
    if is_accepted {
        return Ok(());
    }
    let reason = format!("{origin} is not approved here, and this mesh is not on loopback");
    Err(Denial::at_target(Code::UntrustedIdentity, "trust", reason))
}
