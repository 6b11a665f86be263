//! Time is a parameter: everything below `daemon` gets `now` from a [`Clock`].

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
    pub const fn plus_ms(self, ms: i64) -> Instant {
        Instant(self.0.saturating_add(ms))
    }

    pub const fn plus_seconds(self, seconds: i64) -> Instant {
        self.plus_ms(seconds.saturating_mul(1000))
    }

    /// Milliseconds from `earlier` to here; negative when it is later.
    pub const fn since(self, earlier: Instant) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub const fn from_unix_seconds(seconds: i64) -> Instant {
        Instant(seconds.saturating_mul(1000))
    }
}

/// RFC 3339 in UTC with whole seconds: `2026-02-11T12:00:00Z`.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.unix_seconds()) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

/// Where `now` comes from: the machine, the machine and a demo that runs ahead of it, or a test that moves it by hand.
#[derive(Debug, Clone)]
pub enum Clock {
    System,
    /// The machine's clock and so many milliseconds.
    Ahead(Arc<AtomicI64>),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn ahead(ms: i64) -> Clock {
        Clock::Ahead(Arc::new(AtomicI64::new(ms)))
    }

    pub fn manual(start: Instant) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> Instant {
        let machine = || Instant(jiff::Timestamp::now().as_millisecond());
        match self {
            Clock::System => machine(),
            Clock::Ahead(ms) => machine().plus_ms(ms.load(Ordering::SeqCst)),
            Clock::Manual(ms) => Instant(ms.load(Ordering::SeqCst)),
        }
    }

    /// For limits, which must not stand still or open when the machine's clock is set: milliseconds since some moment of
    /// this process, which never go back.
    pub fn steady(&self) -> Instant {
        static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        let since_start = || Instant(i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX));
        match self {
            Clock::System => since_start(),
            Clock::Ahead(ms) => since_start().plus_ms(ms.load(Ordering::SeqCst)),
            Clock::Manual(ms) => Instant(ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; a system clock does not move for anybody.
    pub fn advance_ms(&self, ms: i64) {
        match self {
            Clock::System => {}
            Clock::Ahead(now) | Clock::Manual(now) => {
                now.fetch_add(ms, Ordering::SeqCst);
            }
        }
    }
}
