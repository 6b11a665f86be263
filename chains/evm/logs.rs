//! Parses event logs and finds the token transfers to watched addresses in them. Logs are parsed without copying and
//! matched in memory, so that logs of other transfers need no memory allocation.

use alloy_primitives::{B256, Bloom, b256};
use chain::{AddressKey, Amount, AssetId, Transfer, TransferIndex, TxId, TxPart, watch::WatchedAddresses};
use serde::{Deserialize, Deserializer, de};

use crate::{hex, token_contracts::TokenContracts};

/// `keccak256("Transfer(address,address,uint256)")`, the first topic of every ERC-20 transfer.
pub const TRANSFER_TOPIC: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// An event log as returned by a node. The log index in the node's answer is ignored, because the driver counts the
/// logs of a block itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLog<'a> {
    /// The contract that emitted the log, in hexadecimal.
    pub address: &'a str,
    /// The indexed event arguments; the first topic is usually the hash of the event's signature.
    #[serde(borrow)]
    pub topics: Topics<'a>,
    /// The ABI-encoded arguments that are not indexed, in hexadecimal.
    pub data: &'a str,
    /// Hash of the log's block as reported by the node; `None` when missing.
    #[serde(default)]
    pub block_hash: Option<&'a str>,
    /// Number of the log's block in hexadecimal, as reported by the node; `None` when missing.
    #[serde(default)]
    pub block_number: Option<&'a str>,
    #[serde(default)]
    removed: Option<bool>,
}

/// The topics of a log, at most four, stored without allocation.
#[derive(Debug, Clone, Copy)]
pub struct Topics<'a> {
    texts: [&'a str; 4],
    count: usize,
}

impl<'a> Topics<'a> {
    /// Returns the topics in the order of the log.
    pub fn as_slice(&self) -> &[&'a str] {
        &self.texts[..self.count]
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Topics<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Topics<'a>, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Topics<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("at most four topics")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Topics<'de>, A::Error> {
                let mut topics = Topics { texts: [""; 4], count: 0 };
                while let Some(topic) = seq.next_element::<&'de str>()? {
                    let Some(slot) = topics.texts.get_mut(topics.count) else {
                        return Err(de::Error::invalid_length(5, &self));
                    };
                    *slot = topic;
                    topics.count += 1;
                }
                Ok(topics)
            }
        }
        deserializer.deserialize_seq(Visitor)
    }
}

/// Encodes an address as an indexed event argument: left-padded with 12 zero bytes.
pub(crate) fn encode_address_topic(key: &AddressKey) -> [u8; 32] {
    let mut topic = [0; 32];
    topic[12..].copy_from_slice(&key.0);
    topic
}

/// Parses an address from an indexed event argument; this is the inverse of [`encode_address_topic`]. Returns `None`
/// when the 12 bytes before the address are not zero.
fn parse_address_topic(topic: &str) -> Option<AddressKey> {
    let bytes: [u8; 32] = hex::parse_bytes(topic)?;
    let (zeros, account) = bytes.split_at(12);
    if zeros.iter().any(|b| *b != 0) {
        return None;
    }
    account.try_into().ok().map(AddressKey)
}

/// A token transfer to a watched address, without its position in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTransfer {
    /// The asset of the token contract.
    pub asset: AssetId,
    /// The sender of the tokens, as the event names it.
    pub from: AddressKey,
    /// The watched address that receives the tokens.
    pub to: AddressKey,
    /// Amount in base units of the token, above zero.
    pub amount: Amount,
}

impl TokenTransfer {
    /// Converts the token transfer to a [`Transfer`] by adding the position in the block.
    pub fn into_transfer(self, txid: TxId, tx_index: u32, log_index: u32) -> Transfer {
        Transfer {
            txid,
            index: TransferIndex { tx_index, part: TxPart::Log(log_index) },
            asset: self.asset,
            to: self.to,
            from: Some(chain::address::encode_evm_address(self.from).text),
            amount: self.amount,
        }
    }
}

impl EventLog<'_> {
    /// Returns the transfer if this log is an ERC-20 `Transfer` event of an accepted contract, with two indexed
    /// addresses, a watched recipient and an amount above zero; otherwise `None`. Does not check
    /// [`EventLog::is_marked_removed`].
    pub fn parse_transfer_to_watched_address(
        &self,
        contracts: &TokenContracts,
        watched: &WatchedAddresses<'_>,
    ) -> Option<TokenTransfer> {
        let [kind, from, to] = self.topics.as_slice() else { return None };
        let to = parse_address_topic(to).filter(|to| watched.contains(to))?;
        if !is_transfer_topic(kind) {
            return None;
        }
        let asset = contracts.find_asset(self.address)?.clone();
        let amount = Amount::from_be_bytes(hex::parse_bytes(self.data)?);
        if amount.is_zero() {
            return None;
        }
        Some(TokenTransfer { asset, from: parse_address_topic(from)?, to, amount })
    }

    /// Returns true if the bloom filter contains the log's contract and all its topics. Returns `None` when the
    /// contract or a topic is malformed.
    pub fn is_log_in_bloom(&self, bloom: &Bloom) -> Option<bool> {
        let mut own = Bloom::ZERO;
        self.add_log_to_bloom(&mut own)?;
        Some(bloom.contains(&own))
    }

    /// Sets the bits of this log in the bloom filter. Returns `None` when the contract or a topic is malformed.
    pub fn add_log_to_bloom(&self, bloom: &mut Bloom) -> Option<()> {
        let topics: Option<Vec<B256>> = self.topics.as_slice().iter().map(|topic| hex::parse_hash(topic)).collect();
        bloom.accrue_raw_log(hex::parse_address(self.address)?, &topics?);
        Some(())
    }

    /// Returns true when the node marks the log as removed by a reorg. Nothing in a block header proves that this mark
    /// is right.
    pub fn is_marked_removed(&self) -> bool {
        self.removed == Some(true)
    }

    /// Returns true when the first topic is that of the ERC-20 `Transfer` event.
    pub fn is_transfer_event(&self) -> bool {
        self.topics.as_slice().first().is_some_and(|kind| is_transfer_topic(kind))
    }
}

fn is_transfer_topic(topic: &str) -> bool {
    hex::parse_hash(topic) == Some(TRANSFER_TOPIC)
}

/// Parses the reply to `eth_getLogs` and calls `found` for every transfer to a watched address. Returns the number of
/// logs in the reply.
///
/// # Errors
/// Fails when the answer is an error or malformed.
pub fn for_each_watched_transfer_in_reply<'a>(
    body: &'a [u8],
    watched: &WatchedAddresses<'_>,
    contracts: &TokenContracts,
    mut found: impl FnMut(TokenTransfer, &EventLog<'a>),
) -> Result<usize, rpc::Rejection> {
    let logs: Vec<EventLog<'a>> = rpc::Reply::new(0, 200, body).parse_result()?;
    for log in logs.iter().filter(|log| !log.is_marked_removed()) {
        if let Some(transfer) = log.parse_transfer_to_watched_address(contracts, watched) {
            found(transfer, log);
        }
    }
    Ok(logs.len())
}

#[cfg(test)]
mod tests {
    use chain::{Asset, AssetKind, ChainId, WatchSet};
    use proptest::prelude::*;

    use super::*;

    const USDT: &str = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
    const WATCHED_TOPIC: &str = "0x000000000000000000000000f39fd6e51aad88f6f4ce6ab8827279cfffb92266";
    const OTHER_TOPIC: &str = "0x00000000000000000000000070997970c51812dc3a010c7d01b50e0d17dc79c8";
    const UNPADDED_TOPIC: &str = "0x000000000000000000000001f39fd6e51aad88f6f4ce6ab8827279cfffb92266";
    const ONE: &str = "0x0000000000000000000000000000000000000000000000000000000000000001";
    const ZERO: &str = "0x0000000000000000000000000000000000000000000000000000000000000000";

    fn build_token_contracts() -> TokenContracts {
        let chain = ChainId::parse("ethereum").unwrap();
        let kind = AssetKind::Token { contract: USDT.to_owned() };
        TokenContracts::from_assets(&[Asset::new(chain, kind, "USDT", 6, 6)]).unwrap()
    }

    fn build_watch_set() -> WatchSet {
        let set = WatchSet::default();
        set.insert(parse_address_topic(WATCHED_TOPIC).unwrap());
        set
    }

    fn build_block_body(address: &str, topics: &[&str], data: &str, removed: bool) -> Vec<u8> {
        let log = serde_json::json!({ "address": address, "topics": topics, "data": data, "removed": removed,
            "blockHash": ONE, "blockNumber": "0x1", "transactionHash": ONE, "transactionIndex": "0x0", "logIndex": "0x0" });
        serde_json::to_vec(&serde_json::json!({ "jsonrpc": "2.0", "id": 0, "result": [log] })).unwrap()
    }

    /// Returns the number of transfers that are found in the answer.
    fn count_transfers(body: &[u8]) -> usize {
        let mut count = 0;
        for_each_watched_transfer_in_reply(
            body,
            &build_watch_set().lock_addresses(),
            &build_token_contracts(),
            |transfer, _| {
                assert_eq!(
                    (transfer.amount, transfer.asset.as_str()),
                    (Amount::from_units(1), format!("ethereum/{USDT}").as_str())
                );
                count += 1;
            },
        )
        .unwrap();
        count
    }

    #[test]
    fn only_the_erc20_event_of_an_accepted_contract_is_credited() {
        let kind = TRANSFER_TOPIC.to_string();
        let approval = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925";
        let lower = USDT.to_lowercase();
        assert_eq!(count_transfers(&build_block_body(&lower, &[&kind, OTHER_TOPIC, WATCHED_TOPIC], ONE, false)), 1);
        for (case, body) in [
            (
                "a contract that is not accepted",
                build_block_body(
                    "0xdac17f958d2ee523a2206206994597c13d831ec8",
                    &[&kind, OTHER_TOPIC, WATCHED_TOPIC],
                    ONE,
                    false,
                ),
            ),
            (
                "a transfer from the watched address",
                build_block_body(&lower, &[&kind, WATCHED_TOPIC, OTHER_TOPIC], ONE, false),
            ),
            ("an amount of zero", build_block_body(&lower, &[&kind, OTHER_TOPIC, WATCHED_TOPIC], ZERO, false)),
            ("a removed log", build_block_body(&lower, &[&kind, OTHER_TOPIC, WATCHED_TOPIC], ONE, true)),
            (
                "an NFT transfer, whose id is indexed",
                build_block_body(&lower, &[&kind, OTHER_TOPIC, WATCHED_TOPIC, ONE], "0x", false),
            ),
            ("addresses that are not indexed", build_block_body(&lower, &[&kind], ONE, false)),
            ("another event", build_block_body(&lower, &[approval, OTHER_TOPIC, WATCHED_TOPIC], ONE, false)),
            ("padding that is not zero", build_block_body(&lower, &[&kind, OTHER_TOPIC, UNPADDED_TOPIC], ONE, false)),
            ("no data", build_block_body(&lower, &[&kind, OTHER_TOPIC, WATCHED_TOPIC], "0x", false)),
        ] {
            assert_eq!(count_transfers(&body), 0, "{case}");
        }
    }

    #[test]
    fn a_bloom_proves_that_no_watched_address_was_paid() {
        let (contracts, watched) = (build_token_contracts(), build_watch_set());
        let mut bloom = Bloom::ZERO;
        assert!(contracts.list_contracts_with_possible_transfer(&bloom, &watched.lock_addresses()).is_empty());
        bloom.accrue_raw_log(
            hex::parse_address(USDT).unwrap(),
            &[TRANSFER_TOPIC, hex::parse_hash(OTHER_TOPIC).unwrap()],
        );
        assert!(
            contracts.list_contracts_with_possible_transfer(&bloom, &watched.lock_addresses()).is_empty(),
            "the transfer is to another address"
        );
        bloom.accrue_raw_log(
            hex::parse_address(USDT).unwrap(),
            &[TRANSFER_TOPIC, hex::parse_hash(OTHER_TOPIC).unwrap(), hex::parse_hash(WATCHED_TOPIC).unwrap()],
        );
        assert_eq!(contracts.list_contracts_with_possible_transfer(&bloom, &watched.lock_addresses()), [0]);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(
            address in "(0x)?[0-9a-fA-Fxé]{0,44}", topics in prop::collection::vec("(0x)?[0-9a-f]{0,66}", 0..7),
            data in "(0x)?[0-9a-f]{0,130}", cut in 0usize..400,
        ) {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let mut body = build_block_body(&address, &topics, &data, false);
            let _ = for_each_watched_transfer_in_reply(&body, &build_watch_set().lock_addresses(), &build_token_contracts(), |_, _| {});
            body.truncate(cut);
            let _ = for_each_watched_transfer_in_reply(&body, &build_watch_set().lock_addresses(), &build_token_contracts(), |_, _| {});
        }

        #[test]
        fn encoding_and_decoding_a_topic_are_inverse(key in any::<[u8; 20]>()) {
            let text = const_hex::encode_prefixed(encode_address_topic(&AddressKey(key)));
            prop_assert_eq!(parse_address_topic(&text), Some(AddressKey(key)));
        }
    }
}
