//! The numbers of confirmations that deposits need, depending on the value of the payment.

/// The numbers of confirmations that deposits on one chain need. A deposit in the newest block has 1 confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depths {
    /// Pairs, sorted by their first number. The first number is an upper bound in cents of USD; the second is the
    /// number of confirmations that a payment worth less than this bound needs.
    pub tiers: Vec<(i64, u32)>,
    /// The number of confirmations that a payment needs when its value is unknown, or when it is at least the highest
    /// bound.
    pub largest: u32,
    /// The number of confirmations after which a block is final, when the nodes of the chain do not report which blocks
    /// are final or their report stops advancing.
    pub last: u32,
    /// The number of confirmations that every block needs before it is final, even when the node already reports the
    /// block as final.
    pub least: u32,
}

impl Depths {
    /// Returns depths that are the same for payments of every value: `confirmations` for a payment, and `last`, but at
    /// least `confirmations`, until a block is final.
    pub fn depths_without_tiers(confirmations: u32, last: u32) -> Depths {
        Depths { tiers: Vec::new(), largest: confirmations, last: last.max(confirmations), least: 0 }
    }

    /// Returns the number of confirmations, at least 1, that a payment worth `usd_minor` cents of USD needs. A payment
    /// of unknown value (`None`) needs as many as the largest payments.
    pub fn required_confirmations(&self, usd_minor: Option<i64>) -> u32 {
        let tier = usd_minor.and_then(|worth| self.tiers.iter().find(|(bound, _)| worth < *bound));
        tier.map_or(self.largest, |(_, confirmations)| *confirmations).max(1)
    }
}
