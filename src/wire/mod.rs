//! Every byte that crosses a process: the only layer, beside settings and the command line, that knows serialisation.
//!
//! A form is parsed strictly into the domain's types and never used past this layer.

pub mod api;
pub mod bundle;
pub mod mesh;
mod named;
pub mod record;
pub mod run;
pub mod value;
