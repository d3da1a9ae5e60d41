//! SPIFFE ids in their canonical bytes, and the actors they name.

use trust_runtime::domain::identity::{Actor, SpiffeId};

use crate::case_file::{assert_none, rows};

/// What the table says in its first column.
fn check(verdict: &str, text: &str) -> Result<(), String> {
    let id = text.parse::<SpiffeId>();
    let actor = text.parse::<Actor>();
    if let Ok(id) = &id
        && id.to_string() != text
    {
        return Err(format!("displays as {id}"));
    }
    if let Ok(actor) = &actor
        && (actor.to_string() != text || id.is_err())
    {
        return Err(format!("displays as {actor}"));
    }
    let folded = text.to_ascii_lowercase();
    let is_met = match verdict {
        "valid" => id.is_ok(),
        "invalid" => id.is_err() && actor.is_err(),
        "actor-invalid" => id.is_ok() && actor.is_err(),
        "actor-valid" => actor.is_ok(),
        // No neighbor that somebody might take for it may be equal to it.
        "actor-valid-distinct" => [folded.replace("site-a.", "site-a"), folded.replace("site-a/", "site-a./")]
            .iter()
            .filter(|other| *other != text)
            .all(|other| actor.is_ok() && actor != other.parse()),
        other => return Err(format!("unknown verdict {other}")),
    };
    if is_met { Ok(()) } else { Err(format!("wanted {verdict}, got {id:?} and {actor:?}")) }
}

fn check_table(name: &str) {
    let mut wrong = Vec::new();
    for row in rows(name) {
        let [verdict, escaped, reason] = row.as_slice() else { panic!("{name}: wanted three columns in {row:?}") };
        let text: String = serde_json::from_str(&format!("\"{escaped}\"")).expect("JSON escapes");
        if let Err(fault) = check(verdict, &text) {
            wrong.push(format!("{escaped:.100}: {fault} ({reason})"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn spiffe_ids() {
    check_table("actor/spiffe_ids.tsv");
}

#[test]
fn actors() {
    check_table("actor/actors.tsv");
}

#[test]
fn every_code_point_in_a_trust_domain_and_in_a_path_is_judged_by_the_grammar() {
    let mut wrong = Vec::new();
    for character in (0..=0x2ff).filter_map(char::from_u32) {
        let is_common = character.is_ascii_digit() || matches!(character, '.' | '-' | '_');
        let in_domain = is_common || character.is_ascii_lowercase();
        let in_path = is_common || character.is_ascii_alphabetic();
        for (text, is_legal) in [
            // A slash ends the trust domain and begins a path that is not empty.
            (format!("spiffe://trust{character}x/site-a/alice"), in_domain || character == '/'),
            (format!("spiffe://trust/site-a/alice{character}x"), in_path || character == '/'),
        ] {
            if text.parse::<SpiffeId>().is_ok() != is_legal {
                wrong.push(format!("{text:?}: wanted {is_legal}"));
            }
        }
    }
    assert_none(&wrong);
}
