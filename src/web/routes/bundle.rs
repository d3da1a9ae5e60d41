//! `GET /api/runtime-cloud/bundle`: the SPIFFE bundle endpoint of this site. It is public by nature: a bundle has no secrets,
//! and whoever fetches it has to check who serves it.

use crate::domain::code::Code;
use crate::web::error::{Kind, Problem};
use crate::web::router::{Answered, Call, Shared, json};
use crate::wire::bundle::render;

/// The own site's bundle.
pub(crate) fn read(shared: &Shared, _call: &Call) -> Answered {
    let view = shared.node.view();
    let none = || Problem::new(Kind::Failed(Code::NotConfigured), "runtime.identity.bundle_path names no bundle here");
    let bundle = view.settings.bundle.as_deref().ok_or_else(none)?;
    let unwritable =
        |fault: crate::wire::bundle::Malformed| Problem::new(Kind::Failed(Code::NotConfigured), fault.to_string());
    Ok(json(render(bundle).map_err(unwritable)?))
}
