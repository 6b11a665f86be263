//! The driver against a real node, honest and behind proxies that lie.

mod world;

mod balances;
mod logs;
mod lying;
mod reading;
mod sending;
mod throttled;
mod traces;
