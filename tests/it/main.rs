//! Stories at the highest level. They run the real daemon on a free port, on model chains or real nodes, with a clock
//! that tests move.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

#[macro_use]
mod both;
mod world;
mod placed_order;

mod bitcoin;
mod checkout;
mod account_keys;
mod aftermath;
mod auditing;
mod commands;
mod crowd;
mod disputed;
mod outages;
mod second_source;
mod evm;
mod rates;
mod letters;
mod receiving;
mod unconfirmed;
mod soak;
mod tidy;
mod tron;
mod unit;
mod used_addresses;
mod windows;
