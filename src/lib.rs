//! settled: a self-hosted crypto payment and settlement daemon. ARCHITECTURE.md is the map.

pub mod clock;
pub mod ids;
pub mod tasks;
pub mod config;
pub mod db;
pub mod envelope;
pub mod events;
pub mod reviews;
pub mod money;
pub mod shop;
pub mod access;
pub mod mail;
pub mod feeds;
pub mod workers;
pub mod http;
pub mod surfaces;
pub mod daemon;
pub mod ops;
pub mod commands;
