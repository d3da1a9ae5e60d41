//! A text that is never shown.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A token or another text that no log, error or debug output may carry.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes the text in.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that has to hand it on.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the given text is the secret.
    ///
    /// Both are hashed first: the time taken says nothing about where they differ, nor about the secret's length.
    pub fn matches(&self, given: &str) -> bool {
        let difference =
            digest(&self.0).iter().zip(digest(given)).fold(0_u8, |sum, (left, right)| sum | (left ^ right));
        std::hint::black_box(difference) == 0
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_compared_and_never_shown() {
        let secret = Secret::new("correct-horse");
        assert!(secret.matches("correct-horse"));
        for other in ["", "correct-hors", "correct-horsf", "correct-horse "] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert!(!format!("{secret:?}").contains("correct"));
    }
}
