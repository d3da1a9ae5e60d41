//! Questions for the next certificate, and answers to them: honest ones, forged ones, and of each what the receiver makes of
//! it.
//!
//! A question is signed by a certificate's key, whose signatures differ each time, so that only the answers stand as bytes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, SigningKey};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use time::Duration;
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::{self, PayloadType};
use trust_runtime::domain::identity::{Ban, svid};
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::time::Wall;
use trust_runtime::wire::mesh::{self, CertificateKey, Renewed};

use crate::case_file::{assert_none, is_updating, text};
use crate::sealed::{ME, ORIGIN, Recipe, fingerprint, origin_keys, payload_of};
use crate::shown::{fault, store_bytes};
use crate::vouched::{Issued, RUNTIME, Site, issue, moment, name, naming, receiver, site};
use crate::world::{self, now, parsed};

const QUESTIONS: &str = "renewal/questions.json";
const ANSWERS: &str = "renewal/answers.json";

fn at(offset_ms: i64) -> Wall {
    Wall::from_millis(now().wall.as_millis().checked_add_signed(offset_ms).expect("in time"))
}

/// How a question differs from one that is answered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    name: String,
    /// Which certificate comes with it, if not the one in force.
    #[serde(default)]
    certificate: String,
    /// Whether another key signs than the certificate's.
    #[serde(default)]
    is_signed_by_another: bool,
    /// How many certificates come with it: behind the first that of the authority, again and again.
    #[serde(default = "one")]
    chain: usize,
    /// What of it is banned: `key`, `certificate` or `id`.
    banned: Option<String>,
    /// Who the mesh key says is asking, if not the origin.
    claimed: Option<String>,
    /// When it was asked, in milliseconds from the moment of the cases.
    #[serde(default)]
    at_ms: i64,
    /// Whether the receiver has no authority at all.
    #[serde(default)]
    is_receiver_without_authority: bool,
    /// How long the message is made with blanks.
    bytes: Option<usize>,
    #[serde(default)]
    recipe: Recipe,
    /// `opened`, or the reason of the refusal.
    verdict: String,
}

const fn one() -> usize {
    1
}

impl Question {
    fn issued(&self, ours: &Site, theirs: &Site) -> Issued {
        match self.certificate.as_str() {
            "" => issue(ours, RUNTIME, |_| {}),
            "by another site's authority" => issue(theirs, RUNTIME, |_| {}),
            "of another site" => issue(theirs, "spiffe://trust/site-b/runtime/origin", |_| {}),
            "of a person" => issue(ours, "spiffe://trust/site-a/origin", |_| {}),
            "of another runtime" => issue(ours, "spiffe://trust/site-a/runtime/other", |_| {}),
            "that is over" => issue(ours, RUNTIME, |it| it.not_after = moment() - Duration::seconds(1)),
            "that begins later" => issue(ours, RUNTIME, |it| it.not_before = moment() + Duration::seconds(1)),
            other => panic!("no certificate {other}"),
        }
    }

    fn bans(&self, issued: &Issued) -> Vec<Ban> {
        let ban = self.banned.as_deref().map(|what| match what {
            "key" => Ban::Key(name(&issued.chain[0])),
            "certificate" => Ban::Certificate(
                svid::read_leaf(&issued.chain[0], &naming()).expect("it keeps the profile").certificate,
            ),
            "id" => Ban::of_id(&parsed(RUNTIME)),
            other => panic!("no ban on a {other}"),
        });
        ban.into_iter().collect()
    }

    /// Asks with the bytes as a node makes them, and changes them as the row says. What is changed before it is signed is
    /// signed anew.
    fn bytes(&self, issued: &Issued, ours: &Site) -> Vec<u8> {
        let stranger = KeyPair::generate().expect("a key");
        let signer = if self.is_signed_by_another { &stranger } else { &issued.key };
        let sign = |message: &[u8]| signer.sign(message).ok();
        let mut chain = issued.chain.clone();
        chain.resize(self.chain, ours.der().clone());
        let certificate = CertificateKey { key: name(&issued.chain[0]), chain: &chain, sign: &sign };
        let (sealed, _) = mesh::seal_renewal(&certificate, &parsed(ME), at(self.at_ms)).expect("the key signs");
        let payload = self.recipe.changed(&payload_of(&sealed));
        let kind = self.recipe.kind_or(PayloadType::Renewal);
        let signature = sign(&dsse::pre_authentication_encoding(kind, payload.as_bytes())).expect("the key signs");
        let mut outer: Json = serde_json::from_slice(&sealed).expect("JSON");
        outer["payloadType"] = json!(kind.as_str());
        outer["payload"] = json!(STANDARD.encode(&payload));
        outer["signatures"][0]["sig"] = json!(STANDARD.encode(signature));
        let mut bytes = self.recipe.bent(outer.to_string().into_bytes(), &payload);
        bytes.resize(self.bytes.unwrap_or(bytes.len()), b' ');
        bytes
    }

    fn verdict(&self, ours: &Site, theirs: &Site) -> String {
        let issued = self.issued(ours, theirs);
        let mut view = receiver(&[("site-a", ours), ("site-b", theirs)], &self.bans(&issued));
        if self.is_receiver_without_authority {
            Arc::make_mut(&mut view.settings).authority = None;
        }
        let claimed = parsed(self.claimed.as_deref().unwrap_or(ORIGIN));
        match mesh::open_renewal(&view, &claimed, &self.bytes(&issued, ours), now().wall) {
            Err(refusal) => refusal.to_string(),
            Ok(opened) => {
                assert_eq!((&opened.runtime, &opened.certificate), (&claimed, &issued.chain[0]), "{}", self.name);
                "opened".to_owned()
            }
        }
    }
}

/// How an answer differs from one that brings a certificate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// Why there is none, if there is none.
    refused: Option<String>,
    #[serde(default)]
    recipe: Recipe,
    /// Whose key is pinned for the issuer, if not its own.
    pinned: Option<String>,
    /// Whether it answers another question.
    #[serde(default)]
    is_of_another_question: bool,
    verdict: String,
    #[serde(default)]
    bytes: String,
}

impl Row {
    fn made(&self) -> Vec<u8> {
        let renewed = self.refused.clone().map_or_else(|| Renewed::Issued(vec![48, 0].into()), Renewed::Refused);
        let question = if self.is_of_another_question { b"another".as_slice() } else { b"a question" };
        let payload = payload_of(&mesh::seal_renewed(&origin_keys(), Hash::of(question), &renewed));
        self.recipe.sealed(PayloadType::Renewed, &payload)
    }

    fn verdict(&self) -> String {
        let mut view = world::view(world::settings(ME, Profile::Dev, Policy::default()), fingerprint("target"));
        let pinned = fingerprint(self.pinned.as_deref().unwrap_or("origin"));
        view.peers = [(parsed(ORIGIN), Arc::new(world::peer(pinned, Presence::default())))].into_iter().collect();
        let question = Hash::of(b"a question");
        match mesh::open_renewed(&view, &parsed(ORIGIN), question, self.bytes.as_bytes(), now().wall) {
            Err(refusal) => refusal.to_string(),
            Ok(Renewed::Issued(_)) => "issued".to_owned(),
            Ok(Renewed::Refused(reason)) => format!("none: {reason}"),
        }
    }
}

#[test]
fn questions_for_the_next_certificate() {
    let (ours, theirs) = (site(), site());
    let rows: Vec<Question> = serde_json::from_str(&text(QUESTIONS)).expect("rows");
    let wrong = rows.iter().filter_map(|row| {
        let verdict = row.verdict(&ours, &theirs);
        (verdict != row.verdict).then(|| format!("{}: wanted {}, got {verdict}", row.name, row.verdict))
    });
    assert_none(&wrong.collect::<Vec<_>>());
}

#[test]
fn answers_with_the_next_certificate() {
    if is_updating() {
        store_bytes(ANSWERS, |row| serde_json::from_value::<Row>(row).expect("a row").made());
    }
    let rows: Vec<Row> = serde_json::from_str(&text(ANSWERS)).expect("rows");
    let faults =
        rows.iter().filter_map(|row| Some((row, fault(&row.made(), &row.bytes, &row.verdict(), &row.verdict)?)));
    assert_none(&faults.map(|(row, fault)| format!("{}: {fault}", row.name)).collect::<Vec<_>>());
}
