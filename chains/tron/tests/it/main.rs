//! Tests of the driver against the stand-in node over HTTP, and of its encodings against published vectors.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod costing;
mod reading;
mod second_source;
mod sending;
mod vectors;
mod world;
