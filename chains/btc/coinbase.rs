//! Reads coinbase transactions: the block height that they contain (BIP34), and their outputs. The driver reports these
//! outputs as transfers only when they may be spent.

use bitcoin::Network;
use chain::{Height, SourceError, WatchSet};

use crate::{Bitcoin, paid_output::PaidOutput};

/// Number of confirmations that a coinbase output needs before it may be spent; the block of the coinbase counts as the
/// first. The driver reports the output as a transfer with the last of these blocks.
const COINBASE_MATURITY: usize = 100;
/// Height from which every coinbase of mainnet contains the height of its block (BIP34).
const MAINNET_BIP34_FROM: Height = 227_931;

/// Returns the block height that a coinbase script contains (BIP34): the number that its first item pushes, with
/// `OP_0`, `OP_1` to `OP_16`, or up to five bytes. Returns `None` if the first item is not such a number.
pub fn parse_coinbase_height(script: &[u8]) -> Option<Height> {
    match script {
        [0x00, ..] => Some(0),
        [small @ 0x51..=0x60, ..] => Some(Height::from(small - 0x50)),
        [length @ 1..=5, rest @ ..] => {
            let digits = rest.get(..usize::from(*length))?;
            digits.iter().rev().try_fold(0u64, |height, byte| height.checked_mul(256)?.checked_add(u64::from(*byte)))
        }
        _ => None,
    }
}

/// Returns true if the coinbase of the block at this height must contain the height (BIP34).
pub fn requires_coinbase_height(network: Network, height: Height) -> bool {
    if network == Network::Bitcoin {
        height >= MAINNET_BIP34_FROM
    } else {
        // On testnet 3, the first blocks do not follow BIP34, so its coinbases are not checked.
        height > 0 && network != Network::Testnet
    }
}

impl Bitcoin {
    /// Returns the coinbase outputs that become spendable with the block at `height`: those of the block 99 below it.
    /// The block at `height` must be the newest of the recent blocks. When the older block is not among the recent
    /// blocks, it is fetched.
    pub(crate) async fn fetch_newly_matured_outputs(&self, height: Height) -> Result<Vec<PaidOutput>, SourceError> {
        let depth = COINBASE_MATURITY - 1;
        if let Some(block) = self.lock_recent_blocks().find_block_below_tip(depth) {
            return Ok(block.coinbase.clone());
        }
        let Some(mined_at) = height.checked_sub(u64::try_from(depth).expect("99 fits into 64 bits")) else {
            return Ok(Vec::new());
        };
        // The block is not among the recent blocks only after a start or a reorganisation.
        let found = self
            .fetch_block_hashes_until_failure(&[mined_at])
            .await
            .map_err(|error| error.into_source_error(mined_at))?;
        let hash = found.first().copied().flatten().ok_or(SourceError::BlockNotFound(mined_at))?;
        Ok(self.fetch_block_with_configured_checks(mined_at, hash, &WatchSet::default()).await?.0.coinbase_outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_height_of_a_coinbase_is_parsed() {
        assert_eq!(parse_coinbase_height(&[0x51]), Some(1));
        assert_eq!(parse_coinbase_height(&[0x60, 0x00]), Some(16));
        assert_eq!(parse_coinbase_height(&[0x01, 0x11]), Some(17));
        assert_eq!(parse_coinbase_height(&[0x03, 0x40, 0x0d, 0x03, 0x99]), Some(200_000));
        assert_eq!(parse_coinbase_height(&[0x03, 0x40]), None);
        assert_eq!(parse_coinbase_height(&[]), None);
    }
}
