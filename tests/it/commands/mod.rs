//! The real binary, as operators and service managers run it.

mod admin;
mod backup;
mod daemon;
mod slow_bodies;
mod damaged;
mod demo;
mod operator;
pub mod program;
mod shop;
