//! Join tokens: who may have a first certificate without anybody on the telephone, once.
//!
//! A token is `trj1_<id>_<secret>_<pin>_<check>`: 8, 64, 64 and 8 lower-case hexadecimal digits. The pin names the authority's
//! anchors, so that whoever joins knows whose answer it is. The secret never travels with a request: a proof does, which is
//! made of it and of the request, so that a carrier can neither use the token nor exchange the request. Only a hash is kept.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::domain::identity::Fingerprint;
use crate::domain::identity::token::is_equal;

const MARK: &str = "trj1";
const ID_DIGITS: usize = 8;
const CHECK_BYTES: usize = 4;

/// Separates what is kept of a secret from every other use of SHA-256.
const CONTEXT: &[u8] = b"trust-runtime join token v1\0";

/// A token as it is handed to whoever joins.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: u32,
    secret: [u8; 32],
    pin: Fingerprint,
}

/// What an authority keeps of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept(pub [u8; 32]);

/// A text that is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted a join token as `identity join-token create` shows it: it may be cut or mistyped")]
pub struct NotAJoinToken;

impl JoinToken {
    /// Puts a token together from random bits and the name of the authority's anchors.
    pub const fn new(id: u32, secret: [u8; 32], pin: Fingerprint) -> Self {
        Self { id, secret, pin }
    }

    /// Its name. Not secret.
    pub fn id(&self) -> String {
        format!("{:08x}", self.id)
    }

    /// The name of the anchors of the authority that made it.
    pub const fn pin(&self) -> Fingerprint {
        self.pin
    }

    /// What is kept of it.
    pub fn kept(&self) -> Kept {
        let mut hasher = Sha256::new();
        hasher.update(CONTEXT);
        hasher.update(self.secret);
        Kept(hasher.finalize().into())
    }

    /// The text, shown once.
    pub fn compose(&self) -> String {
        let secret: String = self.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = format!("{MARK}_{}_{secret}_{}", self.id(), self.pin);
        format!("{body}_{}", check(&body))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "JoinToken({})", self.id())
    }
}

impl FromStr for JoinToken {
    type Err = NotAJoinToken;

    fn from_str(text: &str) -> Result<Self, NotAJoinToken> {
        let parts: Vec<&str> = text.split('_').take(6).collect();
        let [MARK, id, secret, pin, _check] = parts.as_slice() else { return Err(NotAJoinToken) };
        let number = u32::from_str_radix(id, 16).map_err(|_not_hex| NotAJoinToken)?;
        let secret: Fingerprint = secret.parse().map_err(|_not_hex| NotAJoinToken)?;
        let pin = pin.parse().map_err(|_not_hex| NotAJoinToken)?;
        let token = Self { id: number, secret: secret.0, pin };
        // One text for each token, its check included.
        if id.len() == ID_DIGITS && token.compose() == text { Ok(token) } else { Err(NotAJoinToken) }
    }
}

impl Kept {
    /// The proof that whoever made this request has the token.
    pub fn proof(&self, request: &[u8]) -> [u8; 32] {
        match Hmac::<Sha256>::new_from_slice(&self.0) {
            Ok(mac) => mac.chain_update(request).finalize().into_bytes().into(),
            // Keys of every length are taken.
            Err(_length) => [0; 32],
        }
    }

    /// Whether the proof is this request's, in a time that does not say where it differs.
    pub fn proves(&self, request: &[u8], proof: &[u8; 32]) -> bool {
        is_equal(&self.proof(request), proof)
    }
}

fn check(body: &str) -> String {
    Sha256::digest(body.as_bytes()).iter().take(CHECK_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::new(0x0a0b_0c0d, [7; 32], Fingerprint([9; 32]))
    }

    #[test]
    fn a_token_reads_back_and_nothing_like_it_does() {
        let text = token().compose();
        assert!(text.starts_with("trj1_0a0b0c0d_0707"), "{text}");
        assert_eq!(text.parse(), Ok(token()));
        for wrong in [
            "",
            "trj1",
            &text[..text.len() - 1],
            &text.to_uppercase(),
            &text.replacen("07", "08", 1),
            &text.replacen("0a0b", "a0b", 1),
            &format!("{text}_"),
            &format!("{text}\n"),
        ] {
            assert_eq!(wrong.parse::<JoinToken>(), Err(NotAJoinToken), "{wrong:?}");
        }
        assert_eq!(format!("{:?}", token()), "JoinToken(0a0b0c0d)", "no secret in a log");
    }

    #[test]
    fn a_proof_is_of_one_request_by_one_token() {
        let proof = token().kept().proof(b"request");
        assert!(token().kept().proves(b"request", &proof));
        assert!(!token().kept().proves(b"another", &proof));
        let other = JoinToken::new(0x0a0b_0c0d, [8; 32], Fingerprint([9; 32]));
        assert!(!other.kept().proves(b"request", &proof));
        assert_ne!(token().kept().0, [7; 32], "not the secret itself");
    }
}
