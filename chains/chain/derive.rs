//! Derives deposit addresses from the public key of an account (BIP32 public derivation). No private key is used here.

use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::{
    base58,
    bip32::{ChildNumber, Xpub},
};

use crate::{
    Address,
    address::{AddressScheme, CURVE},
};

/// The number of addresses that [`Deriver::derive_address`] has derived since the process started.
static DERIVATIONS: AtomicU64 = AtomicU64::new(0);

/// Returns the number of addresses derived since the process started. Benchmarks use the number to show that a restart
/// loads the issued addresses from the database and derives none of them again.
pub fn count_derivations() -> u64 {
    DERIVATIONS.load(Ordering::Relaxed)
}

/// The reason why no address could be derived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The text is not an extended public key of depth 3; the field contains the reason.
    #[error("not an account xpub: {0}")]
    InvalidXpub(String),
    /// The key has SLIP-132 version bytes (`zpub` or `vpub`), which mark an account of P2WPKH addresses, but the scheme
    /// makes other addresses.
    #[error(
        "a zpub or vpub is the key of an account of P2WPKH addresses (BIP84, m/84'); use the key of another account for other \
         addresses, that of BIP86 (m/86') for Taproot"
    )]
    UnsuitableKeyVersion,
    /// The index is 2^31 or more, or the key at this index is not valid. An invalid key has a probability below 2^-127
    /// (BIP32).
    #[error("index {0} cannot be derived from this account")]
    InvalidIndex(u32),
}

/// Derives the addresses of one account, at the paths `m/…account'/0/index`.
#[derive(Debug, Clone)]
pub struct Deriver {
    /// The public key at `m/…account'/0`. It is derived once, so that each address needs only one more curve operation.
    external: Xpub,
    scheme: AddressScheme,
}

impl Deriver {
    /// Returns a deriver for the account key `xpub`: depth 3, in Base58Check, as `settled-signer keys` prints it.
    ///
    /// # Errors
    /// Fails with [`DeriveError::UnsuitableKeyVersion`] for a `zpub` or `vpub` with a scheme other than P2WPKH, and
    /// with [`DeriveError::InvalidXpub`] for any other text that is not an account key.
    pub fn new(xpub: &str, scheme: AddressScheme) -> Result<Deriver, DeriveError> {
        let account: Xpub =
            convert_zpub_to_xpub(xpub.trim(), scheme)?.parse().map_err(|e| DeriveError::InvalidXpub(format!("{e}")))?;
        if account.depth != 3 {
            return Err(DeriveError::InvalidXpub(format!("its depth is {}, an account has depth 3", account.depth)));
        }
        let external = account
            .derive_pub(&*CURVE, &[ChildNumber::from_normal_idx(0).expect("0 is a normal index")])
            .map_err(|e| DeriveError::InvalidXpub(format!("{e}")))?;
        Ok(Deriver { external, scheme })
    }

    /// Returns the address scheme: the rule that makes an address from a derived public key.
    pub fn scheme(&self) -> AddressScheme {
        self.scheme
    }

    /// Returns the address at an index below 2^31.
    ///
    /// # Errors
    /// Fails with [`DeriveError::InvalidIndex`] if the index is 2^31 or more, or if BIP32 skips it.
    pub fn derive_address(&self, index: u32) -> Result<Address, DeriveError> {
        let child = ChildNumber::from_normal_idx(index).map_err(|_| DeriveError::InvalidIndex(index))?;
        DERIVATIONS.fetch_add(1, Ordering::Relaxed);
        let key = self.external.ckd_pub(&*CURVE, child).map_err(|_| DeriveError::InvalidIndex(index))?;
        Ok(self.scheme.encode_address(&key.public_key))
    }
}

/// Returns a `zpub` or `vpub` (SLIP-132) with the version bytes of an `xpub` or `tpub` (BIP32), and any other text
/// unchanged. SLIP-132 marks the keys of P2WPKH wallets, so a `zpub` with another scheme is an error: the wallet that
/// exported the key would not show deposits to other addresses.
fn convert_zpub_to_xpub(text: &str, scheme: AddressScheme) -> Result<String, DeriveError> {
    let Ok(mut payload) = base58::decode_check(text) else { return Ok(text.to_owned()) };
    let version = match payload.first_chunk() {
        Some([0x04, 0xb2, 0x47, 0x46]) => [0x04, 0x88, 0xb2, 0x1e],
        Some([0x04, 0x5f, 0x1c, 0xf6]) => [0x04, 0x35, 0x87, 0xcf],
        Some(_) | None => return Ok(text.to_owned()),
    };
    match scheme {
        AddressScheme::P2wpkh(_) => {}
        AddressScheme::P2tr(_) | AddressScheme::Evm | AddressScheme::Tron => {
            return Err(DeriveError::UnsuitableKeyVersion);
        }
    }
    payload[..4].copy_from_slice(&version);
    Ok(base58::encode_check(&payload))
}

#[cfg(test)]
mod tests {
    use bitcoin::KnownHrp;

    use super::*;

    /// Account keys of the BIP39 test phrase "abandon … about", as published in BIP84 and reproduced by ethers and
    /// TronWeb.
    const BIP84_ZPUB_AS_XPUB: &str = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

    #[test]
    fn addresses_match_the_bip84_vector() {
        let deriver = Deriver::new(BIP84_ZPUB_AS_XPUB, AddressScheme::P2wpkh(KnownHrp::Mainnet)).unwrap();
        assert_eq!(deriver.derive_address(0).unwrap().text, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu");
        assert_eq!(deriver.derive_address(1).unwrap().text, "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g");
    }

    /// The zpub is the account of the same phrase as BIP84 publishes it; the Taproot vectors are those of BIP86.
    #[test]
    fn zpubs_derive_p2wpkh_only_and_taproot_matches_bip86() {
        let zpub = "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs";
        let from_zpub = Deriver::new(zpub, AddressScheme::P2wpkh(KnownHrp::Mainnet)).unwrap();
        assert_eq!(from_zpub.derive_address(0).unwrap().text, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu");
        for other in [AddressScheme::P2tr(KnownHrp::Mainnet), AddressScheme::Evm, AddressScheme::Tron] {
            assert_eq!(Deriver::new(zpub, other).unwrap_err(), DeriveError::UnsuitableKeyVersion, "{other:?}");
        }
        let bip86 = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
        let taproot = Deriver::new(bip86, AddressScheme::P2tr(KnownHrp::Mainnet)).unwrap();
        assert_eq!(
            taproot.derive_address(0).unwrap().text,
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
        );
        assert_eq!(
            taproot.derive_address(1).unwrap().text,
            "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"
        );
    }

    #[test]
    fn keys_that_are_not_accounts_are_refused() {
        assert!(matches!(Deriver::new("xpub123", AddressScheme::Evm), Err(DeriveError::InvalidXpub(_))));
        let deriver = Deriver::new(BIP84_ZPUB_AS_XPUB, AddressScheme::Evm).unwrap();
        assert_eq!(deriver.derive_address(1 << 31), Err(DeriveError::InvalidIndex(1 << 31)));
    }

    #[test]
    fn evm_and_tron_addresses_share_the_account_key() {
        let evm = Deriver::new(BIP84_ZPUB_AS_XPUB, AddressScheme::Evm).unwrap().derive_address(7).unwrap();
        let tron = Deriver::new(BIP84_ZPUB_AS_XPUB, AddressScheme::Tron).unwrap().derive_address(7).unwrap();
        assert_eq!(evm.key, tron.key);
        assert!(evm.text.starts_with("0x") && tron.text.starts_with('T'));
    }
}
