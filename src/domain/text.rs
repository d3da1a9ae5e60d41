//! Texts of strangers, as they may stand in an answer, a log or a record.

use std::borrow::Cow;

/// The text without what would make its reader see something else than what is there: such characters are named by number.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if deceives(character) {
            escaped.extend(character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// No more than the beginning of such a text.
pub fn shown_in_part(text: &str, chars_max: usize) -> String {
    let end = text.char_indices().nth(chars_max).map_or(text.len(), |(at, _)| at);
    shown(text.get(..end).unwrap_or_default()).into_owned()
}

/// Characters that move a terminal's cursor, turn the direction of the line, or cannot be seen.
fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_is_named_and_the_rest_is_left_alone() {
        for (text, expected) in [
            ("", ""),
            ("log.level \"ä\" \\ 漢", "log.level \"ä\" \\ 漢"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("\u{feff}\u{200b}\u{85}\u{7f}", "\\u{feff}\\u{200b}\\u{85}\\u{7f}"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown_in_part("ää\u{202e}ä", 3), "ää\\u{202e}");
        assert_eq!(shown_in_part("ab", 3), "ab");
    }
}
