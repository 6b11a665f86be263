//! Whose money moves: one token, and accounts that nobody watches.

use chain::{AddressKey, Asset, AssetKind, ChainId};

/// USDT on Ethereum.
pub const CONTRACT: &str = "0xdac17f958d2ee523a2206206994597c13d831ec7";

pub fn token() -> Asset {
    let chain = ChainId::new("ethereum").expect("a name");
    Asset::new(chain, AssetKind::Token { contract: CONTRACT.to_owned() }, "USDT", 6, 4)
}

/// An account that nobody watches.
pub fn stranger(number: u64) -> AddressKey {
    let mut key = [0xee; 20];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    AddressKey(key)
}
