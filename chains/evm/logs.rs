//! Token transfers from event logs: decoded borrowed, matched in memory, nothing allocated for logs of other people.

use alloy_primitives::{Address, B256, Bloom, BloomInput, b256};
use chain::{
    AddressKey, Amount, Asset, AssetId, AssetKind, Transfer, TransferIndex, TxId, TxPart, watch::WatchedAddresses,
};
use serde::{Deserialize, Deserializer, de};

use crate::hex;

/// `keccak256("Transfer(address,address,uint256)")`, the first topic of every ERC-20 transfer.
pub const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// Up to so many watched addresses are looked up in a block's bloom; more would find a chance hit in most blocks.
const BLOOM_LOOKUPS_MAX: usize = 1_000;

/// A log as a node writes it. Where in the block it stands is counted, not read.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log<'a> {
    pub address: &'a str,
    #[serde(borrow)]
    pub topics: Topics<'a>,
    pub data: &'a str,
    #[serde(default)]
    pub block_hash: Option<&'a str>,
    #[serde(default)]
    pub block_number: Option<&'a str>,
    #[serde(default)]
    removed: Option<bool>,
}

/// At most four texts, in place.
#[derive(Debug, Clone, Copy)]
pub struct Topics<'a> {
    texts: [&'a str; 4],
    count: usize,
}

impl<'a> Topics<'a> {
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

/// The listed contracts of a chain. A token is known by its contract only; what is not listed is never credited.
#[derive(Debug, Clone)]
pub struct Contracts {
    entries: Vec<Contract>,
}

#[derive(Debug, Clone)]
struct Contract {
    address: Address,
    asset: AssetId,
    /// The bits that a transfer of this contract sets in a header's bloom.
    bloom: Bloom,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the address of a contract")]
pub struct BadContract(pub String);

impl Contracts {
    /// The token contracts among the assets of one chain.
    pub fn new(assets: &[Asset]) -> Result<Contracts, BadContract> {
        let mut entries = Vec::new();
        for asset in assets {
            let AssetKind::Token { contract } = &asset.kind else { continue };
            let address = hex::address(contract).ok_or_else(|| BadContract(contract.clone()))?;
            let mut bloom = Bloom::ZERO;
            bloom.accrue_raw_log(address, &[TRANSFER]);
            entries.push(Contract { address, asset: asset.id.clone(), bloom });
        }
        Ok(Contracts { entries })
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.entries.iter().map(|entry| entry.address)
    }

    /// Place of a contract in the list.
    pub fn position(&self, address: &str) -> Option<usize> {
        let address = hex::address(address)?;
        self.entries.iter().position(|entry| entry.address == address)
    }

    /// Whether there are few enough addresses to look each one up in a bloom.
    pub fn looks_up(&self, watched: &WatchedAddresses<'_>) -> bool {
        watched.len() <= BLOOM_LOOKUPS_MAX
    }

    /// Which contracts may have logged a transfer to a watched address in a block with this bloom. An absent bit proves
    /// that there is none; a present one may be chance.
    pub fn possible(&self, bloom: &Bloom, watched: &WatchedAddresses<'_>) -> Vec<usize> {
        let named = |i: &usize| bloom.contains(&self.entries[*i].bloom);
        let possible: Vec<usize> = (0..self.entries.len()).filter(named).collect();
        let nobody = !possible.is_empty()
            && self.looks_up(watched)
            && !watched.iter().any(|key| bloom.contains_input(BloomInput::Raw(&topic(key))));
        if nobody { Vec::new() } else { possible }
    }
}

/// An address as an indexed argument: 12 zero bytes before it.
fn topic(key: &AddressKey) -> [u8; 32] {
    let mut topic = [0; 32];
    topic[12..].copy_from_slice(&key.0);
    topic
}

/// The inverse of [`topic`].
fn account(topic: &str) -> Option<AddressKey> {
    let bytes: [u8; 32] = hex::bytes(topic)?;
    let (zeros, account) = bytes.split_at(12);
    if zeros.iter().any(|b| *b != 0) {
        return None;
    }
    account.try_into().ok().map(AddressKey)
}

/// A transfer that reached a watched address; where in the block it stands is the reader's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub asset: AssetId,
    pub from: AddressKey,
    pub to: AddressKey,
    pub amount: Amount,
}

impl Hit {
    pub fn at(self, txid: TxId, tx_index: u32, log_index: u32) -> Transfer {
        Transfer {
            txid,
            index: TransferIndex { tx_index, part: TxPart::Log(log_index) },
            asset: self.asset,
            to: self.to,
            from: Some(chain::derive::evm_address(self.from).text),
            amount: self.amount,
        }
    }
}

impl Log<'_> {
    /// A value moved to a watched address by a listed contract: exactly the ERC-20 event, two indexed accounts, one word
    /// of data above zero. Whether the log was taken back by a reorganisation is the reader's to judge.
    pub fn hit(&self, contracts: &Contracts, watched: &WatchedAddresses<'_>) -> Option<Hit> {
        let [kind, from, to] = self.topics.as_slice() else { return None };
        let to = account(to).filter(|to| watched.contains(to))?;
        if !is_transfer(kind) {
            return None;
        }
        let asset = contracts.entries[contracts.position(self.address)?].asset.clone();
        let amount = Amount::from_be_bytes(hex::bytes(self.data)?);
        if amount.is_zero() {
            return None;
        }
        Some(Hit { asset, from: account(from)?, to, amount })
    }

    /// Whether a bloom names its contract and all its topics; `None` if they are none.
    pub fn is_in(&self, bloom: &Bloom) -> Option<bool> {
        let mut own = Bloom::ZERO;
        self.accrue(&mut own)?;
        Some(bloom.contains(&own))
    }

    /// Adds what the log sets in a bloom.
    pub fn accrue(&self, bloom: &mut Bloom) -> Option<()> {
        let topics: Option<Vec<B256>> = self.topics.as_slice().iter().map(|topic| hex::hash(topic)).collect();
        bloom.accrue_raw_log(hex::address(self.address)?, &topics?);
        Some(())
    }

    /// A node's mark of a log that a reorganisation took back. No header commits to it.
    pub fn is_removed(&self) -> bool {
        self.removed == Some(true)
    }

    /// Whether this is the event that range questions filter for.
    pub fn is_transfer(&self) -> bool {
        self.topics.as_slice().first().is_some_and(|kind| is_transfer(kind))
    }
}

fn is_transfer(topic: &str) -> bool {
    hex::hash(topic) == Some(TRANSFER)
}

/// Decodes the answer to `eth_getLogs` and calls `found` for every log that reached a watched address. Returns how many
/// logs there were.
pub fn matches<'a>(
    body: &'a [u8],
    watched: &WatchedAddresses<'_>,
    contracts: &Contracts,
    mut found: impl FnMut(Hit, &Log<'a>),
) -> Result<usize, rpc::Rejection> {
    let logs: Vec<Log<'a>> = rpc::Reply::new(0, 200, body).result()?;
    for log in logs.iter().filter(|log| !log.is_removed()) {
        if let Some(hit) = log.hit(contracts, watched) {
            found(hit, log);
        }
    }
    Ok(logs.len())
}

#[cfg(test)]
mod tests {
    use chain::{ChainId, WatchSet};
    use proptest::prelude::*;

    use super::*;

    const USDT: &str = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
    const OURS: &str = "0x000000000000000000000000f39fd6e51aad88f6f4ce6ab8827279cfffb92266";
    const THEIRS: &str = "0x00000000000000000000000070997970c51812dc3a010c7d01b50e0d17dc79c8";
    const DIRTY: &str = "0x000000000000000000000001f39fd6e51aad88f6f4ce6ab8827279cfffb92266";
    const ONE: &str = "0x0000000000000000000000000000000000000000000000000000000000000001";
    const ZERO: &str = "0x0000000000000000000000000000000000000000000000000000000000000000";

    fn contracts() -> Contracts {
        let chain = ChainId::new("ethereum").unwrap();
        let kind = AssetKind::Token { contract: USDT.to_owned() };
        Contracts::new(&[Asset::new(chain, kind, "USDT", 6, 6)]).unwrap()
    }

    fn watched() -> WatchSet {
        let set = WatchSet::default();
        set.insert(account(OURS).unwrap());
        set
    }

    fn body(address: &str, topics: &[&str], data: &str, removed: bool) -> Vec<u8> {
        let log = serde_json::json!({ "address": address, "topics": topics, "data": data, "removed": removed,
            "blockHash": ONE, "blockNumber": "0x1", "transactionHash": ONE, "transactionIndex": "0x0", "logIndex": "0x0" });
        serde_json::to_vec(&serde_json::json!({ "jsonrpc": "2.0", "id": 0, "result": [log] })).unwrap()
    }

    fn hits(body: &[u8]) -> usize {
        let mut hits = 0;
        matches(body, &watched().read_addresses(), &contracts(), |hit, _| {
            assert_eq!((hit.amount, hit.asset.as_str()), (Amount::from_units(1), format!("ethereum/{USDT}").as_str()));
            hits += 1;
        })
        .unwrap();
        hits
    }

    #[test]
    fn only_the_plain_event_of_a_listed_contract_is_credited() {
        let kind = TRANSFER.to_string();
        let approval = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925";
        let lower = USDT.to_lowercase();
        assert_eq!(hits(&body(&lower, &[&kind, THEIRS, OURS], ONE, false)), 1);
        for (why, body) in [
            (
                "unlisted contract",
                body("0xdac17f958d2ee523a2206206994597c13d831ec8", &[&kind, THEIRS, OURS], ONE, false),
            ),
            ("sent, not received", body(&lower, &[&kind, OURS, THEIRS], ONE, false)),
            ("zero value", body(&lower, &[&kind, THEIRS, OURS], ZERO, false)),
            ("removed", body(&lower, &[&kind, THEIRS, OURS], ONE, true)),
            ("an NFT's transfer has its id indexed", body(&lower, &[&kind, THEIRS, OURS, ONE], "0x", false)),
            ("not indexed", body(&lower, &[&kind], ONE, false)),
            ("another event", body(&lower, &[approval, THEIRS, OURS], ONE, false)),
            ("dirty upper bytes", body(&lower, &[&kind, THEIRS, DIRTY], ONE, false)),
            ("no data", body(&lower, &[&kind, THEIRS, OURS], "0x", false)),
        ] {
            assert_eq!(hits(&body), 0, "{why}");
        }
    }

    #[test]
    fn the_bloom_proves_absence() {
        let (contracts, watched) = (contracts(), watched());
        let mut bloom = Bloom::ZERO;
        assert!(contracts.possible(&bloom, &watched.read_addresses()).is_empty());
        bloom.accrue_raw_log(hex::address(USDT).unwrap(), &[TRANSFER, hex::hash(THEIRS).unwrap()]);
        assert!(contracts.possible(&bloom, &watched.read_addresses()).is_empty(), "a transfer to somebody else");
        bloom.accrue_raw_log(
            hex::address(USDT).unwrap(),
            &[TRANSFER, hex::hash(THEIRS).unwrap(), hex::hash(OURS).unwrap()],
        );
        assert_eq!(contracts.possible(&bloom, &watched.read_addresses()), [0]);
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(
            address in "(0x)?[0-9a-fA-Fxé]{0,44}", topics in prop::collection::vec("(0x)?[0-9a-f]{0,66}", 0..7),
            data in "(0x)?[0-9a-f]{0,130}", cut in 0usize..400,
        ) {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let mut body = body(&address, &topics, &data, false);
            let _ = matches(&body, &watched().read_addresses(), &contracts(), |_, _| {});
            body.truncate(cut);
            let _ = matches(&body, &watched().read_addresses(), &contracts(), |_, _| {});
        }

        #[test]
        fn accounts_and_topics_are_inverse(key in any::<[u8; 20]>()) {
            let text = const_hex::encode_prefixed(topic(&AddressKey(key)));
            prop_assert_eq!(account(&text), Some(AddressKey(key)));
        }
    }
}
