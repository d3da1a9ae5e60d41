//! Other sites: what rests on how fresh their bundles are, and how much room they get.

use std::collections::BTreeMap;
use std::sync::Arc;

use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::dsse::PublicKey;
use trust_runtime::domain::envelope::{Delegation, Envelope, Voucher};
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::identity::authority::Vouched;
use trust_runtime::domain::identity::bundle::{Known, Standing};
use trust_runtime::domain::identity::{Fingerprint, Role, TrustState};
use trust_runtime::domain::policy::Stage;
use trust_runtime::domain::preflight::{Asker, Profile};
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::time::{Millis, Now, Wall};
use trust_runtime::engine::effect::Effects;
use trust_runtime::engine::input::{Input, Received};
use trust_runtime::engine::judge::judge;
use trust_runtime::engine::view::View;
use trust_runtime::engine::word::Signer;
use trust_runtime::engine::{Engine, Entropy};

use crate::sealed::{ME, fingerprint};
use crate::world::{self, now, parsed, policy};

const PARTNER: &str = "site-b/origin";

fn until(fresh_until: Wall) -> Standing {
    Standing { known: Some(Known { sequence: 5, confirmed: now().wall }), fresh_until: Some(fresh_until) }
}

/// A runtime that allows and accepts a ping between the two sites, and knows of this bundle of the other one.
fn view(partner: Option<Standing>) -> View {
    let rules = "allow_write = [{ action = \"cmd_invoke/ping\", actor = \"site-a/*\", target = \"site-b/origin\" }]\n\
                 accept_write = [{ action = \"cmd_invoke/ping\", actor = \"site-b/bob\" }]";
    let rules = toml::from_str(rules).expect("rules");
    let mut settings = world::settings(ME, Profile::Wan, policy("site-a", &rules));
    settings.partners = partner.map(|standing| (parsed("site-b"), standing)).into_iter().collect();
    let mut presence = Presence::default();
    presence.hear(now().monotonic);
    let mut peer = world::peer(fingerprint("origin"), presence);
    peer.trust = TrustState::Trusted;
    peer.identity = Some(Arc::new(identity()));
    View {
        peers: [(parsed(PARTNER), Arc::new(peer))].into_iter().collect(),
        ..world::view(settings, fingerprint("target"))
    }
}

fn identity() -> trust_runtime::engine::word::Identity {
    trust_runtime::engine::word::Identity {
        runtime: parsed(PARTNER),
        boot: 1,
        at: now().wall,
        api_version: "1.0".to_owned(),
        version: "0.1.0".to_owned(),
        capabilities: Vec::new(),
        host: None,
        web: None,
        is_secure: true,
        policy_hash: Hash::of(b""),
        config_revision: 0,
        config_etag: Hash::of(b""),
    }
}

fn ping() -> Action {
    Action::cmd_invoke("ping", BTreeMap::new()).expect("a ping")
}

fn at_origin(view: &View, action: &Action, now: Now) -> Result<(), (Code, String)> {
    let asker = Asker { actor: parsed("spiffe://trust/site-a/alice"), role: Role::Admin, is_verified: true };
    let plan = view.plan(&asker, action, &[parsed(PARTNER)], now);
    plan.first_denial().map_or(Ok(()), |denial| {
        assert_eq!(denial.stage, Stage::Origin);
        Err((denial.code, denial.rule.to_string()))
    })
}

fn at_target(view: &View, action: &Action, now: Wall) -> Result<(), (Code, String)> {
    let envelope = Envelope {
        target: parsed(ME),
        target_key: fingerprint("target"),
        target_boot: (!action.kind().is_read()).then_some(world::BOOT),
        origin: parsed(PARTNER),
        actor: parsed("spiffe://trust/site-b/bob"),
        role: Role::Engineer,
        actor_verified: true,
        request_id: parsed("request-1"),
        expires: now.plus(action.kind().window()),
        action: action.clone(),
        issued: now,
        boot: 5,
        sequence: 1,
        policy_hash: Hash::of(b"a policy"),
    };
    let signer = signer(&parsed(PARTNER), fingerprint("origin"), true);
    let received = Received { signer, envelope, digest: Hash::of(b"an envelope") };
    judge(view, &received, now).map(drop).map_err(|denial| {
        assert_eq!(denial.stage, Stage::Target);
        (denial.code, denial.rule.to_string())
    })
}

fn signer(runtime: &RuntimeId, key: Fingerprint, is_proven: bool) -> Signer {
    let delegation = Delegation {
        runtime: runtime.clone(),
        voucher: Voucher::Certificate(key),
        envelope_key: PublicKey::new([7; 32]),
        not_before: now().wall,
        not_after: now().wall.plus(Millis::from_hours(1)),
    };
    let vouched = is_proven
        .then(|| Vouched { until: now().wall.plus(Millis::from_hours(1)), authority: world::authority().name() });
    Signer { delegation: Arc::new(delegation), delegation_hash: Hash::of(key.0.as_slice()), identity: key, vouched }
}

/// Whatever the rules say: neither end rests a write on authorities of which it does not know that they still count.
#[test]
fn a_stale_bundle_stops_writes_at_both_ends_and_reads_go_on() {
    let fresh = now().wall;
    let later = Now { wall: fresh.plus(Millis(1)), ..now() };
    let stale = || Err((Code::StaleData, "bundle".to_owned()));
    for (what, standing, at, wanted) in [
        ("known by its anchors alone", None, now(), Ok(())),
        ("fresh", Some(until(fresh)), now(), Ok(())),
        ("over since a millisecond", Some(until(fresh)), later, stale()),
        ("never confirmed", Some(Standing::default()), now(), stale()),
    ] {
        let view = view(standing);
        assert_eq!(at_origin(&view, &ping(), at), wanted, "origin, {what}");
        assert_eq!(at_target(&view, &ping(), at.wall), wanted, "target, {what}");
        assert_eq!(at_origin(&view, &Action::StatusRead, at), Ok(()), "origin reads, {what}");
        assert_eq!(at_target(&view, &Action::StatusRead, at.wall), Ok(()), "target is read, {what}");
    }
    let mut others = view(Some(Standing::default()));
    let partners = [(parsed("site-c"), Standing::default())];
    Arc::make_mut(&mut others.settings).partners = partners.into();
    assert_eq!(at_origin(&others, &ping(), now()), Ok(()), "another partner's bundle says nothing of this one");
    assert_eq!(at_target(&others, &ping(), now().wall), Ok(()));
}

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// How many peers of a site a new engine takes, when so many speak.
struct Crowd(Engine);

impl Crowd {
    fn new(profile: Profile) -> Self {
        let settings = Arc::new(world::settings(ME, profile, trust_runtime::domain::policy::Policy::default()));
        Self(Engine::start(settings, fingerprint("target"), [], now(), &mut Zeros).expect("starts").0)
    }

    fn comes(&mut self, site: &str, count: usize, is_proven: bool) -> usize {
        for number in 0..count {
            let runtime = parsed(&format!("{site}/r{number}"));
            let key = Fingerprint::of_der(format!("{site}/r{number}").as_bytes());
            let signer = signer(&runtime, key, is_proven);
            self.0.handle(now(), &mut Zeros, Input::Met { signer, boot: 1 }, &mut Effects::default());
        }
        self.0.view().peers.keys().filter(|runtime| runtime.site.as_str() == site).count()
    }
}

#[test]
fn no_site_uses_up_the_room_of_another() {
    let mut crowd = Crowd::new(Profile::Plant);
    for site in ["site-b", "site-c", "site-d", "site-e"] {
        assert_eq!(crowd.comes(site, 260, true), 250, "{site}");
    }
    assert_eq!(crowd.comes("site-f", 1, true), 0, "all other sites together have their share");
    assert_eq!(crowd.comes("site-a", 1_100, true), 1_000, "and the own site has the rest");
}

#[test]
fn first_contacts_without_proof_leave_room_for_those_with_proof() {
    let mut crowd = Crowd::new(Profile::Dev);
    assert_eq!(crowd.comes("site-a", 600, false), 500);
    assert_eq!(crowd.comes("site-b", 1, true), 1);
    let before = crowd.0.view().peers.size();
    let proven = signer(&parsed("site-a/proven"), Fingerprint::of_der(b"proven"), true);
    crowd.0.handle(now(), &mut Zeros, Input::Met { signer: proven, boot: 1 }, &mut Effects::default());
    assert_eq!(crowd.0.view().peers.size(), before + 1);
}
