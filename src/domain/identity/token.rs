//! Bearer tokens: what a caller presents, and what of it is kept.
//!
//! A token is `trt1_<id>_<secret>_<check>`: 8, 64 and 8 lower-case hexadecimal digits. The id names it in lists and records;
//! the check tells a mistyped or cut token from a wrong one before anybody is asked. Only the SHA-256 of the whole text is
//! kept: with 256 random bits a slow hash would add nothing (reference, *HTTP API*).

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::domain::id::SiteId;
use crate::domain::identity::{Actor, Role};
use crate::domain::policy::{Pattern, actor_name};
use crate::domain::time::Wall;

/// Most tokens of one node: a list that a person can still review.
pub const TOKENS_MAX: usize = 256;

/// Longest note of a token in bytes.
pub const NOTE_BYTES_MAX: usize = 256;

const MARK: &str = "trt1";
const ID_DIGITS: usize = 8;
const SECRET_DIGITS: usize = 64;
const CHECK_BYTES: usize = 4;

/// Names a token. Not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(u32);

impl TokenId {
    /// Makes an id from random bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

/// A text that is not 8 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted 8 lower-case hexadecimal digits")]
pub struct NotATokenId;

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        let is_canonical = text.len() == ID_DIGITS && is_hex(text);
        if !is_canonical {
            return Err(NotATokenId);
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_not_hex| NotATokenId)
    }
}

/// The text of a new token. Shown once, to whoever made it.
pub fn compose(id: TokenId, secret: &[u8; 32]) -> String {
    let mut text = format!("{MARK}_{id}_");
    secret.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    let check = check(&text);
    format!("{text}_{check}")
}

/// The id in a well-formed token.
fn id_of(presented: &str) -> Option<TokenId> {
    let (body, given) = presented.rsplit_once('_')?;
    let mut parts = body.split('_');
    let (Some(MARK), Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let is_whole = secret.len() == SECRET_DIGITS && is_hex(secret) && check(body) == given;
    if is_whole { id.parse().ok() } else { None }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn check(body: &str) -> String {
    Sha256::digest(body.as_bytes()).iter().take(CHECK_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// What a token is kept as.
pub fn digest(presented: &[u8]) -> [u8; 32] {
    Sha256::digest(presented).into()
}

/// Whether two digests are equal, in a time that does not say where they differ.
pub fn is_equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let differing = left.iter().zip(right).fold(0, |found, (left, right)| black_box(found | (left ^ right)));
    black_box(differing) == 0
}

/// Which of a node's listeners takes a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Audience {
    /// That of the admins.
    Admin,
    /// That of everybody else.
    #[default]
    Public,
}

impl Audience {
    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A text that names no listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted admin or public")]
pub struct NotAnAudience;

impl FromStr for Audience {
    type Err = NotAnAudience;

    fn from_str(text: &str) -> Result<Self, NotAnAudience> {
        [Self::Admin, Self::Public].into_iter().find(|it| it.as_str() == text).ok_or(NotAnAudience)
    }
}

/// One token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its name.
    pub id: TokenId,
    /// SHA-256 of its text.
    pub digest: [u8; 32],
    /// What it may do at most.
    pub role: Role,
    /// Which listener takes it.
    pub audience: Audience,
    /// Whom it stands for: `<site>/<principal>`, or `<site>/*` for anybody of the site.
    pub actor: Pattern,
    /// When it was made.
    pub created: Wall,
    /// From when it is worth nothing; absent for never.
    pub expires: Option<Wall>,
    /// What it is for.
    pub note: String,
}

impl TokenRecord {
    /// Whether the token speaks for this actor.
    pub fn covers(&self, actor: &Actor) -> bool {
        self.actor.matches(&actor_name(actor))
    }

    /// Whether the token is still worth something.
    pub fn holds_at(&self, now: Wall) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

/// Why tokens were refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two records with one id.
    #[error("wanted every id once, got {0} twice")]
    Twice(TokenId),
    /// More than 256.
    #[error("wanted at most {TOKENS_MAX} tokens, got {0}; revoke those that nobody uses")]
    TooMany(usize),
    /// A token that speaks for another site, whose node alone can vouch for its actors.
    #[error("token {id}: wanted an actor of this site, {site}/<principal> or {site}/*, got {actor}")]
    OtherSite {
        /// Which token.
        id: TokenId,
        /// The own site.
        site: SiteId,
        /// What it names.
        actor: String,
    },
    /// The note is too long or has control characters.
    #[error("token {0}: wanted a note of at most {NOTE_BYTES_MAX} bytes on one line")]
    Note(TokenId),
}

/// The tokens of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<TokenId, TokenRecord>);

impl Tokens {
    /// Takes records in, all or none.
    pub fn new(records: Vec<TokenRecord>, site: &SiteId) -> Result<Self, Error> {
        if TOKENS_MAX < records.len() {
            return Err(Error::TooMany(records.len()));
        }
        let mut tokens = BTreeMap::new();
        for record in records {
            let id = record.id;
            let names_own_site = record.actor.to_string().split_once('/').is_some_and(|(it, _)| it == site.as_str());
            if !names_own_site {
                return Err(Error::OtherSite { id, site: site.clone(), actor: record.actor.to_string() });
            }
            if NOTE_BYTES_MAX < record.note.len() || record.note.chars().any(char::is_control) {
                return Err(Error::Note(id));
            }
            if tokens.insert(id, record).is_some() {
                return Err(Error::Twice(id));
            }
        }
        Ok(Self(tokens))
    }

    /// Every record, by id.
    pub fn records(&self) -> impl Iterator<Item = &TokenRecord> {
        self.0.values()
    }

    /// The record of a presented token, if it is one of ours and still holds. An unknown id costs what a wrong secret costs.
    pub fn find(&self, presented: &[u8], now: Wall) -> Option<&TokenRecord> {
        let given = digest(presented);
        let id = std::str::from_utf8(presented).ok().and_then(id_of);
        let record = id.and_then(|id| self.0.get(&id));
        let kept = record.map_or([0; 32], |record| record.digest);
        if is_equal(&kept, &given) { record.filter(|record| record.holds_at(now)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str, actor: &str) -> TokenRecord {
        TokenRecord {
            id: id_of(text).expect("whole"),
            digest: digest(text.as_bytes()),
            role: Role::Operator,
            audience: Audience::default(),
            actor: actor.parse().expect("legal"),
            created: Wall(0),
            expires: Some(Wall(100)),
            note: String::new(),
        }
    }

    fn site() -> SiteId {
        "line-3".parse().expect("legal")
    }

    #[test]
    fn a_token_is_found_until_it_expires_and_nothing_like_it_is() {
        let text = compose(TokenId::from_bits(7), &[9; 32]);
        assert_eq!(text.len(), 4 + 1 + 8 + 1 + 64 + 1 + 8);
        let tokens = Tokens::new(vec![record(&text, "line-3/alice")], &site()).expect("legal");
        assert!(tokens.find(text.as_bytes(), Wall(99)).is_some());
        assert!(tokens.find(text.as_bytes(), Wall(100)).is_none());
        let other = compose(TokenId::from_bits(7), &[8; 32]);
        let unknown = compose(TokenId::from_bits(8), &[9; 32]);
        let upper = text.to_uppercase();
        let spaced = format!("{text} ");
        let cut = text.get(..text.len() - 1).expect("ascii");
        for wrong in [other.as_str(), &unknown, &upper, &spaced, cut, "", "trt1___"] {
            assert!(tokens.find(wrong.as_bytes(), Wall(0)).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn the_check_tells_a_mistyped_token() {
        let text = compose(TokenId::from_bits(0xabcd), &[1; 32]);
        assert_eq!(id_of(&text), Some(TokenId::from_bits(0xabcd)));
        assert_eq!(id_of(&text.replacen('0', "1", 3)), None);
    }

    /// Two texts for one token or for one id would make two entries of it, and whoever revokes one would leave the other.
    #[test]
    fn a_token_and_its_id_have_one_form() {
        assert_eq!("0000abcd".parse(), Ok(TokenId::from_bits(0xabcd)));
        for id in ["abcd", "00000abcd", "0000ABCD", "+000abcd", "0000abcg", "", "abcd "] {
            assert_eq!(id.parse::<TokenId>(), Err(NotATokenId), "{id:?}");
        }
        let body = format!("{MARK}_{}_{}", TokenId::from_bits(7), "AB".repeat(32));
        assert_eq!(id_of(&format!("{body}_{}", check(&body))), None, "capitals, with the check that fits them");
        let body = body.to_lowercase();
        assert_eq!(id_of(&format!("{body}_{}", check(&body))), Some(TokenId::from_bits(7)));
    }

    #[test]
    fn digests_that_differ_anywhere_are_not_equal() {
        let digest = [9; 32];
        assert!(is_equal(&digest, &[9; 32]));
        // One byte, the last too, and two of them by the same.
        for places in [&[0_usize][..], &[31], &[3, 4]] {
            let mut other = digest;
            places.iter().for_each(|place| other[*place] = 8);
            assert!(!is_equal(&digest, &other), "{places:?}");
        }
    }

    /// Files of tokens and command lines name listeners by these words.
    #[test]
    fn a_listener_is_written_as_it_is_read() {
        for (audience, text) in [(Audience::Admin, "admin"), (Audience::Public, "public")] {
            assert_eq!((audience.to_string().as_str(), text.parse()), (text, Ok(audience)));
        }
        for other in ["", "Admin", "admin ", "both"] {
            assert_eq!(other.parse::<Audience>(), Err(NotAnAudience), "{other:?}");
        }
    }

    #[test]
    fn records_are_taken_whole_or_not_at_all() {
        let text = compose(TokenId::from_bits(7), &[9; 32]);
        let good = record(&text, "line-3/*");
        assert_eq!(Tokens::new(vec![good.clone(), good.clone()], &site()), Err(Error::Twice(good.id)));
        for actor in ["*", "*/*", "other/alice", "*/alice"] {
            let refused = Tokens::new(vec![record(&text, actor)], &site());
            assert!(matches!(refused, Err(Error::OtherSite { .. })), "{actor}");
        }
        let noted = TokenRecord { note: "two\nlines".to_owned(), ..good.clone() };
        assert_eq!(Tokens::new(vec![noted], &site()), Err(Error::Note(good.id)));
        let many = (0..=256).map(|bits| TokenRecord { id: TokenId::from_bits(bits), ..good.clone() }).collect();
        assert_eq!(Tokens::new(many, &site()), Err(Error::TooMany(257)));
    }

    #[test]
    fn a_token_covers_its_pattern() {
        let text = compose(TokenId::from_bits(7), &[9; 32]);
        let actor = |text: &str| text.parse::<Actor>().expect("legal");
        let alice = record(&text, "line-3/alice");
        assert!(alice.covers(&actor("spiffe://trust/line-3/alice")));
        assert!(!alice.covers(&actor("spiffe://trust/line-3/bob")));
        assert!(record(&text, "line-3/*").covers(&actor("spiffe://trust/line-3/bob")));
        assert!(!record(&text, "line-3/*").covers(&actor("spiffe://trust/line-4/bob")));
    }
}
