//! Tests of model chains as buyers, operators and a follower use them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

mod block_file;
mod contract;
mod faults;
mod second_endpoint;
mod nodes;
mod payments;
mod properties;
mod reorgs;
