//! Several nodes on a mesh in memory.
