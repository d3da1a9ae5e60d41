//! Ed25519 as this product verifies it: strictly.
//!
//! The table holds the cases on which implementations disagree. Its messages are bare; what a runtime verifies is DSSE, so
//! the weak keys of the table are also tried on DSSE messages, where a lax check would accept some of them.

use ed25519_dalek::{Signature, VerifyingKey};
use trust_runtime::domain::envelope::dsse::{PayloadType, PublicKey};

use crate::case_file::{assert_none, rows};

/// The identity's encoding as R, and S = 0: under a key of small order this is "valid" for about every eighth message.
const NEUTRAL: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

const MESSAGES: u32 = 64;

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(pair).collect()
}

/// As DSSE 1.0.2 says it, apart from the product's own code.
fn encoding(kind: PayloadType, payload: &[u8]) -> Vec<u8> {
    let name = kind.as_str();
    [format!("DSSEv1 {} {name} {} ", name.len(), payload.len()).as_bytes(), payload].concat()
}

#[expect(clippy::disallowed_methods, reason = "shows what a lax check accepts")]
fn is_laxly_valid(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    ed25519_dalek::Verifier::verify(key, message, signature).is_ok()
}

#[test]
fn ed25519_strict_cases() {
    let mut wrong = Vec::new();
    for row in rows("envelope/ed25519_strict_cases.tsv") {
        let [index, strict, lax, what, message, key, signature] = row.as_slice() else { panic!("{row:?}") };
        let message = unhex(message);
        let signature = Signature::from_bytes(&unhex(signature).try_into().expect("64 bytes"));
        let key = VerifyingKey::from_bytes(&unhex(key).try_into().expect("32 bytes"));
        let verdict = |holds: bool| if holds { "accept" } else { "reject" };
        let got_strict = key.as_ref().is_ok_and(|key| key.verify_strict(&message, &signature).is_ok());
        let got_lax = key.as_ref().is_ok_and(|key| is_laxly_valid(key, &message, &signature));
        if (verdict(got_strict), verdict(got_lax)) != (strict.as_str(), lax.as_str()) {
            wrong.push(format!("{index} {what}: strict {got_strict}, lax {got_lax}"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_key_of_small_order_signs_nothing_here_although_a_lax_check_accepts_it() {
    let mut accepted_laxly = 0;
    for row in rows("envelope/ed25519_strict_cases.tsv").iter().filter(|row| row[1] != row[2]) {
        let bytes: [u8; 32] = unhex(&row[5]).try_into().expect("32 bytes");
        let key = VerifyingKey::from_bytes(&bytes).expect("a point");
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&NEUTRAL);
        for number in 0..MESSAGES {
            let payload = number.to_be_bytes();
            let message = encoding(PayloadType::Action, &payload);
            accepted_laxly += u32::from(is_laxly_valid(&key, &message, &Signature::from_bytes(&signature)));
            let verdict = PublicKey::new(bytes).verify(PayloadType::Action, &payload, &signature);
            assert!(verdict.is_err(), "{}: message {number}", row[3]);
        }
    }
    assert!(accepted_laxly > 0, "the messages show nothing");
}
