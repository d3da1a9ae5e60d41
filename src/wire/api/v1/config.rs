//! `GET /api/runtime-cloud/config`: the live settings of this node, asked for and in force.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::encode;
use crate::engine::config_etag;
use crate::engine::view::View;
use crate::wire::value::to_json;

/// The configuration. Applied values take effect at once, so what is desired is what is reported.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigBody {
    /// Values applied over the file, by key.
    #[schema(value_type = Object)]
    desired: BTreeMap<String, Json>,
    /// Every live setting as it holds, by key.
    #[schema(value_type = Object)]
    reported: BTreeMap<String, Json>,
    /// Revisions and etags.
    meta: MetaBody,
    /// How desired and reported relate.
    status: StatusBody,
}

/// Revisions and etags of the configuration.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetaBody {
    /// Counts the applications.
    desired_revision: u64,
    /// The same: applied is in force.
    reported_revision: u64,
    /// The hash of the applied values.
    desired_etag: String,
    /// The same.
    reported_etag: String,
}

/// How desired and reported relate.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatusBody {
    /// `in_sync`: there is no way to apply a value that does not take effect at once.
    state: &'static str,
    /// The revision in force.
    applied_revision: u64,
}

/// This node's configuration.
pub fn answer(view: &View) -> Vec<u8> {
    let overlay = &view.overlay;
    let json = |values: &BTreeMap<_, _>| -> BTreeMap<String, Json> {
        values.iter().map(|(key, value): (&String, _)| (key.clone(), to_json(value))).collect()
    };
    let mut reported = json(&view.settings.file_values);
    let desired = json(&overlay.values);
    reported.extend(desired.clone());
    let etag = config_etag(overlay).to_string();
    encode(&ConfigBody {
        desired,
        reported,
        meta: MetaBody {
            desired_revision: overlay.revision,
            reported_revision: overlay.revision,
            desired_etag: etag.clone(),
            reported_etag: etag,
        },
        status: StatusBody { state: "in_sync", applied_revision: overlay.revision },
    })
}
