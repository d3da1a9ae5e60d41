//! An envelope that waits to be carried out, with the bytes that it came in: what proved its sender when it came may not count
//! any more when its turn has come.

use crate::domain::time::Wall;
use crate::engine::input::Received;
use crate::engine::view::View;
use crate::wire::mesh as message;

/// An envelope whose signature held when it came.
#[derive(Debug)]
pub(super) struct Arrived {
    received: Received,
    sealed: Vec<u8>,
}

impl Arrived {
    pub(super) const fn new(received: Received, sealed: Vec<u8>) -> Self {
        Self { received, sealed }
    }

    /// As the trust of now has it. Nothing is checked a second time while that is the trust under which it came; otherwise it is
    /// opened anew. One that does not count any more stays as it was, and the engine refuses it on record.
    pub(super) fn by_now(self, view: &View, now: Wall) -> Received {
        let Self { received, sealed } = self;
        if view.settings.vouches_still(&received.signer, now) {
            return received;
        }
        message::open_envelope(view, received.signer.runtime(), &sealed, now).unwrap_or(received)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
        KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, SigningKey as _,
    };
    use rustls_pki_types::CertificateDer;
    use time::OffsetDateTime;
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::domain::action::Action;
    use crate::domain::audit::{Hash, Outcome};
    use crate::domain::code::Code;
    use crate::domain::config::Value;
    use crate::domain::envelope::Envelope;
    use crate::domain::identity::anchors::Trust;
    use crate::domain::identity::authority::Authority;
    use crate::domain::identity::{Ban, IdentityKey, Mapping, Naming, svid};
    use crate::domain::time::Millis;
    use crate::engine::input::Request;
    use crate::engine::view::Settings;
    use crate::mesh::Responder;
    use crate::node::driver::tests::driver;
    use crate::node::driver::{Driver, Mail};
    use crate::node::tests::{engineer, parsed, settings};
    use crate::store::Chain;
    use crate::store::memory::MemoryStore;
    use crate::wire::mesh::{CertificateKey, Keys, delegate_by_certificate, open_envelope, seal_envelope};

    fn naming() -> Naming {
        Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite }
    }

    fn params(id: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, id);
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
        params
    }

    pub(in crate::node) fn authority_of_site() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = params("spiffe://trust");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    }

    /// The runtime `s/b`, as this authority has made it.
    pub(in crate::node) fn keys_of_b(issuer: &CertifiedIssuer<'_, KeyPair>, now: Wall) -> Keys {
        keys_until(issuer, now, now.plus(Millis::from_hours(1)))
    }

    /// The same with a certificate that ends at this moment.
    pub(in crate::node) fn keys_until(issuer: &CertifiedIssuer<'_, KeyPair>, now: Wall, end: Wall) -> Keys {
        let mut params = params("spiffe://trust/s/runtime/b");
        params.not_after = OffsetDateTime::from_unix_timestamp_nanos(end.0.into()).expect("in time");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let chain = [params.signed_by(&key, issuer).expect("a certificate").der().clone()];
        let name = svid::read_leaf(&chain[0], &naming()).expect("it keeps the profile").key;
        let sign = |message: &[u8]| key.sign(message).ok();
        let certificate = CertificateKey { key: name, chain: &chain, sign: &sign };
        let (envelope, until) = (IdentityKey::from_seed([9; 32]), now.plus(Millis::from_hours(1)));
        delegate_by_certificate(&certificate, envelope, &parsed("s/b"), now, until).expect("the key signs")
    }

    /// Settings that trust these anchors, and not whom this bans.
    pub(in crate::node) fn trusting(anchors: &[(&str, CertificateDer<'static>)], ban: Option<&str>) -> Arc<Settings> {
        let mut trust = Trust::new(naming());
        for (site, anchor) in anchors {
            trust.set_anchors(parsed(site), std::slice::from_ref(anchor)).expect("an anchor");
        }
        if let Some(ban) = ban {
            trust.bans.add(ban.parse::<Ban>().expect("a ban"));
        }
        Arc::new(Settings { authority: Some(Authority::new(trust)), ..(*settings()).clone() })
    }

    fn reload(settings: Arc<Settings>) -> Mail {
        let request = Request::Reload { asker: engineer(), settings, detail: "trust".to_owned() };
        Mail::Request(request, oneshot::channel().0)
    }

    /// `s/b` sets a value here, sealed as it travels.
    fn sealed(driver: &Driver, keys: &Keys, now: Wall) -> Vec<u8> {
        let values = [("log.level".to_owned(), Value::Text("debug".to_owned()))];
        let action = Action::cfg_apply(values.into()).expect("one setting");
        let asker = engineer();
        let envelope = Envelope {
            target: driver.engine.view().me().clone(),
            target_key: driver.engine.view().identity,
            target_boot: Some(driver.engine.view().boot),
            origin: parsed("s/b"),
            actor: asker.actor,
            role: asker.role,
            actor_verified: true,
            request_id: parsed("waiting"),
            expires: now.plus(action.kind().window()),
            action,
            issued: now,
            boot: 1,
            sequence: 1,
            policy_hash: Hash([0; 32]),
        };
        seal_envelope(keys, &envelope).0
    }

    /// What is on record of a write that came under one trust, and whose turn comes with a reload behind it that brings another.
    async fn done_after(anchors: &[(&str, CertificateDer<'static>)], ban: Option<&str>) -> (Outcome, Option<Code>) {
        let issuer = authority_of_site();
        let store = MemoryStore::new();
        let mut driver = driver(&store);
        let (urgent, first) = mpsc::channel(1);
        driver.urgent = first;
        let now = driver.clock.now().wall;
        let before = [("s", issuer.der().clone())];
        driver.turn(&mut vec![reload(trusting(&before, None))]).await;
        let sealed = sealed(&driver, &keys_of_b(&issuer, now), now);
        let received = open_envelope(&driver.engine.view(), &parsed("s/b"), &sealed, now).expect("it holds");
        driver.turn(&mut vec![Mail::Met(received.signer.clone(), 1, oneshot::channel().0)]).await;
        let (responder, answer) = Responder::channel();
        let waiting = Mail::Act(Box::new(Arrived::new(received, sealed)), responder);
        let anchors: Vec<_> = before.into_iter().chain(anchors.iter().cloned()).collect();
        urgent.try_send(reload(trusting(&anchors, ban))).expect("room");
        driver.turn(&mut vec![waiting]).await;
        answer.await.expect("answered");
        let is_set = driver.engine.view().overlay.values.contains_key("log.level");
        store.with_disk(|disk| {
            let all = disk.entries(Chain::Writes).chain(disk.entries(Chain::Refusals));
            let is_it = |draft: &&crate::domain::audit::Draft| draft.request_id.is_some();
            let record = all.map(|entry| &entry.draft).find(is_it).expect("on record");
            assert_eq!(is_set, record.outcome == Outcome::Applied, "{record:?}");
            (record.outcome, record.code)
        })
    }

    #[tokio::test]
    async fn a_write_that_waited_is_carried_out_under_the_trust_of_its_turn() {
        let elsewhere = [("t", authority_of_site().der().clone())];
        assert_eq!(done_after(&elsewhere, None).await, (Outcome::Applied, None), "another trust that has it too");
        let banned = done_after(&[], Some("id spiffe://trust/s/runtime/b")).await;
        assert_eq!(banned, (Outcome::Denied, Some(Code::UntrustedIdentity)));
    }
}
