//! Handshakes over real sockets, and files on a real disk.

mod disk;
mod handshake;
