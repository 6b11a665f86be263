//! The driver against the stand-in node, over HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod costing;
mod reading;
mod sending;
mod world;
