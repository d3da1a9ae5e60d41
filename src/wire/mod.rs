//! Forms that leave the process: what is stored, hashed and sent, as bytes. The only layer below settings that knows serde.
//!
//! A form is parsed strictly into the domain's types and never used past this layer.

pub mod record;
