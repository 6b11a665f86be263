//! Calls and logs of TRC20 tokens: selectors, words, topics (tron.md, 2.2).

use chain::{AddressKey, Amount};

/// `Transfer(address,address,uint256)`
pub const TRANSFER_TOPIC: &str = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// A call of `transfer(address,uint256)`.
pub fn transfer(to: AddressKey, amount: Amount) -> Vec<u8> {
    call([0xa9, 0x05, 0x9c, 0xbb], &[word(to), amount.to_be_bytes()])
}

/// A call of `balanceOf(address)`.
pub fn balance_of(owner: AddressKey) -> Vec<u8> {
    call([0x70, 0xa0, 0x82, 0x31], &[word(owner)])
}

/// A call of `decimals()`.
pub fn decimals() -> Vec<u8> {
    call([0x31, 0x3c, 0xe5, 0x67], &[])
}

/// A call of USDT's `isBlackListed(address)`: who is listed can send nothing any more.
pub fn is_black_listed(owner: AddressKey) -> Vec<u8> {
    call([0xe4, 0x7d, 0x60, 0x60], &[word(owner)])
}

/// A call of `paused()`.
pub fn paused() -> Vec<u8> {
    call([0x5c, 0x97, 0x5a, 0xbb], &[])
}

fn call(selector: [u8; 4], words: &[[u8; 32]]) -> Vec<u8> {
    selector.into_iter().chain(words.iter().flatten().copied()).collect()
}

/// An address in a word of its own.
fn word(of: AddressKey) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&of.0);
    word
}

/// The address in the hex text of a word; `None` where something stands in front of it.
pub fn address_in(word: &str) -> Option<AddressKey> {
    let mut bytes = [0u8; 32];
    const_hex::decode_to_slice(word, &mut bytes).ok()?;
    let (front, key) = bytes.split_at(12);
    if front == [0; 12] { key.try_into().ok().map(AddressKey) } else { None }
}

/// The number in the hex text of exactly one word.
pub fn amount_in(word: &str) -> Option<Amount> {
    let mut bytes = [0u8; 32];
    const_hex::decode_to_slice(word, &mut bytes).ok()?;
    Some(Amount::from_be_bytes(bytes))
}
