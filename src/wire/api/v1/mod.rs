//! Version 1 of the HTTP bodies: requests parsed strictly into the domain's types, answers written from them.
//!
//! An unknown field, a duplicate key and `null` are refused; an absent value is left out of an answer. HTTP statuses are not
//! here: they live in `web`.

pub mod action;
pub mod audit;
pub mod config;
pub mod control;
pub mod decision;
pub mod error;
pub mod health;
pub(in crate::wire) mod json;
pub mod openapi;
pub mod state;
pub mod watch;

use serde::{Serialize, Serializer};

use crate::domain::id::{RequestId, RuntimeId, SiteId};

/// The version that every answer carries.
pub const API_VERSION: &str = "1.0";

/// Most characters repeated of a name that is none: the longest good one has 129.
const TEXT_CHARS_MAX: usize = 160;

/// Why a body or a query is not what the contract asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct Fault {
    /// Where, as a JSON pointer; empty for the body as a whole.
    pub pointer: String,
    /// What was wanted and got.
    pub detail: String,
    /// In which request, where its name could be read.
    pub request_id: Option<RequestId>,
}

impl Fault {
    fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), request_id: None }
    }
}

/// Whether a request of this version is read: any `1` or `1.<minor>`, because minor versions only add.
fn is_readable_version(text: &str) -> bool {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |part: &str| !part.is_empty() && part.len() <= 4 && part.bytes().all(|it| it.is_ascii_digit());
    major == "1" && is_number(minor)
}

/// A runtime in an answer: bare for the own site, qualified for another one, or the text that the caller gave.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// A runtime as a reader of this site names it.
    Id(&'a RuntimeId, &'a SiteId),
    /// What the caller gave in its place.
    Text(&'a str),
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(id, own) if id.site == **own => serializer.serialize_str(id.name.as_str()),
            Self::Id(id, _) => serializer.collect_str(id),
            // No name of ours has these characters, and a terminal should not see them.
            Self::Text(text) => {
                let visible = |it: char| if it.is_ascii_graphic() { it } else { char::REPLACEMENT_CHARACTER };
                serializer.collect_str(&text.chars().take(TEXT_CHARS_MAX).map(visible).collect::<String>())
            }
        }
    }
}

/// Writes an answer.
fn encode(body: &impl Serialize) -> Vec<u8> {
    encode_within(body, 128)
}

/// Writes an answer of about so many bytes. One that grows as it is written is copied again and again, and what it leaves behind
/// each time makes the allocator give memory back to the system and ask for it anew.
fn encode_within(body: &impl Serialize, bytes: usize) -> Vec<u8> {
    let mut answer = Vec::with_capacity(bytes);
    #[expect(
        clippy::expect_used,
        reason = "our bodies have text keys and no fallible fields: nothing in them can fail"
    )]
    serde_json::to_writer(&mut answer, body).expect("an answer is always JSON");
    answer
}
