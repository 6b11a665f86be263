//! Money that the first endpoint of a model chain invents. Blocks and balances of the first endpoint contain it; the
//! chain itself and the second endpoint do not.

use chain::{Address, Amount, AssetId, AssetKind, ChainId, Height, Transfer, TransferIndex, TxId, TxPart};
use sha2::{Digest, Sha256};

use crate::{Simnet, address, buyers::PayError, model_chain::ModelChain};

/// The index of the first invented transaction in its block. The indices of real transactions are lower.
const FIRST_TX_INDEX: u32 = 1_000_000;

/// Money that the first endpoint invents.
#[derive(Debug, Clone)]
pub struct Invention {
    /// The height of the block from which on the first endpoint shows the money, on any branch.
    height: Height,
    /// The invented transfer.
    transfer: Transfer,
    /// True when the block shows the transfer; false when only the balance shows it.
    in_block: bool,
}

impl Simnet {
    /// Makes the first endpoint invent a transfer in the next block: its block and its balances show the transfer, and
    /// the second endpoint and [`Simnet::balance`] do not. Returns the id of the invented transaction.
    ///
    /// # Errors
    /// [`PayError::UnknownChain`] and [`PayError::InvalidAddress`].
    pub fn invent_transfer_at_first_endpoint(
        &self,
        chain: &ChainId,
        asset: &AssetId,
        to: &str,
        amount: Amount,
    ) -> Result<TxId, PayError> {
        self.add_invention(chain, asset, to, amount, true)
    }

    /// Makes the first endpoint show a native balance of the address that is higher by `amount` from the next block on,
    /// as if a contract had sent money. No block shows a transfer.
    ///
    /// # Errors
    /// [`PayError::UnknownChain`] and [`PayError::InvalidAddress`].
    pub fn invent_balance_at_first_endpoint(&self, chain: &ChainId, to: &str, amount: Amount) -> Result<(), PayError> {
        self.add_invention(chain, &AssetId::on_chain(chain, &AssetKind::Native), to, amount, false).map(|_| ())
    }

    /// Removes all invented money, like an operator who replaces the first endpoint by an honest one.
    pub fn remove_inventions(&self, chain: &ChainId) {
        self.lock_model(chain).inventions.clear();
    }

    fn add_invention(
        &self,
        chain: &ChainId,
        asset: &AssetId,
        to: &str,
        amount: Amount,
        in_block: bool,
    ) -> Result<TxId, PayError> {
        let family = self.find_family(chain)?;
        let to: Address = address::parse_address(family, to)?;
        let mut model = self.lock_model(chain);
        let height = model.head().height + 1;
        let number = FIRST_TX_INDEX + u32::try_from(model.inventions.len()).expect("tests invent few transfers");
        let part = if *asset == model.state.rules.native { TxPart::Value } else { TxPart::Log(number) };
        let txid = TxId(Sha256::digest(format!("simnet invention {number} of {chain}")).into());
        let index = TransferIndex { tx_index: number, part };
        let transfer = Transfer { txid, index, asset: asset.clone(), to: to.key, from: None, amount };
        model.inventions.push(Invention { height, transfer, in_block });
        Ok(txid)
    }
}

impl ModelChain {
    /// Returns the invented transfers that the first endpoint shows in its block at `height`.
    pub fn list_invented_transfers(&self, height: Height) -> impl Iterator<Item = &Transfer> {
        self.inventions
            .iter()
            .filter(move |money| money.in_block && money.height == height)
            .map(|money| &money.transfer)
    }

    /// Returns the balance that the first endpoint shows after the block at `height`, which must be a kept block.
    pub fn first_endpoint_balance_at(&self, height: Height, asset: &AssetId, account: chain::AddressKey) -> Amount {
        let invented = self
            .inventions
            .iter()
            .filter(|money| money.height <= height && money.transfer.asset == *asset && money.transfer.to == account);
        let amounts = invented.map(|money| money.transfer.amount);
        Amount::checked_sum(amounts.chain([self.balance_at(height, asset, account)]))
            .expect("tests invent less than 2^256")
    }
}
