//! Fingerprints as words, for two people on a telephone.
//!
//! The PGP word list: a word of two syllables for each byte at an even place and one of three at an odd place, so that a word
//! that is left out or two that are exchanged are heard at once.

use std::str::FromStr;

use crate::domain::identity::Fingerprint;

/// A line for each byte: the word at even places, the word at odd places.
const LIST: &str = include_str!("words.txt");

/// How many bytes are spoken. Whoever looks for another key with the same 16 words needs 2^128 tries.
const BYTES: usize = 16;

/// The first 16 bytes of a fingerprint as words.
pub fn spoken(fingerprint: &Fingerprint) -> String {
    let list: Vec<(&str, &str)> = LIST.lines().filter_map(|line| line.split_once(' ')).collect();
    let word = |(place, byte): (usize, &u8)| {
        let (even, odd) = list.get(usize::from(*byte))?;
        Some(if place.is_multiple_of(2) { *even } else { *odd })
    };
    let words: Vec<&str> = fingerprint.0.iter().take(BYTES).enumerate().filter_map(word).collect();
    words.join(" ")
}

/// Whether somebody's text means this fingerprint: all of its words in any case and with any gaps, or its 64 digits.
pub fn is_spoken(fingerprint: &Fingerprint, text: &str) -> bool {
    let words = text.split(|it: char| it.is_whitespace() || matches!(it, '-' | ',')).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_lowercase).collect();
    words.join(" ") == spoken(fingerprint) || Fingerprint::from_str(text.trim()) == Ok(*fingerprint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn print(byte: u8) -> Fingerprint {
        Fingerprint(std::array::from_fn(|index| byte.wrapping_add(u8::try_from(index).expect("small"))))
    }

    #[test]
    fn the_list_has_two_words_for_each_byte_and_no_word_twice() {
        let words: Vec<&str> = LIST.split_whitespace().collect();
        assert_eq!((LIST.lines().count(), words.len()), (256, 512));
        assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), 512);
        assert!(words.iter().all(|word| word.chars().all(|it| it.is_ascii_lowercase())));
    }

    #[test]
    fn the_published_example_reads_as_published() {
        // E582 94F2 E9A2 2748, the beginning of the example that the list's inventors give.
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&[0xe5, 0x82, 0x94, 0xf2, 0xe9, 0xa2, 0x27, 0x48]);
        let words = spoken(&Fingerprint(bytes));
        assert!(words.starts_with("topmost istanbul pluto vagabond treadmill pacific brackish dictator"), "{words}");
        assert_eq!(words.split(' ').count(), BYTES);
    }

    #[test]
    fn words_mean_their_fingerprint_and_no_other() {
        let words = spoken(&print(7));
        for text in [words.clone(), words.to_uppercase(), words.replace(' ', "-"), format!("  {words}\n")] {
            assert!(is_spoken(&print(7), &text), "{text}");
        }
        assert!(is_spoken(&print(7), &print(7).to_string()));
        let (most, _last) = words.rsplit_once(' ').expect("many words");
        for text in ["", most, &spoken(&print(8)), &print(8).to_string(), &words.replacen("ahead", "amulet", 1)] {
            assert!(!is_spoken(&print(7), text), "{text}");
        }
    }
}
