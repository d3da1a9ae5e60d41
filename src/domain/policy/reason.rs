//! Why, in one sentence.

use std::borrow::Cow;
use std::fmt;

use crate::domain::id::RuntimeId;

/// One sentence with the values that decided. Two are equal if they read the same.
#[derive(Clone)]
pub struct Reason(Sentence);

#[derive(Clone)]
enum Sentence {
    Whole(Cow<'static, str>),
    /// Put together only where somebody reads it: a plan for a thousand targets has a thousand of them.
    About(RuntimeId, &'static [&'static str; 2]),
}

impl Reason {
    /// A sentence about a runtime, which stands between the two parts.
    pub fn about(runtime: &RuntimeId, around: &'static [&'static str; 2]) -> Self {
        Self(Sentence::About(runtime.clone(), around))
    }

    /// The sentence in the order in which it is read.
    fn parts(&self) -> [&str; 5] {
        match &self.0 {
            Sentence::Whole(text) => [text, "", "", "", ""],
            Sentence::About(runtime, [before, after]) => {
                [before, runtime.site.as_str(), "/", runtime.name.as_str(), after]
            }
        }
    }
}

impl From<&'static str> for Reason {
    fn from(text: &'static str) -> Self {
        Self(Sentence::Whole(Cow::Borrowed(text)))
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(Sentence::Whole(Cow::Owned(text)))
    }
}

impl PartialEq for Reason {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (self.parts(), other.parts());
        left.iter().flat_map(|part| part.bytes()).eq(right.iter().flat_map(|part| part.bytes()))
    }
}

impl Eq for Reason {}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().filter(|part| !part.is_empty()).try_for_each(|part| formatter.write_str(part))
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_reads_the_same_however_it_was_put_together() {
        let runtime: RuntimeId = "south/press-4".parse().expect("legal");
        let about = Reason::about(&runtime, &["this runtime has never heard of ", ", so far"]);
        assert_eq!(about.to_string(), "this runtime has never heard of south/press-4, so far");
        assert_eq!(about, Reason::from("this runtime has never heard of south/press-4, so far"));
        assert_eq!(Reason::about(&runtime, &["", ""]), Reason::from("south/press-4".to_owned()));
        assert_ne!(Reason::about(&runtime, &["", " is offline"]), Reason::about(&runtime, &["", " is partitioned"]));
    }
}
