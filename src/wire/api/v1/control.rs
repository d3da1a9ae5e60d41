//! Bodies of local control: what an admin asks of this node itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::{self, present};
use super::{API_VERSION, Fault, Shown, encode, is_readable_version};
use crate::domain::id::RuntimeId;
use crate::domain::identity::Fingerprint;

/// Asks something of this node that concerns no peer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlBody {
    /// Version of this contract; any `1.x` is read.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, pattern = "^1(\\.[0-9]{1,4})?$")]
    api_version: Option<String>,
}

/// Asks something of this node that concerns a peer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerBody {
    /// Version of this contract; any `1.x` is read.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, pattern = "^1(\\.[0-9]{1,4})?$")]
    api_version: Option<String>,
    /// Which peer: a bare name of the own site or `<site>/<name>`.
    #[schema(pattern = "^((?!\\.{1,2}/)[A-Za-z0-9._-]{1,64}/)?(?!\\.{1,2}$)[A-Za-z0-9._-]{1,64}$")]
    runtime_id: String,
    /// The key that a person has compared: 64 lower-case hexadecimal digits. Taken by `peers-approve` only.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, pattern = "^[0-9a-f]{64}$")]
    fingerprint: Option<String>,
}

/// It is done and on record.
#[derive(Debug, Serialize, ToSchema)]
pub struct DoneBody<'a> {
    api_version: &'static str,
    /// Always true.
    ok: bool,
    /// The node that did it.
    #[schema(value_type = String)]
    connected_via: Shown<'a>,
}

/// What became of reading the node's files again: each was taken up as a whole, or not at all.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReloadedBody<'a> {
    api_version: &'static str,
    /// Whether nothing was rejected.
    ok: bool,
    /// The node that did it.
    #[schema(value_type = String)]
    connected_via: Shown<'a>,
    /// What changed and holds from now on: sections of runtime.toml, names of files.
    applied: &'a [String],
    /// What changed and takes effect at the next start.
    needs_restart: &'a [String],
    /// What is not valid: of it, what was in force stays. Everything else is taken up.
    rejected: Vec<RejectedBody<'a>>,
}

/// A file that was not taken up.
#[derive(Debug, Serialize, ToSchema)]
pub struct RejectedBody<'a> {
    /// Which.
    what: &'a str,
    /// What is wrong with it, with places.
    reason: &'a str,
}

/// Reads a request that concerns no peer.
pub fn read_plain(bytes: &[u8]) -> Result<(), Fault> {
    let body: ControlBody = json::parse(bytes)?;
    check_version(body.api_version.as_deref())
}

/// Reads a request that concerns a peer: whom, and the key that was compared.
pub fn read_peer(bytes: &[u8], me: &RuntimeId) -> Result<(RuntimeId, Option<Fingerprint>), Fault> {
    let body: PeerBody = json::parse(bytes)?;
    check_version(body.api_version.as_deref())?;
    let runtime =
        RuntimeId::parse_in(&body.runtime_id, &me.site).map_err(|error| Fault::at("/runtime_id", error.to_string()))?;
    let fingerprint = body.fingerprint.map(|text| text.parse()).transpose();
    let fingerprint = fingerprint.map_err(|error| Fault::at("/fingerprint", format!("{error}")))?;
    Ok((runtime, fingerprint))
}

/// It is done.
pub fn answer(me: &RuntimeId) -> Vec<u8> {
    encode(&DoneBody { api_version: API_VERSION, ok: true, connected_via: Shown::Id(me, &me.site) })
}

/// The files were read again; `rejected` holds names and reasons.
pub fn reloaded<'a>(
    me: &RuntimeId,
    applied: &[String],
    needs_restart: &[String],
    rejected: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<u8> {
    let rejected: Vec<_> = rejected.map(|(what, reason)| RejectedBody { what, reason }).collect();
    encode(&ReloadedBody {
        api_version: API_VERSION,
        ok: rejected.is_empty(),
        connected_via: Shown::Id(me, &me.site),
        applied,
        needs_restart,
        rejected,
    })
}

fn check_version(version: Option<&str>) -> Result<(), Fault> {
    match version {
        Some(text) if !is_readable_version(text) => {
            Err(Fault::at("/api_version", format!("wanted {API_VERSION} or another 1.x")))
        }
        Some(_) | None => Ok(()),
    }
}
