//! The confirmations that deposits need, by the value of the payment.

/// The required confirmations of deposits on one chain. A deposit in the tip block has 1 confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depths {
    /// Pairs of an upper bound in minor units of USD, and the confirmations that a payment worth less than the bound
    /// needs. Sorted by bound.
    pub tiers: Vec<(i64, u32)>,
    /// The confirmations that a payment needs when its value is unknown or at least the highest bound.
    pub largest: u32,
    /// The confirmations after which a block is final, on a chain whose nodes do not report finality.
    pub last: u32,
    /// The minimum number of confirmations, which applies even to blocks that the node reports as final.
    pub least: u32,
}

impl Depths {
    /// Returns depths that are the same for payments of every value. A block is final after `last` confirmations.
    pub fn depths_without_tiers(confirmations: u32, last: u32) -> Depths {
        Depths { tiers: Vec::new(), largest: confirmations, last: last.max(confirmations), least: 0 }
    }

    /// Returns the number of confirmations, at least 1, that a payment worth `usd_minor` minor units of USD needs. A
    /// payment of unknown value (`None`) needs as many as the largest payments.
    pub fn required_confirmations(&self, usd_minor: Option<i64>) -> u32 {
        let tier = usd_minor.and_then(|worth| self.tiers.iter().find(|(bound, _)| worth < *bound));
        tier.map_or(self.largest, |(_, confirmations)| *confirmations).max(1)
    }
}
