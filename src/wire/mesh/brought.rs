//! What a run brought or what went wrong in it, where that is too long for one answer: announced with its length and its hash,
//! fetched in pieces, and shown only as the text that was announced.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::body::parse;
use super::sealed::Refusal;
use crate::domain::audit::Hash;
use crate::domain::run::Run;

/// Most bytes of a result or an error in the answer that has the record. With both, and as base64, it stays below
/// [`super::ANSWER_BYTES_MAX`].
pub const BROUGHT_AT_ONCE_MAX: usize = 128 * 1024;

/// Most bytes of one piece: a text within JSON within base64, so base64 twice.
pub const PIECE_BYTES_MAX: usize = 192 * 1024;

/// Most bytes of a result or an error. It comes from one line, which has at most 512 KiB; three bytes stand for each that was
/// no text, or two for each that has to be quoted.
pub const BROUGHT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The parts of a record that may be long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What went wrong.
    Error,
    /// What it brought.
    Result,
}

impl Part {
    /// Its name in messages and in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Result => "result",
        }
    }

    /// The text of it, if the run has one.
    pub fn of(self, run: &Run) -> Option<&str> {
        match self {
            Self::Error => run.error.as_deref(),
            Self::Result => run.result.as_deref(),
        }
    }
}

/// A whole text, as its owner announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// How long it is.
    pub bytes: u64,
    /// What it is.
    pub digest: Hash,
}

impl Whole {
    /// The announcement of a text.
    pub fn of(text: &str) -> Self {
        Self { bytes: count(text.len()), digest: Hash::of(text.as_bytes()) }
    }
}

/// A record of which something is too long for one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The record without what is too long.
    pub run: Run,
    /// The result, if it is too long.
    pub result: Option<Whole>,
    /// The error, if it is.
    pub error: Option<Whole>,
}

/// A piece of such a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPiece {
    /// Where it begins, in bytes.
    pub from: u64,
    /// The bytes: a piece may end within a character.
    pub bytes: Vec<u8>,
    /// The text of which it is a piece.
    pub whole: Whole,
}

impl RunPiece {
    /// The piece of a text that begins there, and has at most so many bytes. None where there is nothing.
    pub fn of(text: &str, from: u64, most: usize) -> Option<Self> {
        let rest = usize::try_from(from).ok().and_then(|from| text.as_bytes().get(from..))?;
        let bytes = rest.get(..most.min(PIECE_BYTES_MAX)).unwrap_or(rest).to_vec();
        (!bytes.is_empty()).then(|| Self { from, bytes, whole: Whole::of(text) })
    }

    /// Whether it is what was asked for: something, from there on, and within its text.
    pub(super) fn begins_at(&self, from: u64) -> bool {
        let end = from.checked_add(count(self.bytes.len()));
        self.from == from && !self.bytes.is_empty() && end.is_some_and(|end| end <= self.whole.bytes)
    }
}

/// A text that comes piece by piece.
#[derive(Debug)]
pub struct Assembly {
    whole: Whole,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Nothing yet of this text.
    pub const fn new(whole: Whole) -> Self {
        Self { whole, bytes: Vec::new() }
    }

    /// Where the next piece begins. None where all are there.
    pub fn wanted(&self) -> Option<u64> {
        let from = count(self.bytes.len());
        (from < self.whole.bytes).then_some(from)
    }

    /// How much has come.
    pub fn has(&self) -> u64 {
        count(self.bytes.len())
    }

    /// Takes the next piece: of the same text, and without a gap.
    pub fn take(&mut self, piece: &RunPiece) -> Result<(), Refusal> {
        let is_next = self.wanted().is_some_and(|from| piece.begins_at(from));
        if !is_next || piece.whole != self.whole {
            return Err(Refusal::NotItsOwnWord);
        }
        self.bytes.extend_from_slice(&piece.bytes);
        Ok(())
    }

    /// The text, if it is the one that was announced.
    pub fn text(self) -> Result<String, Refusal> {
        if self.wanted().is_some() || Hash::of(&self.bytes) != self.whole.digest {
            return Err(Refusal::NotItsOwnWord);
        }
        String::from_utf8(self.bytes).map_err(|_no_text| Refusal::Malformed)
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WholeBody {
    bytes: u64,
    /// SHA-256 of the text.
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PieceBody {
    from: u64,
    /// Base64.
    bytes: String,
    whole: WholeBody,
}

impl From<&Whole> for WholeBody {
    fn from(whole: &Whole) -> Self {
        Self { bytes: whole.bytes, digest: whole.digest.to_string() }
    }
}

impl TryFrom<WholeBody> for Whole {
    type Error = Refusal;

    fn try_from(body: WholeBody) -> Result<Self, Refusal> {
        if count(BROUGHT_BYTES_MAX) < body.bytes {
            return Err(Refusal::TooLarge);
        }
        Ok(Self { bytes: body.bytes, digest: parse(&body.digest)? })
    }
}

impl From<&RunPiece> for PieceBody {
    fn from(piece: &RunPiece) -> Self {
        Self { from: piece.from, bytes: STANDARD.encode(&piece.bytes), whole: (&piece.whole).into() }
    }
}

impl TryFrom<PieceBody> for RunPiece {
    type Error = Refusal;

    fn try_from(body: PieceBody) -> Result<Self, Refusal> {
        let bytes = STANDARD.decode(&body.bytes).map_err(|_no_base64| Refusal::Malformed)?;
        Ok(Self { from: body.from, bytes, whole: body.whole.try_into()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(text: &str, most: usize) -> Result<String, Refusal> {
        let mut assembly = Assembly::new(Whole::of(text));
        while let Some(from) = assembly.wanted() {
            assembly.take(&RunPiece::of(text, from, most).expect("there is more"))?;
        }
        assembly.text()
    }

    #[test]
    fn a_text_comes_whole_in_as_many_pieces_as_it_takes() {
        for length in [0, 1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, BROUGHT_BYTES_MAX] {
            let text = "x".repeat(length);
            for most in [usize::MAX, PIECE_BYTES_MAX, 7_000] {
                assert!(fetched(&text, most).as_ref() == Ok(&text), "{length}");
            }
        }
        // Three bytes each, so that pieces end within one.
        let text = format!("x{}", "\u{fffd}".repeat(PIECE_BYTES_MAX));
        assert!(fetched(&text, PIECE_BYTES_MAX).as_ref() == Ok(&text));
        assert_eq!(RunPiece::of("abc", 1, 1).map(|piece| piece.bytes), Some(b"b".to_vec()));
        assert_eq!(RunPiece::of("ab", 2, 9), None);
        assert_eq!(RunPiece::of("ab", u64::MAX, 9), None);
    }

    #[test]
    fn a_piece_that_is_not_the_next_of_this_text_is_refused() {
        let text = "x".repeat(PIECE_BYTES_MAX + 9);
        let piece = |from| RunPiece::of(&text, from, PIECE_BYTES_MAX).expect("there is more");
        let first = piece(0);
        let second = piece(first.bytes.len() as u64);
        let other = RunPiece { whole: Whole::of("y"), ..second.clone() };
        let longer = RunPiece { whole: Whole { bytes: second.whole.bytes + 1, ..second.whole }, ..second.clone() };
        let nothing = RunPiece { bytes: Vec::new(), ..second.clone() };
        let too_much = RunPiece { bytes: vec![b'x'; 10], ..second.clone() };
        let elsewhere = RunPiece { from: second.from + 1, bytes: vec![b'x'; 8], ..second.clone() };
        for (what, wrong) in [
            ("the first again", &first),
            ("another text", &other),
            ("another length", &longer),
            ("nothing", &nothing),
            ("more than there is", &too_much),
            ("a gap", &elsewhere),
        ] {
            let mut assembly = Assembly::new(Whole::of(&text));
            assert_eq!(assembly.take(&first), Ok(()));
            assert_eq!(assembly.take(wrong), Err(Refusal::NotItsOwnWord), "{what}");
            assert_eq!(assembly.take(&second), Ok(()), "{what}");
            assert_eq!(assembly.take(&second), Err(Refusal::NotItsOwnWord), "behind the end");
            assert_eq!(assembly.text().as_deref(), Ok(text.as_str()), "{what}");
        }
    }

    #[test]
    fn only_the_text_that_was_announced_is_shown() {
        let mut forged = Assembly::new(Whole::of("abc"));
        forged
            .take(&RunPiece { bytes: b"abd".to_vec(), ..RunPiece::of("abc", 0, 9).expect("some") })
            .expect("its form");
        assert_eq!(forged.text(), Err(Refusal::NotItsOwnWord));
        assert_eq!(Assembly::new(Whole::of("abc")).text(), Err(Refusal::NotItsOwnWord), "it has not come yet");
        let digest = Hash::of(&[0xff]);
        let mut binary = Assembly::new(Whole { bytes: 1, digest });
        binary.take(&RunPiece { from: 0, bytes: vec![0xff], whole: Whole { bytes: 1, digest } }).expect("its form");
        assert_eq!(binary.text(), Err(Refusal::Malformed), "no text at all");
    }
}
