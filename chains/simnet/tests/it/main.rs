//! Model chains from the outside: as a buyer, an operator and a follower see them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod support;

mod contract;
mod faults;
mod journal;
mod nodes;
mod payments;
mod properties;
mod reorgs;
