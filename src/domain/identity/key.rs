//! Keys that stand for a runtime: what signs, how a key is named, and how far it is trusted.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// SHA-256 of the exact 32 bytes of an Ed25519 public key, or of a certificate or its public key in DER. Displays as 64
/// lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Names a public key.
    pub fn of(key: &VerifyingKey) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Names a certificate, or a public key together with its algorithm.
    pub fn of_der(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Writes bytes as lower-case hexadecimal digits. Without the formatting machinery, which is asked for every byte otherwise.
pub(crate) fn write_hex(bytes: &[u8], text: &mut impl fmt::Write) -> fmt::Result {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' } else { b'a'.wrapping_sub(10) }.wrapping_add(nibble));
    bytes.iter().try_for_each(|byte| {
        text.write_char(digit(byte >> 4))?;
        text.write_char(digit(byte & 0xf))
    })
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted 64 lower-case hexadecimal digits")]
pub struct NotHex;

/// Reads exactly 64 lower-case hexadecimal digits.
pub(crate) fn parse_hex32(text: &str) -> Result<[u8; 32], NotHex> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Ok(byte.wrapping_sub(b'a').wrapping_add(10)),
        _ => Err(NotHex),
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(NotHex) };
    let pairs: &[[u8; 2]; 32] = pairs.try_into().map_err(|_wrong_length| NotHex)?;
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Ok(bytes)
}

impl FromStr for Fingerprint {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse_hex32(text).map(Self)
    }
}

/// How far a peer's identity is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrustState {
    /// Chains to an anchor of its site, or was approved here by a person.
    Trusted,
    /// Verifies, but only by the key pinned on first use.
    Untrusted,
}

impl TrustState {
    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Untrusted => "untrusted",
        }
    }
}

/// A private Ed25519 key. Never shown, wiped when dropped.
#[derive(Clone)]
pub struct IdentityKey(SigningKey);

impl IdentityKey {
    /// Makes a key from 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The public half.
    pub fn public(&self) -> VerifyingKey {
        self.0.verifying_key()
    }

    /// The public half's name.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public())
    }

    /// Signs bytes that already say what they are (see `envelope::dsse`).
    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "IdentityKey({})", self.fingerprint())
    }
}
