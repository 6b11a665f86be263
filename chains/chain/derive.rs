//! Derives deposit addresses from a watch-only account key (BIP32 public derivation). No secret key is used here.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use alloy_primitives::keccak256;
use bitcoin::{
    CompressedPublicKey, KnownHrp, Network, base58,
    bip32::{ChildNumber, Xpub},
    hashes::{Hash, sha256},
    key::TapTweak,
    secp256k1::{Secp256k1, VerifyOnly},
};

use crate::{Address, AddressKey, Family};

static CURVE: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

static DERIVATIONS: AtomicU64 = AtomicU64::new(0);

/// The number of addresses derived since the process started, at one curve operation each. Benchmarks use it to show that
/// a restart loads issued addresses from the database and derives none of them.
pub fn count_derivations() -> u64 {
    DERIVATIONS.load(Ordering::Relaxed)
}

/// Base58Check version of TRON accounts (tron.md, chapter 1).
const TRON_VERSION: u8 = 0x41;

/// The reason why no address could be derived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The text is not an extended public key of depth 3; the field says why.
    #[error("not an account xpub: {0}")]
    InvalidXpub(String),
    /// A key with SLIP-132 version bytes (`zpub`, `vpub`), which stand for P2WPKH addresses, and another scheme.
    #[error(
        "a zpub or vpub is the key of an account of P2WPKH addresses (BIP84, m/84'); use the key of another account for other \
         addresses, that of BIP86 (m/86') for Taproot"
    )]
    UnsuitableKeyVersion,
    /// The index is 2^31 or more, or has no valid key, which has a probability below 2^-127 (BIP32).
    #[error("index {0} cannot be derived from this account")]
    InvalidIndex(u32),
}

/// The rule that makes an address of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressScheme {
    /// BIP84: P2WPKH with the network's Bech32 prefix (`bc`, `tb`, `bcrt`).
    P2wpkh(KnownHrp),
    /// BIP86: P2TR with the key path only, in Bech32m with the same prefixes.
    P2tr(KnownHrp),
    /// The last 20 bytes of the Keccak-256 of the uncompressed key, as EIP-55 text.
    Evm,
    /// The same account bytes in Base58Check with version 0x41.
    Tron,
}

impl AddressScheme {
    /// The default scheme of a family: P2WPKH on Bitcoin, where `network` chooses the prefix.
    pub fn for_family(family: Family, network: Network) -> AddressScheme {
        match family {
            Family::Bitcoin => AddressScheme::P2wpkh(KnownHrp::from(network)),
            Family::Evm => AddressScheme::Evm,
            Family::Tron => AddressScheme::Tron,
        }
    }
}

/// Derives the addresses `m/…account'/0/index` of one account, at one curve operation per address: the key of the external
/// chain (`/0`) is computed once.
#[derive(Debug, Clone)]
pub struct Deriver {
    external: Xpub,
    scheme: AddressScheme,
}

impl Deriver {
    /// A deriver for the account key `xpub` (depth 3, in Base58Check, as `settled-signer keys` prints it).
    ///
    /// # Errors
    /// [`DeriveError::InvalidXpub`] for any other text, [`DeriveError::UnsuitableKeyVersion`] for a `zpub` or `vpub` with a
    /// scheme other than P2WPKH.
    pub fn new(xpub: &str, scheme: AddressScheme) -> Result<Deriver, DeriveError> {
        let account: Xpub =
            normalize_to_xpub(xpub.trim(), scheme)?.parse().map_err(|e| DeriveError::InvalidXpub(format!("{e}")))?;
        if account.depth != 3 {
            return Err(DeriveError::InvalidXpub(format!("its depth is {}, an account has depth 3", account.depth)));
        }
        let external = account
            .derive_pub(&*CURVE, &[ChildNumber::from_normal_idx(0).expect("0 is a normal index")])
            .map_err(|e| DeriveError::InvalidXpub(format!("{e}")))?;
        Ok(Deriver { external, scheme })
    }

    /// The rule by which addresses are made.
    pub fn scheme(&self) -> AddressScheme {
        self.scheme
    }

    /// The address at `index` (below 2^31).
    ///
    /// # Errors
    /// [`DeriveError::InvalidIndex`] for an index of 2^31 or more, or one that BIP32 skips.
    pub fn derive_address(&self, index: u32) -> Result<Address, DeriveError> {
        let child = ChildNumber::from_normal_idx(index).map_err(|_| DeriveError::InvalidIndex(index))?;
        DERIVATIONS.fetch_add(1, Ordering::Relaxed);
        let key = self.external.ckd_pub(&*CURVE, child).map_err(|_| DeriveError::InvalidIndex(index))?.public_key;
        Ok(match self.scheme {
            AddressScheme::P2wpkh(hrp) => encode_p2wpkh_address(&CompressedPublicKey(key), hrp),
            AddressScheme::P2tr(hrp) => p2tr_address(&key, hrp),
            AddressScheme::Evm => evm_address(compute_account_key(&key)),
            AddressScheme::Tron => tron_address(compute_account_key(&key)),
        })
    }
}

/// The account key with the version bytes of BIP32 in place of those of SLIP-132 (`zpub`, `vpub`). SLIP-132 marks keys of
/// P2WPKH wallets, so another scheme is refused: the wallet that exported the key would not show such deposits.
fn normalize_to_xpub(text: &str, scheme: AddressScheme) -> Result<String, DeriveError> {
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

fn encode_p2wpkh_address(key: &CompressedPublicKey, hrp: KnownHrp) -> Address {
    let program: [u8; 20] = *AsRef::<[u8; 20]>::as_ref(&key.wpubkey_hash());
    Address { key: AddressKey(program), text: bitcoin::Address::p2wpkh(key, hrp).to_string() }
}

/// The P2TR address of an internal key without a script path (BIP86).
pub fn p2tr_address(key: &bitcoin::secp256k1::PublicKey, hrp: KnownHrp) -> Address {
    let (output, _) = key.x_only_public_key().0.tap_tweak(&*CURVE, None);
    let text = bitcoin::Address::p2tr_tweaked(output, hrp).to_string();
    Address { key: p2tr_address_key(&output.to_x_only_public_key().serialize()), text }
}

/// The key of a P2TR output in the watch set: the first 20 bytes of the SHA-256 of the output key. The output key itself is
/// not cut to 20 bytes, because a sender can choose all its 32 bytes and so imitate a watched one.
pub fn p2tr_address_key(output: &[u8; 32]) -> AddressKey {
    let hash = sha256::Hash::hash(output).to_byte_array();
    AddressKey(*hash.first_chunk().expect("32 bytes"))
}

/// Last 20 bytes of Keccak-256 over the uncompressed key without its prefix (Yellow Paper, appendix F).
fn compute_account_key(key: &bitcoin::secp256k1::PublicKey) -> AddressKey {
    let hash = keccak256(&key.serialize_uncompressed()[1..]);
    AddressKey(hash[12..].try_into().expect("32 − 12 bytes"))
}

/// The address of an EVM account, with its EIP-55 text.
pub fn evm_address(key: AddressKey) -> Address {
    let text = alloy_primitives::Address::from(key.0).to_checksum(None);
    Address { key, text }
}

/// The address of a TRON account, with its Base58Check text.
pub fn tron_address(key: AddressKey) -> Address {
    let mut payload = [0u8; 21];
    payload[0] = TRON_VERSION;
    payload[1..].copy_from_slice(&key.0);
    Address { key, text: base58::encode_check(&payload) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Account keys of the BIP39 test phrase "abandon … about", as published in BIP84 and reproduced by ethers and TronWeb.
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
