//! Tests that model chains pass the conformance suite of the chain contract.

use async_trait::async_trait;
use chain::{Address, Amount, Asset, ChainId, Family};
use simnet::{ReplacedTxs, Simnet, address, conformance};

use crate::support::{self, GENESIS};

struct Operator<'a> {
    simnet: &'a Simnet,
    chain: &'a ChainId,
}

#[async_trait]
impl conformance::ChainOperator for Operator<'_> {
    async fn pay(&mut self, asset: &Asset, to: &Address, amount: Amount) {
        self.simnet.pay(self.chain, &asset.id, &to.text, amount).unwrap();
    }

    async fn mine(&mut self, blocks: u64) {
        self.simnet.mine(self.chain, blocks, GENESIS);
    }

    async fn reorg(&mut self, depth: u64) {
        self.simnet.reorg(self.chain, depth, ReplacedTxs::Drop, GENESIS);
    }
}

#[tokio::test]
async fn every_family_passes_the_conformance_suite() {
    for spec in support::build_specs() {
        let simnet = support::new_simnet();
        let source = simnet.source(&spec.chain).unwrap();
        let fresh = |byte: u8| {
            let mut secret = [byte; 32];
            secret[0] = 1;
            let key = bitcoin::secp256k1::SecretKey::from_slice(&secret).unwrap();
            address::address_from_public_key(spec.family, &simnet::transaction::derive_public_key(&key))
        };
        let source_under_test = conformance::SourceUnderTest {
            source: &*source,
            assets: &spec.assets,
            addresses: [fresh(1), fresh(2), fresh(3)],
        };
        conformance::assert_source_keeps_contract(
            source_under_test,
            &mut Operator { simnet: &simnet, chain: &spec.chain },
        )
        .await;
        let tip = source.tip().await.unwrap();
        assert_eq!(tip.finalized.is_none(), spec.family == Family::Bitcoin);
    }
}
