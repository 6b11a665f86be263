//! Time is a parameter: all code below the module `daemon` gets the current time as `now`, which comes from a
//! [`Clock`].

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

impl Instant {
    /// Returns the instant that is `ms` milliseconds after this one. The result is at most the last instant that the
    /// type can represent.
    pub const fn plus_ms(self, ms: i64) -> Instant {
        Instant(self.0.saturating_add(ms))
    }

    /// Returns the instant that is `seconds` seconds after this one. The result is at most the last instant that the
    /// type can represent.
    pub const fn plus_seconds(self, seconds: i64) -> Instant {
        self.plus_ms(seconds.saturating_mul(1000))
    }

    /// Returns the milliseconds from `earlier` to this instant; negative when `earlier` is the later one.
    pub const fn since(self, earlier: Instant) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the whole seconds since 1970-01-01T00:00:00Z, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Returns the instant that is `seconds` seconds after 1970-01-01T00:00:00Z.
    pub const fn from_unix_seconds(seconds: i64) -> Instant {
        Instant(seconds.saturating_mul(1000))
    }
}

/// Writes the instant as RFC 3339 text in UTC with whole seconds, such as `2026-02-11T12:00:00Z`. An instant outside
/// the years -9999 to 9999 is written as its number of milliseconds.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.unix_seconds()) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// The source of the current time.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The clock of the machine.
    System,
    /// The clock of the machine plus this number of milliseconds. The demo increases the number to skip time.
    Ahead(Arc<AtomicI64>),
    /// A time in milliseconds since 1970-01-01T00:00:00Z that stands still until a test advances it.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Returns a clock that is `ms` milliseconds ahead of the clock of the machine.
    pub fn ahead(ms: i64) -> Clock {
        Clock::Ahead(Arc::new(AtomicI64::new(ms)))
    }

    /// Returns a clock that shows `start` until it is advanced.
    pub fn manual(start: Instant) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    /// Returns the current time.
    #[expect(
        clippy::disallowed_methods,
        reason = "all other code reads the clock of the machine through this function"
    )]
    pub fn now(&self) -> Instant {
        let machine = || Instant(jiff::Timestamp::now().as_millisecond());
        match self {
            Clock::System => machine(),
            Clock::Ahead(ms) => machine().plus_ms(ms.load(Ordering::SeqCst)),
            Clock::Manual(ms) => Instant(ms.load(Ordering::SeqCst)),
        }
    }

    /// Returns the milliseconds since a fixed moment in the run of this process. The value never decreases when the
    /// clock of the machine is set back, so rate limits keep working. A manual clock returns its manual time.
    pub fn monotonic_now(&self) -> Instant {
        static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        let since_start = || Instant(i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX));
        match self {
            Clock::System => since_start(),
            Clock::Ahead(ms) => since_start().plus_ms(ms.load(Ordering::SeqCst)),
            Clock::Manual(ms) => Instant(ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves the clock forward by `ms` milliseconds; backward when `ms` is negative. A system clock cannot be moved, so
    /// it stays unchanged.
    pub fn advance_ms_unless_system(&self, ms: i64) {
        match self {
            Clock::System => {}
            Clock::Ahead(now) | Clock::Manual(now) => {
                now.fetch_add(ms, Ordering::SeqCst);
            }
        }
    }
}
