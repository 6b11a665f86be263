//! What follows a failed delivery. Pure: no database, no clock.

/// Failed attempts after which an order is given up.
pub const ATTEMPTS_MAX: u32 = 8;

const FIRST_DELAY_MS: i64 = 10_000;
const LONGEST_DELAY_MS: i64 = 15 * 60_000;

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The goods are not what they were: nobody expects them to come back by themselves.
    Goods,
    /// The key that reads them is not there, or another one has its name. The order was paid and has its goods, so it waits until somebody restores the key.
    Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// With the attempts that failed so far.
    Retry {
        attempts: u32,
        after_ms: i64,
    },
    GiveUp,
}

/// One more attempt failed, after `attempts` failed ones.
pub fn after_failure(failure: Failure, attempts: u32) -> Next {
    match failure {
        // These attempts do not count: what fails later for another reason has all of its own.
        Failure::Key => Next::Retry { attempts, after_ms: LONGEST_DELAY_MS },
        Failure::Goods => {
            let failed = attempts.saturating_add(1);
            if failed >= ATTEMPTS_MAX {
                return Next::GiveUp;
            }
            let after_ms = FIRST_DELAY_MS.saturating_mul(1_i64.checked_shl(2 * attempts).unwrap_or(i64::MAX));
            Next::Retry { attempts: failed, after_ms: after_ms.min(LONGEST_DELAY_MS) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_it_is_given_up() {
        let seconds = [10, 40, 160, 640, 900, 900, 900];
        for (attempts, seconds) in (0_u32..).zip(seconds) {
            let expected = Next::Retry { attempts: attempts + 1, after_ms: seconds * 1000 };
            assert_eq!(after_failure(Failure::Goods, attempts), expected);
        }
        assert_eq!(after_failure(Failure::Goods, ATTEMPTS_MAX - 1), Next::GiveUp);
        assert_eq!(after_failure(Failure::Goods, u32::MAX), Next::GiveUp);
    }

    #[test]
    fn a_missing_key_is_waited_for() {
        for attempts in [0, ATTEMPTS_MAX - 1, u32::MAX] {
            let expected = Next::Retry { attempts, after_ms: 15 * 60_000 };
            assert_eq!(after_failure(Failure::Key, attempts), expected);
        }
    }
}
