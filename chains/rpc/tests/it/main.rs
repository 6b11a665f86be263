//! Tests of the pool with stand-in servers.

mod pool;
