//! Trust that ends, by time or by a ban: in a partner's bundle, in the own certificate. Told when it ends and when it is back,
//! once each.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::id::SiteId;
use crate::domain::identity::authority::Authority;
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::view::{Category, Renewal, Settings, Severity};
use crate::engine::{Engine, Happening};

/// The longest wait before the next look, because the wall clock may be set.
const LOOK_MAX: Millis = Millis::from_secs(60);

/// What the timeline has told last.
#[derive(Debug, Clone, Default)]
pub(super) struct Lapses {
    stale: BTreeSet<SiteId>,
    /// Why the own certificate does not hold.
    against_own: Option<String>,
    next: Option<Monotonic>,
}

impl Lapses {
    /// Looks at once: what is over already is told too.
    pub(super) fn starting_at(now: Monotonic) -> Self {
        Self { next: Some(now), ..Self::default() }
    }

    /// When there may be something to tell.
    pub(super) const fn next(&self) -> Option<Monotonic> {
        self.next
    }
}

impl Engine {
    pub(super) fn tell_lapses(&mut self, now: Now) {
        let settings = Arc::clone(&self.settings);
        self.tell_bundles(now, &settings);
        self.tell_certificate(now, &settings);
        self.lapses.next = next_end(&settings, now.wall).map(|wait| now.monotonic.plus(wait.min(LOOK_MAX)));
    }

    fn tell_bundles(&mut self, now: Now, settings: &Settings) {
        for (site, standing) in &settings.partners {
            let was_fresh = !self.lapses.stale.contains(site);
            match standing.check(now.wall) {
                Err(stale) if was_fresh => {
                    self.lapses.stale.insert(site.clone());
                    let summary = format!("no write to or from {site} is carried out: {stale}");
                    self.tell_lapse(now, Severity::Warning, summary);
                }
                Ok(()) if !was_fresh => {
                    self.lapses.stale.remove(site);
                    self.tell_lapse(now, Severity::Info, format!("the trust bundle of {site} is fresh again"));
                }
                Ok(()) | Err(_) => {}
            }
        }
        // Whoever is no partner any more has nothing that could be fresh again.
        self.lapses.stale.retain(|site| settings.partners.contains_key(site));
    }

    fn tell_certificate(&mut self, now: Now, settings: &Settings) {
        let against = against_own(now.wall, settings);
        if against == self.lapses.against_own {
            return;
        }
        self.lapses.against_own.clone_from(&against);
        match against {
            Some(reason) => self.tell_lapse(now, Severity::Critical, reason),
            None => self.tell_lapse(now, Severity::Info, "the own certificate holds again".to_owned()),
        }
    }

    fn tell_lapse(&mut self, now: Now, severity: Severity, summary: String) {
        let runtime = self.me().clone();
        self.tell(now, Happening { category: Category::Security, runtime, request_id: None, summary, severity });
    }
}

/// Why peers and callers refuse the own certificate.
fn against_own(now: Wall, settings: &Settings) -> Option<String> {
    if settings.certificate.is_some_and(|own| own.renewal(now) == Renewal::Overdue) {
        return Some("the own certificate has ended: peers and callers refuse it until it is renewed".to_owned());
    }
    why_own_does_not_hold(settings)
}

/// That the own certificate does not hold, whenever it ends, and why.
pub fn why_own_does_not_hold(settings: &Settings) -> Option<String> {
    let refusal = settings.authority.as_ref().and_then(Authority::against_own)?;
    Some(format!("the own certificate does not hold by the anchors and bans in force: {refusal}"))
}

/// How long until the first of all ends that are still to come.
fn next_end(settings: &Settings, now: Wall) -> Option<Millis> {
    let bundles = settings.partners.values().filter_map(|standing| standing.fresh_until);
    let ends = bundles.chain(settings.certificate.map(|own| own.until));
    let first = ends.filter(|end| now <= *end).min()?;
    // The last moment still counts, so the look is one behind it.
    Some(Millis(first.0.saturating_sub(now.0).wrapping_div(1_000_000).saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::identity::bundle::{Known, Standing};
    use crate::domain::identity::{Actor, Fingerprint, Role};
    use crate::domain::preflight::Asker;
    use crate::engine::effect::Effects;
    use crate::engine::input::{Input, ReplyId, Request};
    use crate::engine::tests::{Zeros, settings};
    use crate::engine::view::OwnCertificate;

    fn at(second: u64) -> Now {
        let wall = Wall::from_millis(1_800_000_000_000).plus(Millis::from_secs(second));
        Now { wall, monotonic: Monotonic::default().plus(Millis::from_secs(second)) }
    }

    /// A partner whose bundle is fresh until then, and a certificate that holds until then.
    fn trusting(bundle: Option<u64>, certificate: u64) -> Arc<Settings> {
        let known = Some(Known { sequence: 1, confirmed: at(0).wall });
        let standing = Standing { known, fresh_until: bundle.map(|end| at(end).wall) };
        let partners = BTreeMap::from([("t".parse().expect("legal"), standing)]);
        let certificate =
            Some(OwnCertificate { key: crate::engine::tests::ME, from: at(0).wall, until: at(certificate).wall });
        Arc::new(Settings { partners, certificate, ..settings() })
    }

    fn engine(settings: Arc<Settings>) -> Engine {
        Engine::start(settings, Fingerprint([1; 32]), Vec::new(), at(0), &mut Zeros).expect("facts").0
    }

    fn handle(engine: &mut Engine, second: u64, input: Input) {
        engine.handle(at(second), &mut Zeros, input, &mut Effects::default());
    }

    fn reload(engine: &mut Engine, second: u64, settings: Arc<Settings>) {
        let actor = Actor {
            trust_domain: "trust".parse().expect("legal"),
            site: "s".parse().expect("legal"),
            principal: "local".parse().expect("legal"),
        };
        let asker = Asker { actor, role: Role::Admin, is_verified: false };
        let request = Request::Reload { asker, settings, detail: "bundles".to_owned() };
        handle(engine, second, Input::Request { reply: ReplyId(0), request });
    }

    /// The rows of security, each with its severity.
    fn rows(engine: &Engine) -> Vec<(Severity, String)> {
        let view = engine.view();
        let rows = view.timeline.iter().filter(|row| row.category == Category::Security);
        rows.map(|row| (row.severity, row.summary.clone())).collect()
    }

    #[test]
    fn a_bundle_that_goes_stale_is_told_once_and_so_is_a_fresh_one() {
        let mut engine = engine(trusting(Some(100), 9_000));
        handle(&mut engine, 100, Input::Timer);
        assert_eq!(rows(&engine), []);
        for second in [101, 102, 200] {
            handle(&mut engine, second, Input::Timer);
            let rows = rows(&engine);
            assert!(rows.len() == 1 && rows[0].0 == Severity::Warning, "{second}: {rows:?}");
            assert!(rows[0].1.contains("no write to or from t") && rows[0].1.contains("101 s ago"), "{rows:?}");
        }
        // Stale for another reason is stale still.
        reload(&mut engine, 201, trusting(None, 9_000));
        assert_eq!(rows(&engine).len(), 1);
        reload(&mut engine, 202, trusting(Some(300), 9_000));
        handle(&mut engine, 203, Input::Timer);
        let told = rows(&engine);
        assert_eq!(told.last(), Some(&(Severity::Info, "the trust bundle of t is fresh again".to_owned())));
        assert_eq!(told.len(), 2);
        handle(&mut engine, 301, Input::Timer);
        assert_eq!(rows(&engine).len(), 3, "and again");
        // Whoever is no partner any more is not fresh again; as a partner anew, it is told anew.
        reload(&mut engine, 302, Arc::new(Settings { partners: BTreeMap::new(), ..(*trusting(None, 9_000)).clone() }));
        assert_eq!(rows(&engine).len(), 3);
        reload(&mut engine, 303, trusting(None, 9_000));
        assert_eq!(rows(&engine).len(), 4);
    }

    #[test]
    fn a_certificate_that_ends_is_told_once_and_so_is_its_renewal() {
        let mut engine = engine(trusting(Some(9_000), 100));
        for (second, count) in [(100, 0), (101, 1), (102, 1)] {
            handle(&mut engine, second, Input::Timer);
            assert_eq!(rows(&engine).len(), count, "{second}");
        }
        assert!(rows(&engine)[0].0 == Severity::Critical && rows(&engine)[0].1.contains("certificate has ended"));
        reload(&mut engine, 103, trusting(Some(9_000), 500));
        let told = rows(&engine);
        assert_eq!(told.get(1), Some(&(Severity::Info, "the own certificate holds again".to_owned())));
        assert_eq!(told.len(), 2);
    }

    /// Also one that has not ended, such as one that is banned.
    #[test]
    fn a_certificate_that_is_refused_is_told_once_and_so_is_one_that_holds() {
        let refused = Some(crate::engine::tests::authority().asked_of_own(&[], at(9_000).wall));
        let held = trusting(Some(9_000), 9_000);
        let mut engine = engine(Arc::clone(&held));
        reload(&mut engine, 1, Arc::new(Settings { authority: refused.clone(), ..(*held).clone() }));
        for second in [2, 3] {
            handle(&mut engine, second, Input::Timer);
            let rows = rows(&engine);
            assert!(rows.len() == 1 && rows[0].0 == Severity::Critical, "{second}: {rows:?}");
            assert!(rows[0].1.contains("does not hold by the anchors and bans in force"), "{rows:?}");
        }
        // One that has ended besides is told as that.
        reload(&mut engine, 4, Arc::new(Settings { authority: refused, ..(*trusting(Some(9_000), 3)).clone() }));
        handle(&mut engine, 5, Input::Timer);
        assert!(rows(&engine).len() == 2 && rows(&engine)[1].1.contains("has ended"), "{:?}", rows(&engine));
        reload(&mut engine, 6, held);
        handle(&mut engine, 7, Input::Timer);
        let told = rows(&engine);
        assert_eq!(told.get(2), Some(&(Severity::Info, "the own certificate holds again".to_owned())));
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn a_node_that_hears_nothing_wakes_for_each_end_and_otherwise_once_a_minute() {
        let mut engine = engine(trusting(Some(100), 140));
        let mut next = |second| {
            handle(&mut engine, second, Input::Timer);
            engine.next_deadline().map(|due| due.since(at(second).monotonic).0)
        };
        assert_eq!(next(10), Some(60_000));
        assert_eq!(next(70), Some(30_001));
        assert_eq!(next(101), Some(39_001));
        assert_eq!(next(141), None, "nothing more ends by itself");
    }

    #[test]
    fn what_was_told_is_not_told_again_after_a_failed_commit() {
        let mut engine = engine(trusting(Some(100), 100));
        handle(&mut engine, 101, Input::Timer);
        assert_eq!(rows(&engine).len(), 2);
        let mut engine = engine.rebuilt(Vec::new(), at(102)).expect("facts");
        handle(&mut engine, 103, Input::Timer);
        assert_eq!(rows(&engine).len(), 2);
    }
}
