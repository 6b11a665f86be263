//! Synthetic answers of an EVM node.

use chain::AddressKey;

use crate::usdt::{CONTRACT, holder};

/// The topic of the event `Transfer(address,address,uint256)`.
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// Returns an answer to `eth_getLogs` with one transfer of 1 USDT to each address. Each log takes about 640 bytes.
pub fn log_answer(to: impl IntoIterator<Item = AddressKey>) -> Vec<u8> {
    let mut body = String::from(r#"{"jsonrpc":"2.0","id":1,"result":["#);
    for (number, to) in (0u64..).zip(to) {
        if number > 0 {
            body.push(',');
        }
        let hash = const_hex::encode([holder(number).0, [7; 20]].concat().get(..32).unwrap_or_default());
        let from = const_hex::encode(holder(number + 1_000_000).0);
        let (to, zeros) = (const_hex::encode(to.0), "0".repeat(24));
        body += &format!(r#"{{"address":"{CONTRACT}","topics":["{TRANSFER}","0x{zeros}{from}","0x{zeros}{to}"],"#);
        body += &format!(r#""data":"0x{:064x}","blockHash":"0x{hash}","blockNumber":"0x1406f40","#, 1_000_000);
        body += &format!(r#""blockTimestamp":"0x66c1a1cb","transactionHash":"0x{hash}","#);
        body += &format!(r#""transactionIndex":"0x{:x}","logIndex":"0x{number:x}","removed":false}}"#, number / 2);
    }
    body += "]}";
    body.into_bytes()
}
