//! The pool against stand-in servers.

mod pool;
