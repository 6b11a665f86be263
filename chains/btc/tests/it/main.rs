//! Tests of the driver with a real Bitcoin Core node, over both backends, with honest servers and with servers that
//! falsify answers.

#![expect(clippy::unwrap_used, reason = "a failed step of a test fails the test")]

mod world;

mod lying;
mod reading;
mod sending;
mod waiting;
