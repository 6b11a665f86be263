//! Tests of model chains through their public interface, as buyers, operators and a follower use it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

mod contract;
mod faults;
mod journal;
mod nodes;
mod payments;
mod properties;
mod reorgs;
