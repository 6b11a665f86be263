//! What a header must show by itself and beside its parent, so that inventing one costs what mining one costs. Pure.

use bitcoin::{CompactTarget, Network, Target, block::Header, params::Params};
use chain::Height;

/// Blocks between two adjustments of the difficulty.
const PERIOD: u64 = 2_016;
/// Mainnet has not been easier than difficulty 13.6 T from this height on; a block that claims less is an invention.
const MAINNET_HARD_FROM: Height = 700_000;
/// Difficulty 10 T.
const MAINNET_EASIEST: u32 = 0x171c_25a6;

/// The header's own proof of work, on a network with these rules.
pub fn proves_itself(network: Network, height: Height, header: &Header) -> Result<(), String> {
    let target = header.target();
    let hash = header.block_hash();
    if target == Target::ZERO || target > Params::new(network).max_attainable_target {
        return Err(format!("block {hash} is easier than any block of this network"));
    }
    if network == Network::Bitcoin
        && height >= MAINNET_HARD_FROM
        && target > Target::from_compact(CompactTarget::from_consensus(MAINNET_EASIEST))
    {
        return Err(format!("block {hash} is far easier than the blocks of these years"));
    }
    if target.is_met_by(hash) { Ok(()) } else { Err(format!("block {hash} does not have the work that it claims")) }
}

/// Whether the claimed difficulty may follow the parent's. Testnets allow exceptions, so there each block stands alone.
pub fn may_follow(network: Network, height: Height, header: &Header, parent: &Header) -> Result<(), String> {
    let constant = network == Network::Regtest;
    if !constant && !adjusts(network) {
        return Ok(());
    }
    let possible = if constant || !height.is_multiple_of(PERIOD) {
        header.bits == parent.bits
    } else {
        // Both bounds are rounded as the difficulty itself is.
        let rounded = |target: Target| Target::from_compact(target.to_compact_lossy());
        let before = parent.target();
        let range =
            rounded(before.min_transition_threshold())..=rounded(before.max_transition_threshold(Params::new(network)));
        range.contains(&header.target())
    };
    if possible {
        Ok(())
    } else {
        Err(format!("block {} claims a difficulty that may not follow", header.block_hash()))
    }
}

/// Whether a block's difficulty follows from its parent's alone.
pub fn adjusts(network: Network) -> bool {
    network == Network::Bitcoin || network == Network::Signet || network == Network::Regtest
}

#[cfg(test)]
mod tests {
    use bitcoin::constants::genesis_block;

    use super::*;

    #[test]
    fn the_first_blocks_prove_themselves_and_changed_ones_do_not() {
        for network in [Network::Bitcoin, Network::Signet, Network::Testnet4, Network::Regtest] {
            let header = genesis_block(network).header;
            assert_eq!(proves_itself(network, 0, &header), Ok(()));
            let mut cheaper = header;
            cheaper.bits = CompactTarget::from_consensus(0x2100_ffff);
            assert!(proves_itself(network, 0, &cheaper).is_err());
            let mut none = header;
            none.bits = CompactTarget::from_consensus(0);
            assert!(proves_itself(network, 0, &none).is_err());
        }
        let first = genesis_block(Network::Bitcoin).header;
        let mut other = first;
        other.nonce ^= 1;
        assert!(proves_itself(Network::Bitcoin, 0, &other).is_err());
        assert!(proves_itself(Network::Bitcoin, MAINNET_HARD_FROM, &first).is_err(), "as easy as the first block");
    }

    #[test]
    fn the_difficulty_changes_when_it_may_and_no_further() {
        let with = |bits: u32| {
            let mut header = genesis_block(Network::Bitcoin).header;
            header.bits = CompactTarget::from_consensus(bits);
            header
        };
        let (parent, quarter, fourfold) = (with(0x1702_8000), with(0x1700_a000), with(0x170a_0000));
        let follows = |height, header: &Header| may_follow(Network::Bitcoin, height, header, &parent).is_ok();
        assert!(follows(840_001, &parent) && !follows(840_001, &quarter));
        assert!(follows(840_672, &quarter) && follows(840_672, &fourfold));
        assert!(!follows(840_672, &with(0x1700_9fff)) && !follows(840_672, &with(0x170a_0001)));
        assert!(may_follow(Network::Testnet4, 5, &quarter, &parent).is_ok(), "a block after 20 minutes may be easy");
        assert!(may_follow(Network::Regtest, PERIOD, &quarter, &parent).is_err());
    }
}
