//! The pool in front of stand-in servers.

mod pool;
