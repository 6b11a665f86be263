//! Outputs that pay an address of the configured type, and the two address types that the driver recognises.

use bitcoin::hashes::sha256d;
use chain::{AddressKey, Amount, AssetId, OutPoint, Transfer, TransferIndex, TxId, TxPart, address};

use crate::hashes::to_display_order;

/// The type of the addresses that receive payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressType {
    /// Pay to witness public key hash (BIP141): the output script contains 20 bytes; `bc1q…` on mainnet.
    P2wpkh,
    /// Pay to Taproot (BIP341): the output script contains 32 bytes; `bc1p…` on mainnet.
    P2tr,
}

impl AddressType {
    /// Returns the key of the address that this output script pays, or `None` if the script is of another address type.
    /// The type is checked because a sender could make an output of another type with the key bytes of a watched
    /// address.
    pub fn parse_key_of_matching_script(self, script: &[u8]) -> Option<AddressKey> {
        match (self, script) {
            (AddressType::P2wpkh, [0x00, 0x14, program @ ..]) => program.try_into().ok().map(AddressKey),
            (AddressType::P2tr, [0x51, 0x20, key @ ..]) => {
                <&[u8; 32]>::try_from(key).ok().map(address::hash_p2tr_output_key)
            }
            (AddressType::P2wpkh | AddressType::P2tr, _) => None,
        }
    }
}

/// An output that pays an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaidOutput {
    /// The index of the transaction in its block; 0 for a transaction that is not in a block.
    pub tx_index: u32,
    /// The transaction id in hash order, which is the reverse of the displayed order.
    pub txid: sha256d::Hash,
    /// Index of the output in its transaction.
    pub vout: u32,
    /// Key of the paid address in the watch set.
    pub to: AddressKey,
    /// Amount in satoshi.
    pub sats: u64,
}

impl PaidOutput {
    /// Returns the transaction id and the index with which an input refers to this output.
    pub fn to_outpoint(self) -> OutPoint {
        OutPoint { txid: TxId(to_display_order(self.txid)), vout: self.vout }
    }

    /// Converts the output to a [`Transfer`], the form in which all chain drivers return payments.
    pub fn to_transfer(self, asset: &AssetId) -> Transfer {
        Transfer {
            txid: TxId(to_display_order(self.txid)),
            index: TransferIndex { tx_index: self.tx_index, part: TxPart::Output(self.vout) },
            asset: asset.clone(),
            to: self.to,
            from: None,
            amount: Amount::from(self.sats),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_outputs_of_the_address_type_have_a_key() {
        let p2wpkh = [&[0x00, 0x14][..], &[7; 20]].concat();
        let p2tr = [&[0x51, 0x20][..], &[7; 32]].concat();
        assert_eq!(AddressType::P2wpkh.parse_key_of_matching_script(&p2wpkh), Some(AddressKey([7; 20])));
        assert_eq!(
            AddressType::P2tr.parse_key_of_matching_script(&p2tr),
            Some(address::hash_p2tr_output_key(&[7; 32]))
        );
        assert_eq!(
            (
                AddressType::P2wpkh.parse_key_of_matching_script(&p2tr),
                AddressType::P2tr.parse_key_of_matching_script(&p2wpkh)
            ),
            (None, None)
        );
        assert_eq!(AddressType::P2wpkh.parse_key_of_matching_script(&p2wpkh[..21]), None);
    }
}
