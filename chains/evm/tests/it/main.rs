//! The driver against a real node, honest and behind proxies that lie.

mod world;

mod lying;
mod reading;
mod sending;
