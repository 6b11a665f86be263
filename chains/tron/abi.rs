//! Encodes calls of TRC20 tokens and decodes their results and logs (Solidity ABI).

use chain::{AddressKey, Amount};

/// The topic of the event `Transfer(address,address,uint256)`: its Keccak-256 hash.
pub const TRANSFER_TOPIC: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// Encodes a call of `transfer(address,uint256)`.
pub fn encode_transfer_call(to: AddressKey, amount: Amount) -> Vec<u8> {
    encode_call([0xa9, 0x05, 0x9c, 0xbb], &[encode_address_word(to), amount.to_be_bytes()])
}

/// Encodes a call of `balanceOf(address)`.
pub fn encode_balance_of_call(owner: AddressKey) -> Vec<u8> {
    encode_call([0x70, 0xa0, 0x82, 0x31], &[encode_address_word(owner)])
}

/// Encodes a call of `decimals()`.
pub fn encode_decimals_call() -> Vec<u8> {
    encode_call([0x31, 0x3c, 0xe5, 0x67], &[])
}

/// Encodes a call of USDT's `isBlackListed(address)`. A listed address cannot send USDT.
pub fn encode_is_black_listed_call(owner: AddressKey) -> Vec<u8> {
    encode_call([0xe4, 0x7d, 0x60, 0x60], &[encode_address_word(owner)])
}

/// Encodes a call of `paused()`.
pub fn encode_paused_call() -> Vec<u8> {
    encode_call([0x5c, 0x97, 0x5a, 0xbb], &[])
}

fn encode_call(selector: [u8; 4], words: &[[u8; 32]]) -> Vec<u8> {
    selector.into_iter().chain(words.iter().flatten().copied()).collect()
}

/// Returns an address as 32 bytes: 12 zero bytes, then the 20 bytes of the address.
fn encode_address_word(address: AddressKey) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address.0);
    word
}

/// Parses an address from 64 hexadecimal digits. Returns `None` when the 12 bytes before the address are not zero.
pub fn parse_address_word(word: &str) -> Option<AddressKey> {
    let mut bytes = [0u8; 32];
    const_hex::decode_to_slice(word, &mut bytes).ok()?;
    let (padding, key) = bytes.split_at(12);
    if padding == [0; 12] { key.try_into().ok().map(AddressKey) } else { None }
}

/// Parses an unsigned 256-bit number from 64 hexadecimal digits.
pub fn parse_amount_word(word: &str) -> Option<Amount> {
    let mut bytes = [0u8; 32];
    const_hex::decode_to_slice(word, &mut bytes).ok()?;
    Some(Amount::from_be_bytes(bytes))
}
