//! The driver against the stand-in node, over HTTP, and its bytes against vectors.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod costing;
mod reading;
mod sending;
mod vectors;
mod world;
