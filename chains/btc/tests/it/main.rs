//! The driver against a real node, over both accesses, honest and behind servers that lie.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

mod lying;
mod reading;
mod sending;
mod waiting;
