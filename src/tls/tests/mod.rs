//! Handshakes over real sockets, files on a real disk, and until when certificates hold.

mod disk;
mod ends;
mod handshake;
