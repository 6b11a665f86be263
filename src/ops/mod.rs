//! Supervises the daemon: reports problems at `/readyz` and notifies systemd. Has no business rules.

pub mod disk;
pub mod signals;
pub mod supervisor;
mod systemd;
