//! The real binary, as people and service managers run it.

mod admin;
mod daemon;
mod demo;
pub mod program;
