//! Heads of audit logs and the words about them, as rows.

use serde::{Deserialize, Serialize};

use super::fact::{Row, put};
use super::{Change, Error};
use crate::domain::audit::witness::{Break, Head};
use crate::domain::id::RuntimeId;
use crate::domain::time::Wall;
use crate::engine::record::{Countersigned, NotContinued, Record};

/// The kind of a peer's word for the own log.
pub const COUNTERSIGNED: &str = "countersigned";
/// The kind of the head of a peer's log.
pub const HEAD: &str = "head";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadBody {
    key: String,
    note: String,
    subtrees: Vec<String>,
    at_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountersignedBody {
    key: String,
    note: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedBody>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefusedBody {
    reason: String,
    held: String,
}

pub(super) fn put_head(runtime: &RuntimeId, head: &Head) -> Result<Change, Error> {
    let body = HeadBody {
        key: head.key.to_string(),
        note: head.note.clone(),
        subtrees: head.tree.roots().iter().map(ToString::to_string).collect(),
        at_ns: head.at.0,
        broken: head.broken.map(|it| it.as_str().to_owned()),
    };
    put(HEAD, runtime.to_string(), &body)
}

pub(super) fn put_countersigned(word: &Countersigned) -> Result<Change, Error> {
    let refused = word.refused.as_ref();
    let body = CountersignedBody {
        key: word.key.clone(),
        note: word.note.clone(),
        refused: refused.map(|it| RefusedBody { reason: it.reason.as_str().to_owned(), held: it.held.clone() }),
    };
    put(COUNTERSIGNED, word.witness.to_string(), &body)
}

impl Row<'_> {
    pub(super) fn head(&self) -> Result<Record, Error> {
        let runtime = self.field("runtime", self.key)?;
        let body: HeadBody = self.parse()?;
        let key = self.field("key", &body.key)?;
        let hash = |text: &String| self.field::<crate::domain::audit::Hash>("subtrees", text);
        let roots: Vec<_> = body.subtrees.iter().map(hash).collect::<Result<_, _>>()?;
        let subtrees: Vec<u8> = roots.iter().flat_map(|hash| hash.0).collect();
        let broken = body.broken.as_deref().map(|text| self.reason(text)).transpose()?;
        let head = Head::restore(key, body.note, &subtrees, Wall(body.at_ns), broken);
        let head = head.ok_or_else(|| self.refused("wanted a head whose parts belong together"))?;
        Ok(Record::Head { runtime, head: Box::new(head) })
    }

    pub(super) fn countersigned(&self) -> Result<Record, Error> {
        let witness = self.field("witness", self.key)?;
        let body: CountersignedBody = self.parse()?;
        let refused = body.refused.map(|it| Ok(NotContinued { reason: self.reason(&it.reason)?, held: it.held }));
        let refused = refused.transpose()?;
        Ok(Record::Countersigned(Box::new(Countersigned { witness, key: body.key, note: body.note, refused })))
    }

    fn reason(&self, text: &str) -> Result<Break, Error> {
        let found = Break::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or_else(|| self.refused("wanted a known break"))
    }
}
