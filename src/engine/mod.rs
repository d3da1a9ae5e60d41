//! One runtime's decisions, as a value.

pub mod record;
