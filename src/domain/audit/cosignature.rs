//! Countersignatures (C2SP tlog-cosignature/v1): a witness's word for the text of a checkpoint, as a further line of its note.
//!
//! It says: at this time this was the newest head of that log that I had seen, and it continued every one that I had
//! countersigned before. The signed bytes begin with a line of their own, so that no checkpoint can be taken for one.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};

use super::note::{MARK, NoteError, NoteKey, SIGNATURES_MAX, Verifier, key_id, read_key, split, write_key};

/// The algorithm's byte of a timestamped Ed25519 countersignature in key names.
const COSIGNATURE: u8 = 4;

/// A witness's public key with its name. Reads and displays as `<name>+<key id>+<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Countersigner {
    name: String,
    key: VerifyingKey,
}

/// What is signed.
fn message(text: &str, at_s: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {at_s}\n{text}").into_bytes()
}

impl Verifier {
    /// The same key as a witness's.
    pub fn countersigner(&self) -> Countersigner {
        Countersigner { name: self.name().to_owned(), key: *self.key() }
    }
}

impl NoteKey {
    /// The public half as a witness's key: the same key has another name by which it countersigns.
    pub fn countersigner(&self) -> Countersigner {
        self.verifier().countersigner()
    }

    /// The line by which this key countersigns a checkpoint's text at this Unix second, with its line feed.
    pub fn countersign(&self, text: &str, at_s: u64) -> String {
        let Countersigner { name, key } = self.countersigner();
        let mut bytes = key_id(&name, COSIGNATURE, &key).to_vec();
        bytes.extend_from_slice(&at_s.to_be_bytes());
        bytes.extend_from_slice(&self.sign_bytes(&message(text, at_s)));
        format!("{MARK}{name} {}\n", STANDARD.encode(bytes))
    }
}

impl Countersigner {
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// At which Unix second this key has countersigned the note, the latest if more than once. One line of this key that
    /// does not hold refuses them all.
    pub fn countersigned(&self, note: &str) -> Result<Option<u64>, NoteError> {
        let (text, signatures) = split(note)?;
        let id = key_id(&self.name, COSIGNATURE, &self.key);
        let mut latest = None;
        for line in signatures.lines().take(SIGNATURES_MAX) {
            let (name, encoded) =
                line.strip_prefix(MARK).and_then(|line| line.split_once(' ')).ok_or(NoteError::Form)?;
            let bytes = STANDARD.decode(encoded).map_err(|_any_fault| NoteError::Form)?;
            let (of, rest) = bytes.split_first_chunk::<4>().ok_or(NoteError::Form)?;
            if name != self.name || *of != id {
                continue;
            }
            let forged = || NoteError::Forged(self.name.clone());
            let (at_s, signature) = rest.split_first_chunk::<8>().ok_or_else(forged)?;
            let at_s = u64::from_be_bytes(*at_s);
            let signature = Signature::from_slice(signature).map_err(|_length| forged())?;
            self.key.verify_strict(&message(text, at_s), &signature).map_err(|_any_fault| forged())?;
            latest = latest.max(Some(at_s));
        }
        Ok(latest)
    }
}

impl fmt::Display for Countersigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&write_key(&self.name, COSIGNATURE, &self.key))
    }
}

impl FromStr for Countersigner {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        read_key(text, COSIGNATURE).map(|(name, key)| Self { name, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::identity::IdentityKey;

    const TEXT: &str = "log\n1\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\nboot 1\n";

    fn key(name: &str, seed: u8) -> NoteKey {
        NoteKey::new(name, IdentityKey::from_seed([seed; 32]))
    }

    #[test]
    fn a_countersignature_holds_for_its_text_time_and_key_alone() {
        let (log, witness) = (key("log", 1), key("witness", 2));
        let note = log.sign(TEXT) + &witness.countersign(TEXT, 1_700_000_000);
        assert_eq!(log.verifier().open(&note), Ok(TEXT), "the log's own signature still stands");
        assert_eq!(witness.countersigner().countersigned(&note), Ok(Some(1_700_000_000)));
        assert_eq!(key("witness", 3).countersigner().countersigned(&note), Ok(None));
        assert_eq!(key("other", 2).countersigner().countersigned(&note), Ok(None));
        let forged = Err(NoteError::Forged("witness".to_owned()));
        assert_eq!(witness.countersigner().countersigned(&note.replace("boot 1", "boot 2")), forged);
        let mut bytes = STANDARD.decode(note.trim_end().rsplit(' ').next().expect("a signature")).expect("base64");
        bytes[11] ^= 1;
        let later = format!("{}{MARK}witness {}\n", log.sign(TEXT), STANDARD.encode(bytes));
        assert_eq!(witness.countersigner().countersigned(&later), forged, "another time was signed");
    }

    #[test]
    fn a_key_is_for_one_of_the_two_uses_and_says_which() {
        let key = key("witness", 2);
        let text = key.countersigner().to_string();
        assert_eq!(text.parse(), Ok(key.countersigner()));
        assert_eq!(text.parse::<Verifier>(), Err(NoteError::Key));
        assert_eq!(key.verifier().to_string().parse::<Countersigner>(), Err(NoteError::Key));
        // What it signs as a witness is no checkpoint of its own, nor the other way round.
        let note = key.sign(TEXT) + &key.countersign(TEXT, 7);
        let own_alone = key.sign(TEXT);
        assert_eq!(key.countersigner().countersigned(&own_alone), Ok(None));
        assert_eq!(key.countersigner().countersigned(&note), Ok(Some(7)));
    }
}
