//! Checks the proof of work and the difficulty of a header, so that a false block costs as much work as a real one.
//! This module does no I/O.

use bitcoin::{CompactTarget, Network, Target, block::Header, params::Params};
use chain::Height;

/// Number of blocks between two adjustments of the difficulty.
const PERIOD: u64 = 2_016;
/// From this height on, the difficulty of mainnet was always above 13.6 T (10^12). So a block above this height with a
/// difficulty below 10 T is a false block.
const MAINNET_MIN_DIFFICULTY_FROM: Height = 700_000;
/// The compact target of a block whose difficulty is 10 T (10^13).
const MAINNET_MIN_DIFFICULTY_BITS: u32 = 0x171c_25a6;

/// Checks that a header's hash meets its target, and that the target is allowed on this network.
pub fn verify_proof_of_work(network: Network, height: Height, header: &Header) -> Result<(), String> {
    let target = header.target();
    let hash = header.block_hash();
    if target == Target::ZERO || target > Params::new(network).max_attainable_target {
        return Err(format!("block {hash} has a target above the maximum of this network"));
    }
    if network == Network::Bitcoin
        && height >= MAINNET_MIN_DIFFICULTY_FROM
        && target > Target::from_compact(CompactTarget::from_consensus(MAINNET_MIN_DIFFICULTY_BITS))
    {
        return Err(format!(
            "block {hash} claims far less work than any block of mainnet since {MAINNET_MIN_DIFFICULTY_FROM}"
        ));
    }
    if target.is_met_by(hash) { Ok(()) } else { Err(format!("block {hash} does not have the work that it claims")) }
}

/// Checks that the difficulty of `header` may follow the difficulty of its parent. Test networks except signet and
/// regtest allow exceptions, so every difficulty is accepted on them.
pub fn verify_difficulty_against_parent(
    network: Network,
    height: Height,
    header: &Header,
    parent: &Header,
) -> Result<(), String> {
    let constant = network == Network::Regtest;
    if !constant && !parent_determines_difficulty(network) {
        return Ok(());
    }
    let is_allowed = if constant || !height.is_multiple_of(PERIOD) {
        header.bits == parent.bits
    } else {
        // The header contains the target in a compact form, which rounds it. So round both bounds in the same way.
        let rounded = |target: Target| Target::from_compact(target.to_compact_lossy());
        let parent_target = parent.target();
        let range = rounded(parent_target.min_transition_threshold())
            ..=rounded(parent_target.max_transition_threshold(Params::new(network)));
        range.contains(&header.target())
    };
    if is_allowed {
        Ok(())
    } else {
        Err(format!("block {} claims a difficulty that cannot follow its parent's", header.block_hash()))
    }
}

/// Returns true if the parent alone determines which difficulty a block may have.
pub fn parent_determines_difficulty(network: Network) -> bool {
    network == Network::Bitcoin || network == Network::Signet || network == Network::Regtest
}

#[cfg(test)]
mod tests {
    use bitcoin::constants::genesis_block;

    use super::*;

    #[test]
    fn genesis_blocks_have_valid_work_and_changed_ones_do_not() {
        for network in [Network::Bitcoin, Network::Signet, Network::Testnet4, Network::Regtest] {
            let header = genesis_block(network).header;
            assert_eq!(verify_proof_of_work(network, 0, &header), Ok(()));
            let mut cheaper = header;
            cheaper.bits = CompactTarget::from_consensus(0x2100_ffff);
            assert!(verify_proof_of_work(network, 0, &cheaper).is_err());
            let mut none = header;
            none.bits = CompactTarget::from_consensus(0);
            assert!(verify_proof_of_work(network, 0, &none).is_err());
        }
        let first = genesis_block(Network::Bitcoin).header;
        let mut other = first;
        other.nonce ^= 1;
        assert!(verify_proof_of_work(Network::Bitcoin, 0, &other).is_err());
        assert!(
            verify_proof_of_work(Network::Bitcoin, MAINNET_MIN_DIFFICULTY_FROM, &first).is_err(),
            "a block with the difficulty of the genesis block"
        );
    }

    #[test]
    fn the_difficulty_changes_every_2016_blocks_by_at_most_a_factor_of_four() {
        let with = |bits: u32| {
            let mut header = genesis_block(Network::Bitcoin).header;
            header.bits = CompactTarget::from_consensus(bits);
            header
        };
        let (parent, quarter, fourfold) = (with(0x1702_8000), with(0x1700_a000), with(0x170a_0000));
        let follows = |height, header: &Header| {
            verify_difficulty_against_parent(Network::Bitcoin, height, header, &parent).is_ok()
        };
        assert!(follows(840_001, &parent) && !follows(840_001, &quarter));
        assert!(follows(840_672, &quarter) && follows(840_672, &fourfold));
        assert!(!follows(840_672, &with(0x1700_9fff)) && !follows(840_672, &with(0x170a_0001)));
        assert!(
            verify_difficulty_against_parent(Network::Testnet4, 5, &quarter, &parent).is_ok(),
            "a block after 20 minutes may be easy"
        );
        assert!(verify_difficulty_against_parent(Network::Regtest, PERIOD, &quarter, &parent).is_err());
    }
}
