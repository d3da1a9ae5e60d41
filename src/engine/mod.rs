//! One runtime's decisions, as a value.

pub mod effect;
pub mod input;
pub mod judge;
pub mod record;
pub mod view;
pub mod word;
