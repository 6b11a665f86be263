//! settled: a self-hosted crypto payment and settlement daemon. ARCHITECTURE.md describes its structure.

pub mod feeds;
pub mod workers;
pub mod daemon;
pub mod ops;
pub mod control;
pub mod commands;
