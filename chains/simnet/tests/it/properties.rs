//! Properties of every sequence of events: the supply is constant, and a follower ends with the transfers of the
//! current branch.

use std::path::Path;

use chain::{Amount, AssetId, ChainId, Family};
use proptest::prelude::*;
use simnet::{ReplacedTxs, Simnet, address, transaction};

use crate::support::{self, GENESIS, Reader, block_on, native_asset, token_asset, units};

#[derive(Debug, Clone)]
enum Act {
    Pay { token: bool, to: u8, amount: u64 },
    PayMany(Vec<(bool, u8, u64)>),
    Internal { to: u8, amount: u64 },
    Mine(u64),
    Reorg(u64, ReplacedTxs),
    Hold(bool),
    DropMempool,
    Poll,
    Reopen,
}

fn any_action() -> impl Strategy<Value = Act> {
    let keep = prop_oneof![Just(ReplacedTxs::Remine), Just(ReplacedTxs::Drop), Just(ReplacedTxs::DoubleSpend)];
    prop_oneof![
        4 => (any::<bool>(), 0u8..4, 0u64..1000).prop_map(|(token, to, amount)| Act::Pay { token, to, amount }),
        1 => prop::collection::vec((any::<bool>(), 0u8..4, 0u64..1000), 1..4).prop_map(Act::PayMany),
        1 => (0u8..4, 0u64..1000).prop_map(|(to, amount)| Act::Internal { to, amount }),
        4 => (1u64..4).prop_map(Act::Mine),
        2 => (1u64..6, keep).prop_map(|(depth, keep)| Act::Reorg(depth, keep)),
        1 => any::<bool>().prop_map(Act::Hold),
        1 => Just(Act::DropMempool),
        2 => Just(Act::Poll),
        1 => Just(Act::Reopen),
    ]
}

/// Returns a watched address, from which nothing is ever spent.
fn watched_address(family: Family, index: u8) -> String {
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[index + 1; 32]).unwrap();
    address::address_from_public_key(family, &transaction::derive_public_key(&key)).text
}

struct Play {
    simnet: Simnet,
    folder: tempfile::TempDir,
    chain: ChainId,
    family: Family,
    time: i64,
}

impl Play {
    fn assets(&self) -> Vec<AssetId> {
        let spec = support::build_specs().into_iter().find(|spec| spec.chain == self.chain).unwrap();
        spec.assets.into_iter().map(|asset| asset.id).collect()
    }

    fn payment(&self, is_token: bool, to: u8, amount: u64) -> (AssetId, String, Amount) {
        let is_token = is_token && self.family != Family::Bitcoin;
        let asset = if is_token { token_asset(&self.chain) } else { native_asset(&self.chain) };
        (asset, watched_address(self.family, to), units(amount))
    }

    fn apply_action(&mut self, act: Act, reader: &mut Reader) {
        self.time += 1;
        match act {
            Act::Pay { token, to, amount } => {
                let (asset, to, amount) = self.payment(token, to, amount);
                self.simnet.pay(&self.chain, &asset, &to, amount).unwrap();
            }
            Act::PayMany(payments) => {
                let payments = payments.into_iter().map(|(token, to, amount)| self.payment(token, to, amount));
                self.simnet.pay_many(&self.chain, payments.collect()).unwrap();
            }
            Act::Internal { to, amount } => {
                let paid = self.simnet.pay_from_contract(&self.chain, &watched_address(self.family, to), units(amount));
                assert_eq!(paid.is_ok(), self.family != Family::Bitcoin);
            }
            Act::Mine(blocks) => {
                self.simnet.mine(&self.chain, blocks, self.time);
            }
            Act::Reorg(depth, keep) => {
                self.simnet.reorg(&self.chain, depth, keep, self.time);
            }
            Act::Hold(hold) => self.simnet.set_mempool_held(&self.chain, hold),
            Act::DropMempool => self.simnet.drop_mempool(&self.chain),
            Act::Poll => block_on(reader.poll(&*self.simnet.source(&self.chain).unwrap(), &self.watched())),
            Act::Reopen => self.simnet = open_simnet(self.folder.path(), &self.chain),
        }
    }

    fn watched(&self) -> chain::WatchSet {
        let texts: Vec<String> = (0..4).map(|index| watched_address(self.family, index)).collect();
        support::watch_addresses(self.family, &texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn supplies(&self) -> Vec<Amount> {
        self.assets().iter().map(|asset| self.simnet.sum_balances(&self.chain, asset)).collect()
    }
}

fn open_simnet(folder: &Path, chain: &ChainId) -> Simnet {
    let mut specs = support::build_specs();
    specs.retain(|spec| spec.chain == *chain);
    Simnet::open_or_create(folder, specs, GENESIS).unwrap()
}

fn play_actions(name: &str, family: Family, acts: Vec<Act>) {
    let folder = tempfile::tempdir().unwrap();
    let chain = support::chain_id(name);
    let mut play = Play { simnet: open_simnet(folder.path(), &chain), folder, chain, family, time: GENESIS };
    let mut reader = Reader::new(play.simnet.tip(&play.chain).head.block_ref());
    let supplies = play.supplies();
    for act in acts {
        play.apply_action(act, &mut reader);
        assert_eq!(play.supplies(), supplies, "value is neither created nor destroyed");
    }
    play.apply_action(Act::Poll, &mut reader);

    assert_eq!(reader.cursor(), play.simnet.tip(&play.chain).head.block_ref());
    let read: Vec<_> = reader.found.into_values().flatten().collect();
    assert_eq!(read, support::read_all_transfers(&play.simnet, &play.chain, &play.watched()));
    for asset in play.assets() {
        for index in 0..4 {
            let text = watched_address(family, index);
            let key = address::parse_address(family, &text).unwrap().key;
            let reached = read.iter().filter(|t| t.asset == asset && t.to == key).map(|t| t.amount);
            assert_eq!(Amount::checked_sum(reached), Some(play.simnet.balance(&play.chain, &asset, &text)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn bitcoin_keeps_value_and_converges(acts in prop::collection::vec(any_action(), 1..40)) {
        play_actions("bitcoin", Family::Bitcoin, acts);
    }

    #[test]
    fn evm_keeps_value_and_converges(acts in prop::collection::vec(any_action(), 1..40)) {
        play_actions("ethereum", Family::Evm, acts);
    }

    #[test]
    fn tron_keeps_value_and_converges(acts in prop::collection::vec(any_action(), 1..40)) {
        play_actions("tron", Family::Tron, acts);
    }
}
