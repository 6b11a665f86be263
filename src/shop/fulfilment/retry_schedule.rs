//! The retry schedule of failed deliveries. This file uses no database and no clock.

/// The number of failed delivery attempts after which the order is marked as failed and not retried.
pub const ATTEMPTS_MAX: u32 = 8;

/// The delay after the first failed delivery attempt, in milliseconds. Each further failure makes the delay four times
/// as long.
const FIRST_DELAY_MS: i64 = 10_000;
/// The longest delay between two delivery attempts, in milliseconds.
const LONGEST_DELAY_MS: i64 = 15 * 60_000;

/// The cause of a failed delivery attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// Items are missing or damaged, so retries are not expected to succeed without an operator.
    DamagedItems,
    /// The key that decrypts the items is missing, or the key ring holds a different key under its id. The order waits
    /// until an operator restores the key.
    MissingKey,
}

/// The step after a failed delivery attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// The delivery is attempted again after a delay.
    Retry {
        /// The number of failed attempts so far, to be stored.
        attempts: u32,
        /// The delay until the next attempt, in milliseconds.
        after_ms: i64,
    },
    /// The order is marked as failed, and its delivery is not attempted again.
    Fail,
}

/// Returns the step after a failed delivery attempt. `attempts` is the number of attempts that had failed before this
/// one.
pub fn choose_step_after_failure(cause: FailureCause, attempts: u32) -> NextStep {
    match cause {
        // An attempt without the key does not count as failed, so all attempts remain for failures with another cause.
        FailureCause::MissingKey => NextStep::Retry { attempts, after_ms: LONGEST_DELAY_MS },
        FailureCause::DamagedItems => {
            let failed = attempts.saturating_add(1);
            if failed >= ATTEMPTS_MAX {
                return NextStep::Fail;
            }
            let after_ms = FIRST_DELAY_MS.saturating_mul(1_i64.checked_shl(2 * attempts).unwrap_or(i64::MAX));
            NextStep::Retry { attempts: failed, after_ms: after_ms.min(LONGEST_DELAY_MS) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_the_order_fails() {
        let seconds = [10, 40, 160, 640, 900, 900, 900];
        for (attempts, seconds) in (0_u32..).zip(seconds) {
            let expected = NextStep::Retry { attempts: attempts + 1, after_ms: seconds * 1000 };
            assert_eq!(choose_step_after_failure(FailureCause::DamagedItems, attempts), expected);
        }
        assert_eq!(choose_step_after_failure(FailureCause::DamagedItems, ATTEMPTS_MAX - 1), NextStep::Fail);
        assert_eq!(choose_step_after_failure(FailureCause::DamagedItems, u32::MAX), NextStep::Fail);
    }

    #[test]
    fn a_missing_key_is_retried_without_end() {
        for attempts in [0, ATTEMPTS_MAX - 1, u32::MAX] {
            let expected = NextStep::Retry { attempts, after_ms: 15 * 60_000 };
            assert_eq!(choose_step_after_failure(FailureCause::MissingKey, attempts), expected);
        }
    }
}
