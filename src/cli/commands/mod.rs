//! One file per noun; each command is a thin call to the HTTP API, but for those that work on a folder.

pub mod audit;
pub mod control;
pub mod identity;
pub mod peers;
pub mod play;
pub mod policy;
pub mod runs;
pub mod status;
pub mod token;
pub mod validate;
