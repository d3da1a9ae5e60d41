//! Signed notes (C2SP signed-note): a text that people can read, and below it lines with signatures.
//!
//! A note may carry several signatures: others can add theirs without touching the text. A signature whose key is not
//! known is passed over; one by the known key that does not hold refuses the note.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::domain::identity::IdentityKey;

/// The algorithm's byte of Ed25519 in key names.
pub(super) const ED25519: u8 = 1;

/// What begins a line with a signature.
pub(super) const MARK: &str = "\u{2014} ";

/// Longest note in bytes: a checkpoint with the signatures of a hundred others.
const NOTE_BYTES_MAX: usize = 64 * 1024;

/// Most signatures that are looked at.
pub(super) const SIGNATURES_MAX: usize = 128;

/// Why a note was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It has not the form of a signed note.
    #[error("wanted a signed note of at most {NOTE_BYTES_MAX} bytes")]
    Form,
    /// No signature of the wanted key.
    #[error("wanted a signature by {0}, got none")]
    Unsigned(String),
    /// The wanted key's signature does not hold.
    #[error("the signature by {0} does not hold")]
    Forged(String),
    /// A key's text has another form or names another algorithm.
    #[error("wanted a key of the form <name>+<8 hexadecimal digits>+<base64>")]
    Key,
}

/// A private key with the name under which it signs notes.
#[derive(Debug, Clone)]
pub struct NoteKey {
    name: String,
    key: IdentityKey,
}

impl NoteKey {
    /// Gives a key its name, which has neither spaces nor a plus sign.
    pub fn new(name: impl Into<String>, key: IdentityKey) -> Self {
        Self { name: name.into(), key }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's own signature over a text.
    pub(super) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes)
    }

    /// The public half.
    pub fn verifier(&self) -> Verifier {
        Verifier { name: self.name.clone(), key: self.key.public() }
    }

    /// The text, which ends with a line feed, with this key's signature below.
    pub fn sign(&self, text: &str) -> String {
        let mut bytes = self.verifier().id().to_vec();
        bytes.extend_from_slice(&self.key.sign(text.as_bytes()));
        format!("{text}\n{MARK}{} {}\n", self.name, STANDARD.encode(bytes))
    }
}

/// A public key with its name. Reads and displays as `<name>+<key id>+<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: VerifyingKey,
}

impl Verifier {
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key itself.
    pub(super) const fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The first bytes of the hash of name and key, by which a signature says whose it is.
    fn id(&self) -> [u8; 4] {
        key_id(&self.name, ED25519, &self.key)
    }

    /// The note's text, if this key has signed it.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let (text, signatures) = split(note)?;
        let mut is_signed = false;
        for line in signatures.lines().take(SIGNATURES_MAX) {
            let (name, encoded) =
                line.strip_prefix(MARK).and_then(|line| line.split_once(' ')).ok_or(NoteError::Form)?;
            let bytes = STANDARD.decode(encoded).map_err(|_any_fault| NoteError::Form)?;
            let (id, signature) = bytes.split_first_chunk::<4>().ok_or(NoteError::Form)?;
            if name == self.name && *id == self.id() {
                let forged = || NoteError::Forged(self.name.clone());
                let signature = Signature::from_slice(signature).map_err(|_length| forged())?;
                self.key.verify_strict(text.as_bytes(), &signature).map_err(|_any_fault| forged())?;
                is_signed = true;
            }
        }
        if is_signed { Ok(text) } else { Err(NoteError::Unsigned(self.name.clone())) }
    }
}

/// The first bytes of the hash of name, algorithm and key.
pub(super) fn key_id(name: &str, algorithm: u8, key: &VerifyingKey) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', algorithm]);
    hasher.update(key.as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    digest.first_chunk().copied().unwrap_or_default()
}

/// A public key as text: `<name>+<key id>+<base64 of algorithm and key>`.
pub(super) fn write_key(name: &str, algorithm: u8, key: &VerifyingKey) -> String {
    let mut bytes = vec![algorithm];
    bytes.extend_from_slice(key.as_bytes());
    let id = u32::from_be_bytes(key_id(name, algorithm, key));
    format!("{name}+{id:08x}+{}", STANDARD.encode(bytes))
}

/// Reads the name and the key out of such a text.
pub(super) fn read_key(text: &str, algorithm: u8) -> Result<(String, VerifyingKey), NoteError> {
    // The name has no plus sign, base64 may have some.
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(_id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    let bytes = STANDARD.decode(encoded).map_err(|_any_fault| NoteError::Key)?;
    let Some((found, key)) = bytes.split_first() else { return Err(NoteError::Key) };
    let key = key.try_into().map_err(|_length| NoteError::Key)?;
    let key = VerifyingKey::from_bytes(&key).map_err(|_no_point| NoteError::Key)?;
    // The id is a check on name and key, and a weak key verifies anything.
    let is_sound = *found == algorithm && !key.is_weak() && write_key(name, algorithm, &key) == text;
    if is_sound { Ok((name.to_owned(), key)) } else { Err(NoteError::Key) }
}

/// The text with its last line feed, and the lines with signatures.
pub(super) fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let is_clean = note.len() <= NOTE_BYTES_MAX && note.ends_with('\n');
    if !is_clean || note.chars().any(|it| it.is_control() && it != '\n') {
        return Err(NoteError::Form);
    }
    let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Form)?;
    let end = text.len().saturating_add(1);
    match note.get(..end) {
        Some(text) if !signatures.is_empty() => Ok((text, signatures)),
        Some(_) | None => Err(NoteError::Form),
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&write_key(&self.name, ED25519, &self.key))
    }
}

impl FromStr for Verifier {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        read_key(text, ED25519).map(|(name, key)| Self { name, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the format's first implementation, Go's `sumdb/note`.
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
                           then you don't know what your problem is.\n\n\
                           \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn key(seed: u8) -> NoteKey {
        NoteKey::new("log", IdentityKey::from_seed([seed; 32]))
    }

    #[test]
    fn a_note_of_another_implementation_opens() {
        let verifier: Verifier = GO_KEY.parse().expect("a key");
        assert_eq!(verifier.to_string(), GO_KEY);
        assert!(verifier.open(GO_NOTE).expect("holds").starts_with("If you think"));
        assert_eq!(
            verifier.open(&GO_NOTE.replace("answer", "Answer")),
            Err(NoteError::Forged("PeterNeumann".to_owned()))
        );
    }

    #[test]
    fn only_the_named_keys_signature_counts_and_others_may_stand_beside_it() {
        let note = key(1).sign("log\n1\n");
        assert_eq!(key(1).verifier().open(&note), Ok("log\n1\n"));
        assert_eq!(key(2).verifier().open(&note), Err(NoteError::Unsigned("log".to_owned())));
        let line = |note: &str| note.lines().last().expect("a signature").to_owned();
        let other = NoteKey::new("witness", IdentityKey::from_seed([3; 32])).sign("log\n1\n");
        let both = format!("{note}{}\n", line(&other));
        assert_eq!(key(1).verifier().open(&both), Ok("log\n1\n"));
        // One good signature does not make up for a bad one by the same key.
        let bad = format!("{note}{}\n", line(&key(1).sign("log\n2\n")));
        assert_eq!(key(1).verifier().open(&bad), Err(NoteError::Forged("log".to_owned())));
    }

    #[test]
    fn what_is_no_note_or_no_key_is_refused() {
        let note = key(1).sign("log\n1\n");
        for bad in [
            "",
            "log\n",
            "log\n\n",
            "log\n\nx\n",
            "\n\n\u{2014} log AAAA\n",
            &note[..note.len() - 1],
            &note.replace('1', "\r"),
        ] {
            assert!(key(1).verifier().open(bad).is_err(), "{bad:?}");
        }
        let vkey = key(1).verifier().to_string();
        assert_eq!(vkey.parse(), Ok(key(1).verifier()));
        for bad in [
            "",
            "log",
            "log+1",
            &vkey.replace("log", "lag"),
            &vkey[..vkey.len() - 4],
            &GO_KEY.replace("+ARpc", "+AhpC"),
        ] {
            assert_eq!(bad.parse::<Verifier>(), Err(NoteError::Key), "{bad:?}");
        }
    }
}
