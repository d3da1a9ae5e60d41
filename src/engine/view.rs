//! The read model: an immutable snapshot from which every pure question is answered, in parallel, by any thread.
//!
//! Freshness is not stored, it is computed from the snapshot and the present moment, so that a snapshot can be old and its
//! answers still right.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::domain::action::Action;
use crate::domain::audit::Hash;
use crate::domain::audit::witness::{Break, Head};
use crate::domain::code::Code;
use crate::domain::config::Overlay;
use crate::domain::envelope::{Envelope, Health, KEY_ROLLOVER, Status};
use crate::domain::id::{RequestId, RuntimeId, SiteId};
use crate::domain::identity::authority::Authority;
use crate::domain::identity::bundle::{Bundle, Stale, Standing};
use crate::domain::identity::renewal::Stage;
use crate::domain::identity::{Actor, Fingerprint, Role, Subject, SubjectName, TrustDomain, TrustState};
use crate::domain::offer::{Known, Offer};
use crate::domain::policy::{Decision, Denial, Pattern, Policy, granted_role};
use crate::domain::preflight::{self, Asker, Case, Plan, Profile, Row, Standing as TargetStanding};
use crate::domain::projection::{Edge, Lifecycle, Limits, Link, Presence};
use crate::domain::run::RunId;
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::record::{Countersigned, NotContinued, OpenRun};
use crate::engine::skew::Skew;
use crate::engine::word::{Identity, Signer};

/// What a denial names as its rule when a partner's bundle is too old.
pub(super) const BUNDLE_RULE: &str = "bundle";

/// The same words at either end.
pub(super) fn stale_reason(site: &SiteId, stale: Stale) -> String {
    format!("site {site} is not written to or from: {stale}")
}

const MILLIS_PER_DAY: u64 = 24 * 3_600 * 1_000;

/// Newest rows kept of the timeline (DESIGN, *Scale*).
pub const TIMELINE_MAX: usize = 200;

/// When this runtime's certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnCertificate {
    /// SHA-256 of its public key: the name by which others address this runtime.
    pub key: Fingerprint,
    /// From when.
    pub from: Wall,
    /// Until when: the first end of all certificates on its path.
    pub until: Wall,
}

/// How urgent it is to renew a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It has ended: peers and callers refuse it.
    Overdue,
    /// Less than a tenth of its life is left.
    Due,
    /// There is time.
    NotDue,
}

impl OwnCertificate {
    /// How urgent it is now.
    pub fn renewal(&self, now: Wall) -> Renewal {
        let life = self.until.0.saturating_sub(self.from.0);
        let left = self.until.0.saturating_sub(now.0);
        if self.until < now {
            Renewal::Overdue
        } else if left < life.wrapping_div(10) {
            Renewal::Due
        } else {
            Renewal::NotDue
        }
    }

    /// How much of its life is over.
    pub fn stage(&self, now: Wall) -> Stage {
        Stage::of(self.from, self.until, now)
    }

    /// Whole days left.
    pub fn days_left(&self, now: Wall) -> u64 {
        self.until.as_millis().saturating_sub(now.as_millis()).wrapping_div(MILLIS_PER_DAY)
    }
}

/// What the engine is set up with: this runtime's own settings, already valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This runtime.
    pub me: RuntimeId,
    /// The trust domain of its ids.
    pub trust_domain: TrustDomain,
    /// Its profile.
    pub profile: Profile,
    /// Whether the mesh listens on loopback only, which is what makes writes from untrusted peers acceptable.
    pub is_mesh_on_loopback: bool,
    /// Whether its own listeners are protected by TLS.
    pub is_secure: bool,
    /// Its rules.
    pub policy: Policy,
    /// The hash of its rules as they stand in the file.
    pub policy_hash: Hash,
    /// Whose certificates count here; absent where none do.
    pub authority: Option<Authority>,
    /// The own certificate; absent where the node speaks by a key of its own.
    pub certificate: Option<OwnCertificate>,
    /// How far the bundles of partners may be relied on; a site that is not here is known by its anchors alone.
    pub partners: BTreeMap<SiteId, Standing>,
    /// Partners the file of whose bundle cannot be read, and why.
    pub damaged: BTreeMap<SiteId, String>,
    /// The own site's bundle, as it is served to partners; absent where it is not.
    pub bundle: Option<Arc<Bundle>>,
    /// Roles granted here to actors, named as `<site>/<principal>`.
    pub grants: Vec<(Pattern, Role)>,
    /// What it can be asked to do, from the file.
    pub offer: Offer,
    /// Measures of freshness from the file.
    pub limits: Limits,
    /// How long receipts are kept, from the file.
    pub receipts_kept: Millis,
    /// The live settings as the file and the environment give them, by key.
    pub file_values: BTreeMap<String, crate::domain::config::Value>,
    /// The machine's name, as far as it is known.
    pub host: Option<String>,
    /// The program's version.
    pub version: String,
}

impl Settings {
    /// Those of a runtime in `dev` for which nothing is set: no rules, no certificate, no partners, nothing to be asked for.
    pub fn unset(me: RuntimeId, trust_domain: TrustDomain) -> Self {
        Self {
            me,
            trust_domain,
            profile: Profile::Dev,
            is_mesh_on_loopback: true,
            is_secure: false,
            policy: Policy::default(),
            policy_hash: Hash::of(b""),
            authority: None,
            certificate: None,
            partners: BTreeMap::new(),
            damaged: BTreeMap::new(),
            bundle: None,
            grants: Vec::new(),
            limits: Limits::default(),
            offer: Offer::default(),
            receipts_kept: Millis::from_hours(24),
            file_values: BTreeMap::new(),
            host: None,
            version: String::new(),
        }
    }

    /// Whether what proved a signer when it was checked counts by the trust of now. Whom no certificate proved, none can fail.
    pub fn vouches_still(&self, signer: &Signer, now: Wall) -> bool {
        match (&signer.vouched, &self.authority) {
            (None, _) => true,
            (Some(vouched), Some(authority)) => authority.still_holds(vouched, now),
            (Some(_), None) => false,
        }
    }
}

/// A key that another one has followed while its owner went on running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetiredKey {
    /// Which.
    pub key: Fingerprint,
    /// Until when what was under way with it is taken.
    pub until: Wall,
}

impl RetiredKey {
    /// One that is followed at this moment.
    pub fn at(key: Fingerprint, now: Wall) -> Self {
        Self { key, until: now.plus(KEY_ROLLOVER) }
    }

    /// Whether this is the key, and what was under way with it is still taken.
    pub fn is(&self, key: Fingerprint, now: Wall) -> bool {
        self.key == key && now <= self.until
    }
}

/// One peer as this runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The identity key pinned for it.
    pub pinned: Fingerprint,
    /// The key before it, if a certificate proved the change.
    pub retired: Option<RetiredKey>,
    /// How far it is trusted.
    pub trust: TrustState,
    /// Its present boot counter, the highest it has signed.
    pub boot: u64,
    /// What was heard of it in that boot.
    pub presence: Presence,
    /// When the last signed word came, by the wall clock.
    pub heard_at: Option<Wall>,
    /// Under what it signs at present.
    pub signer: Option<Signer>,
    /// Its newest identity document.
    pub identity: Option<Arc<Identity>>,
    /// The sequence of its newest observation.
    pub sequence: u64,
    /// Its own judgement in that observation.
    pub health: Option<Health>,
    /// The revision of its configuration in that observation.
    pub config_revision: Option<u64>,
    /// Its clock against the own one, by that observation.
    pub skew: Option<Skew>,
    /// How far its pointers to runs are, in that observation.
    pub runs_head: Option<u64>,
    /// Its measured links.
    pub edges: Arc<Vec<Edge>>,
    /// Our measured link to it.
    pub link: Link,
    /// The state that the timeline last told.
    pub told: Lifecycle,
}

impl Peer {
    /// Whether this is the key that it has, or the one before it for as long as what was signed by it may be under way. That
    /// one has to be proved by its certificate now, so that a ban on it counts at once.
    pub fn speaks_by(&self, signer: &Signer, now: Wall) -> bool {
        let is_retired = || self.retired.is_some_and(|retired| retired.is(signer.identity, now));
        self.pinned == signer.identity || (signer.vouched.is_some() && is_retired())
    }

    /// Whether its newest identity document is missing: it never came, or its configuration has changed since. It is
    /// published when something in it changes, and may be lost then.
    pub fn wants_identity(&self) -> bool {
        let known = self.identity.as_ref().map(|identity| identity.config_revision);
        known.is_none() || self.config_revision.is_some_and(|heard| known != Some(heard))
    }
}

/// How far the wall clock is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// Steady.
    Certain,
    /// Went back below the mark, or jumped ahead by more than a day.
    Uncertain,
}

/// How bad a row of the timeline is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody must look now.
    Critical,
    /// For the record.
    Info,
    /// Somebody should look.
    Warning,
}

/// What a row of the timeline is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// An action was carried out.
    Audit,
    /// A runtime came, went or changed its state.
    Communication,
    /// A configuration changed.
    Config,
    /// An identity or a clock is in doubt.
    Security,
}

/// One row of the timeline: one transition, not one poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts the rows of this boot.
    pub number: u64,
    /// When.
    pub at: Wall,
    /// What about.
    pub category: Category,
    /// About whom.
    pub runtime: RuntimeId,
    /// In which request, if any.
    pub request_id: Option<RequestId>,
    /// One sentence.
    pub summary: String,
    /// How bad.
    pub severity: Severity,
}

/// What a plan rests on: it holds as long as every part of it is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// This runtime's own rules.
    pub policy_hash: Hash,
    /// One per target, in the plan's order.
    pub rows: Vec<BasisRow>,
}

/// What a plan's decision about one target rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasisRow {
    /// Whom.
    pub target: RuntimeId,
    /// The code of a denial; absent where it is allowed.
    pub code: Option<Code>,
    /// The rule that decided.
    pub rule: String,
    /// The hash of the rules that the target published; absent for the own runtime and where nothing is known.
    pub policy_hash: Option<Hash>,
    /// The revision of the target's configuration, as far as it is known.
    pub config_revision: Option<u64>,
}

/// What peers and this runtime say to the heads of each other's logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witnessing {
    /// The newest head of each peer's log that was countersigned here.
    pub heads: BTreeMap<RuntimeId, Head>,
    /// What each peer said to the newest head of the own log.
    pub countersigned: BTreeMap<RuntimeId, Countersigned>,
}

impl Witnessing {
    /// Who says that the own log does not continue what was seen of it.
    pub fn contradicted_by(&self) -> impl Iterator<Item = (&RuntimeId, &NotContinued)> {
        self.countersigned.iter().filter_map(|(witness, word)| Some((witness, word.refused.as_ref()?)))
    }

    /// Whose log does not continue what was seen of it here.
    pub fn broken(&self) -> impl Iterator<Item = (&RuntimeId, Break)> {
        self.heads.iter().filter_map(|(runtime, head)| Some((runtime, head.broken?)))
    }
}

/// Peers by name. A copy shares all that did not change, so that a word of one peer costs the same among two thousand.
pub type Peers = RedBlackTreeMapSync<RuntimeId, Arc<Peer>>;

/// An immutable snapshot of what the engine believes.
#[derive(Debug, Clone)]
pub struct View {
    /// Rises with every change of anything below.
    pub generation: u64,
    /// The settings it runs with.
    pub settings: Arc<Settings>,
    /// Measures of freshness that hold now, overlay included.
    pub limits: Limits,
    /// The name of this runtime's identity key.
    pub identity: Fingerprint,
    /// The keys that it had before in this boot, the newest first.
    pub retired: Arc<Vec<RetiredKey>>,
    /// This runtime's boot counter.
    pub boot: u64,
    /// When this boot began.
    pub started: Now,
    /// Every known peer.
    pub peers: Peers,
    /// What peers and this runtime say to the heads of each other's logs.
    pub witnessing: Arc<Witnessing>,
    /// The configuration applied at run time.
    pub overlay: Arc<Overlay>,
    /// The runs that go on here.
    pub runs: Arc<BTreeMap<RunId, Arc<OpenRun>>>,
    /// Newest rows last.
    pub timeline: Arc<VecDeque<Event>>,
    /// How far the wall clock is believed.
    pub clock: ClockState,
    /// Words and envelopes that were refused, by reason.
    pub refused: Arc<BTreeMap<&'static str, u64>>,
    /// Whether the store takes no writes at the moment.
    pub is_read_only: bool,
}

impl View {
    /// This runtime.
    pub fn me(&self) -> &RuntimeId {
        &self.settings.me
    }

    /// Whether a runtime itself signed this. A certificate proves it by whatever key, because it may have taken another one since
    /// it was asked; without one the pinned key has to.
    pub fn is_by(&self, runtime: &RuntimeId, signer: &Signer) -> bool {
        let is_pinned = || self.peers.get(runtime).is_some_and(|peer| peer.pinned == signer.identity);
        signer.runtime() == runtime && (signer.vouched.is_some() || is_pinned())
    }

    /// Whether an envelope for this key is meant for this runtime: the key of now, or one before it that the origin could not
    /// know to be over.
    pub fn is_own_key(&self, key: Fingerprint, now: Wall) -> bool {
        key == self.identity || self.retired.iter().any(|retired| retired.is(key, now))
    }

    /// What is known of a target; absent when it was never heard of.
    pub fn standing(&self, target: &RuntimeId, now: Monotonic) -> Option<TargetStanding> {
        if target == self.me() {
            return Some(TargetStanding { lifecycle: Lifecycle::Online, is_secure: self.settings.is_secure });
        }
        let peer = self.peers.get(target)?;
        let is_secure = peer.identity.as_ref().is_some_and(|identity| identity.is_secure);
        Some(TargetStanding { lifecycle: peer.presence.lifecycle(&self.limits, now), is_secure })
    }

    /// The origin's decision for every target, in order.
    pub fn plan(&self, asker: &Asker, action: &Action, targets: &[RuntimeId], now: Now) -> Plan {
        let is_banned = self.is_banned(&asker.actor);
        let is_read = action.kind().is_read();
        // Here nobody may be more than the grants of this runtime say; at other targets theirs do.
        let here = targets.contains(self.me()).then(|| self.asker_here(asker));
        let asker_at = |target: &RuntimeId| here.as_ref().filter(|_| target == self.me()).unwrap_or(asker);
        let row = |target: &RuntimeId| {
            let standing = self.standing(target, now.monotonic);
            let decision = if is_banned {
                let reason = format!("{} is banned", asker.actor);
                Decision::Deny(Denial::at_origin(Code::PermissionDenied, "ban", reason))
            } else if let Some(stale) = self.stale(&target.site, now.wall).filter(|_| !is_read) {
                Decision::Deny(Denial::at_origin(Code::StaleData, BUNDLE_RULE, stale_reason(&target.site, stale)))
            } else {
                preflight::decide(self.case(asker_at(target), action, target, now), standing)
            };
            Row { target: target.clone(), decision, standing }
        };
        Plan { rows: targets.iter().map(row).collect() }
    }

    /// The asker with the lesser of its credential's role and what is granted here.
    pub fn asker_here(&self, asker: &Asker) -> Asker {
        let role = granted_role(&self.settings.grants, &asker.actor, asker.role, &self.me().site);
        Asker { role, ..asker.clone() }
    }

    /// Whether the actor's id is shut out here, whatever credential it comes with.
    pub fn is_banned(&self, actor: &Actor) -> bool {
        let Some(authority) = &self.settings.authority else { return false };
        let trust = authority.trust();
        if trust.bans.is_empty() {
            return false;
        }
        let subject = Subject { site: actor.site.clone(), name: SubjectName::Actor(actor.principal.clone()) };
        trust.naming.id_of(&subject).is_ok_and(|id| trust.bans.on_id(&id).is_some())
    }

    /// Why no write may come from this site or go to it: its bundle is too old to know that its authorities still count.
    pub fn stale(&self, site: &SiteId, now: Wall) -> Option<Stale> {
        self.settings.partners.get(site)?.check(now).err()
    }

    /// What a plan made from this snapshot rests on.
    pub fn basis(&self, plan: &Plan) -> Basis {
        let row = |row: &Row| {
            let (code, rule) = match &row.decision {
                Decision::Allow { rule } => (None, rule.as_ref()),
                Decision::Deny(denial) => (Some(denial.code), denial.rule.as_ref()),
            };
            let published = self.peers.get(&row.target).and_then(|peer| peer.identity.as_ref());
            let own = (row.target == *self.me()).then_some(self.overlay.revision);
            BasisRow {
                target: row.target.clone(),
                code,
                rule: rule.to_owned(),
                policy_hash: published.map(|identity| identity.policy_hash),
                config_revision: published.map(|identity| identity.config_revision).or(own),
            }
        };
        Basis { policy_hash: self.settings.policy_hash, rows: plan.rows.iter().map(row).collect() }
    }

    /// What is known of the commands of a runtime.
    fn offer_of(&self, target: &RuntimeId) -> Known<'_> {
        if target == self.me() {
            return Known::Own(&self.settings.offer);
        }
        let identity = self.peers.get(target).and_then(|peer| peer.identity.as_ref());
        identity.map_or(Known::Nothing, |identity| Known::Said(&identity.capabilities))
    }

    fn case<'a>(&'a self, asker: &'a Asker, action: &'a Action, target: &'a RuntimeId, now: Now) -> Case<'a> {
        let Settings { policy, profile, me, .. } = &*self.settings;
        Case {
            asker,
            action,
            target,
            origin: me,
            policy,
            profile: *profile,
            offer: self.offer_of(target),
            now: now.wall,
        }
    }

    /// The envelope that asks `target` for this; `None` for a runtime without a pinned key.
    pub fn envelope(
        &self,
        asker: &Asker,
        request_id: &RequestId,
        action: &Action,
        target: &RuntimeId,
        now: Wall,
    ) -> Option<Envelope> {
        let peer = self.peers.get(target)?;
        Some(Envelope {
            target: target.clone(),
            target_key: peer.pinned,
            target_boot: (!action.kind().is_read()).then_some(peer.boot),
            origin: self.me().clone(),
            actor: asker.actor.clone(),
            role: asker.role,
            actor_verified: asker.is_verified,
            request_id: request_id.clone(),
            action: action.clone(),
            issued: now,
            expires: now.plus(action.kind().window()),
            boot: self.boot,
            sequence: 0,
            policy_hash: self.settings.policy_hash,
        })
    }

    /// This runtime's own judgement of itself.
    pub fn health(&self) -> Health {
        let is_contradicted = self.witnessing.contradicted_by().next().is_some();
        let is_refused = self.settings.authority.as_ref().and_then(Authority::against_own).is_some();
        match (self.is_read_only || is_contradicted || is_refused, self.clock) {
            (true, _) | (_, ClockState::Uncertain) => Health::Degraded,
            (false, ClockState::Certain) => Health::Healthy,
        }
    }

    /// This runtime's status.
    pub fn status(&self, now: Now) -> Status {
        let is_online = |peer: &Arc<Peer>| peer.presence.lifecycle(&self.limits, now.monotonic) == Lifecycle::Online;
        let online = self.peers.values().filter(|peer| is_online(peer)).count();
        Status {
            runtime: self.me().clone(),
            version: self.settings.version.clone(),
            boot: self.boot,
            uptime: now.monotonic.since(self.started.monotonic),
            health: self.health(),
            config_revision: self.overlay.revision,
            peers_online: u64::try_from(online).unwrap_or(u64::MAX),
        }
    }

    /// This runtime's measured links.
    pub fn own_edges(&self) -> Vec<Edge> {
        self.peers.iter().filter_map(|(runtime, peer)| peer.link.edge(runtime.clone())).collect()
    }
}
