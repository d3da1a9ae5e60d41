//! Every byte that crosses a process: the only layer, beside settings and the command line, that knows serialisation.

pub mod api;
