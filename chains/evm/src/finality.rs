//! The height that the chain calls final, from what several endpoints claim. Pure: the time is a parameter.
//!
//! It never goes backwards, and one endpoint alone cannot push it ahead while another one answers.

use std::time::Duration;

use chain::Height;
use tokio::time::Instant;

/// An older claim no longer holds others back.
const CLAIM_FRESH_FOR: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub struct Claims {
    by_endpoint: Vec<Option<(Height, Instant)>>,
    agreed: Option<Height>,
}

impl Claims {
    pub fn new(endpoints: usize) -> Claims {
        Claims { by_endpoint: vec![None; endpoints], agreed: None }
    }

    pub fn claim(&mut self, endpoint: usize, height: Height, now: Instant) {
        if let Some(slot) = self.by_endpoint.get_mut(endpoint) {
            *slot = Some((height, now));
        }
        let mut fresh = self.fresh(now);
        fresh.sort_unstable_by(|a, b| b.cmp(a));
        // The second highest: two endpoints say at least this much.
        let agreed = fresh.get(1).or(fresh.first()).copied();
        self.agreed = self.agreed.max(agreed);
    }

    /// How many endpoints were heard lately.
    pub fn heard(&self, now: Instant) -> usize {
        self.fresh(now).len()
    }

    pub fn agreed(&self) -> Option<Height> {
        self.agreed
    }

    fn fresh(&self, now: Instant) -> Vec<Height> {
        let fresh = |(_, at): &&(Height, Instant)| now.saturating_duration_since(*at) < CLAIM_FRESH_FOR;
        self.by_endpoint.iter().flatten().filter(fresh).map(|(height, _)| *height).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_endpoints_must_agree_and_nothing_goes_back() {
        let start = Instant::now();
        let mut claims = Claims::new(2);
        claims.claim(0, 100, start);
        assert_eq!(claims.agreed(), Some(100), "nobody else was heard");
        claims.claim(1, 90, start);
        claims.claim(0, 1_000, start);
        assert_eq!(claims.agreed(), Some(100), "one alone does not push it");
        claims.claim(1, 900, start);
        assert_eq!(claims.agreed(), Some(900));
        claims.claim(0, 10, start);
        claims.claim(1, 10, start);
        assert_eq!(claims.agreed(), Some(900), "never backwards");
        claims.claim(0, 2_000, start + CLAIM_FRESH_FOR);
        assert_eq!(claims.agreed(), Some(2_000), "a silent endpoint does not hold it back for ever");
    }
}
