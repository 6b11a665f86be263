//! The token of the benchmarks, and addresses that belong to no invoice.

use chain::{AddressKey, Asset, AssetKind, ChainId};

/// The contract of USDT on Ethereum.
pub const CONTRACT: &str = "0xdac17f958d2ee523a2206206994597c13d831ec7";

/// Returns USDT on Ethereum as an asset.
pub fn asset() -> Asset {
    let chain = ChainId::parse("ethereum").expect("the chain id is valid");
    Asset::new(chain, AssetKind::Token { contract: CONTRACT.to_owned() }, "USDT", 6, 4)
}

/// Returns the address with a number. Different numbers give different addresses, scattered over the address space.
pub fn holder(number: u64) -> AddressKey {
    let mut key = [0xee; 20];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AddressKey(key)
}
