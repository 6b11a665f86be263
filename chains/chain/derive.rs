//! Derives deposit addresses from the public key of an account (BIP32 public derivation). No private key is used here.

use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::{
    NetworkKind, base58,
    bip32::{ChildNumber, Xpub},
};

use crate::{
    Address,
    address::{AddressScheme, CURVE},
};

/// The version bytes of an `xpub` (BIP32).
const XPUB_VERSION: [u8; 4] = [0x04, 0x88, 0xb2, 0x1e];
/// The number of derivations from the seed to an account: purpose, coin, account.
const ACCOUNT_DEPTH: u8 = 3;

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
    /// The text is an extended private key (`xprv` and its relatives), which can spend the money of the account.
    #[error(
        "this is a private key ({0}), which can spend all money of the account: remove it from the configuration and treat it \
         as known to others; an account key here begins with xpub or zpub and cannot spend"
    )]
    PrivateKey(String),
    /// The key has SLIP-132 version bytes (`zpub` or `vpub`), which mark an account of P2WPKH addresses, but the scheme
    /// makes other addresses.
    #[error(
        "a zpub or vpub is the key of an account of P2WPKH addresses (BIP84, m/84'); use the key of another account for other \
         addresses, that of BIP86 (m/86') for Taproot"
    )]
    UnsuitableKeyVersion,
    /// The key has SLIP-132 version bytes of addresses that no scheme makes, such as `ypub`; the field contains the
    /// first letters of the key.
    #[error(
        "a {0} is the key of an account of nested or multi-signature addresses, which are not derived here: the wallet \
         that exported it would not show the deposits; use the key of a single-signature account of BIP84 (m/84', zpub \
         or xpub) or BIP86 (m/86', xpub)"
    )]
    UnsupportedKeyVersion(&'static str),
    /// The index is 2^31 or more, or the key at this index is not valid. An invalid key has a probability below 2^-127
    /// (BIP32).
    #[error("index {0} cannot be derived from this account")]
    InvalidIndex(u32),
}

/// The bytes that identify an account key: the chain code (32 bytes) and the compressed public key (33 bytes). They
/// contain no secret. Different texts of one account key, such as its `zpub` and its `xpub`, have the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKeyBytes(pub [u8; 65]);

/// Derives the addresses of one account, at the paths `m/…account'/0/index`.
#[derive(Debug, Clone)]
pub struct Deriver {
    /// The public key at `m/…account'/0`. It is derived once, so that each address needs only one more curve operation.
    external: Xpub,
    scheme: AddressScheme,
    key_bytes: AccountKeyBytes,
    /// True when the text of the key begins with `tpub` or `vpub`.
    is_test_key: bool,
}

impl Deriver {
    /// Returns a deriver for the account key `xpub`: depth 3, in Base58Check, as `settled-signer keys` prints it.
    ///
    /// # Errors
    /// Fails with [`DeriveError::PrivateKey`] for a private key, with [`DeriveError::UnsuitableKeyVersion`] for a `zpub`
    /// or `vpub` with a scheme other than P2WPKH, with [`DeriveError::UnsupportedKeyVersion`] for the keys of other
    /// wallets, and with [`DeriveError::InvalidXpub`] for any other text that is not an account key.
    pub fn from_account_key(xpub: &str, scheme: AddressScheme) -> Result<Deriver, DeriveError> {
        let text = xpub.trim();
        refuse_private_key(text)?;
        refuse_non_alphanumeric(text)?;
        let account: Xpub = convert_zpub_or_refuse_version(text, scheme)?
            .parse()
            .map_err(|e| DeriveError::InvalidXpub(format!("{e}")))?;
        if account.depth != ACCOUNT_DEPTH {
            let reason = format!("its depth is {}, an account has depth {ACCOUNT_DEPTH}", account.depth);
            return Err(DeriveError::InvalidXpub(reason));
        }
        let external = account
            .derive_pub(&*CURVE, &[ChildNumber::from_normal_idx(0).expect("0 is a normal index")])
            .map_err(|e| DeriveError::InvalidXpub(format!("{e}")))?;
        let mut key_bytes = [0; 65];
        key_bytes[..32].copy_from_slice(account.chain_code.as_bytes());
        key_bytes[32..].copy_from_slice(&account.public_key.serialize());
        let is_test_key = account.network == NetworkKind::Test;
        Ok(Deriver { external, scheme, key_bytes: AccountKeyBytes(key_bytes), is_test_key })
    }

    /// Returns the bytes that identify the account. They are the same for the `xpub` and the `zpub` of one account.
    pub fn account_key_bytes(&self) -> AccountKeyBytes {
        self.key_bytes
    }

    /// Returns true when the prefix of the key (`tpub` or `vpub`) says that it belongs to a test network.
    pub fn is_test_network_key(&self) -> bool {
        self.is_test_key
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

/// Fails if the text begins like an extended private key: one letter, then `prv` (BIP32, SLIP-132). The checksum is not
/// verified, so a mistyped private key is refused too.
fn refuse_private_key(text: &str) -> Result<(), DeriveError> {
    let is_private = text.get(1..4).is_some_and(|letters| letters.eq_ignore_ascii_case("prv"));
    if is_private { Err(DeriveError::PrivateKey(text.chars().take(4).collect())) } else { Ok(()) }
}

/// Fails if the text contains a character other than an ASCII letter or digit, such as a quotation mark of a word
/// processor.
fn refuse_non_alphanumeric(text: &str) -> Result<(), DeriveError> {
    match text.chars().find(|letter| !letter.is_ascii_alphanumeric()) {
        Some(strange) => Err(DeriveError::InvalidXpub(format!(
            "it has the character {strange}, which no key has; paste the letters of the key alone, between straight quotes"
        ))),
        None => Ok(()),
    }
}

/// The version bytes and prefixes of extended public keys that are refused, because they belong to wallets with nested
/// or multi-signature addresses (SLIP-132).
const UNSUPPORTED_VERSIONS: [([u8; 4], &str); 6] = [
    ([0x04, 0x9d, 0x7c, 0xb2], "ypub"),
    ([0x04, 0x4a, 0x52, 0x62], "upub"),
    ([0x02, 0x95, 0xb4, 0x3f], "Ypub"),
    ([0x02, 0xaa, 0x7e, 0xd3], "Zpub"),
    ([0x02, 0x42, 0x89, 0xef], "Upub"),
    ([0x02, 0x57, 0x54, 0x83], "Vpub"),
];

/// Returns a `zpub` or `vpub` (SLIP-132) with the version bytes of an `xpub` or `tpub` (BIP32), and any other text
/// unchanged. SLIP-132 marks the keys of P2WPKH wallets, so a `zpub` with another scheme is an error: the wallet that
/// exported the key would not show deposits to other addresses.
fn convert_zpub_or_refuse_version(text: &str, scheme: AddressScheme) -> Result<String, DeriveError> {
    let Ok(mut payload) = base58::decode_check(text) else { return Ok(text.to_owned()) };
    if let Some((_, name)) = UNSUPPORTED_VERSIONS.iter().find(|(version, _)| payload.starts_with(version)) {
        return Err(DeriveError::UnsupportedKeyVersion(name));
    }
    let version = match payload.first_chunk() {
        Some([0x04, 0xb2, 0x47, 0x46]) => XPUB_VERSION,
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
        let deriver = Deriver::from_account_key(BIP84_ZPUB_AS_XPUB, AddressScheme::P2wpkh(KnownHrp::Mainnet)).unwrap();
        assert_eq!(deriver.derive_address(0).unwrap().text, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu");
        assert_eq!(deriver.derive_address(1).unwrap().text, "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g");
    }

    /// The zpub is the account of the same phrase as BIP84 publishes it; the Taproot vectors are those of BIP86.
    #[test]
    fn zpubs_derive_p2wpkh_only_and_taproot_matches_bip86() {
        let zpub = "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs";
        let from_zpub = Deriver::from_account_key(zpub, AddressScheme::P2wpkh(KnownHrp::Mainnet)).unwrap();
        assert_eq!(from_zpub.derive_address(0).unwrap().text, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu");
        for other in [AddressScheme::P2tr(KnownHrp::Mainnet), AddressScheme::Evm, AddressScheme::Tron] {
            assert_eq!(
                Deriver::from_account_key(zpub, other).unwrap_err(),
                DeriveError::UnsuitableKeyVersion,
                "{other:?}"
            );
        }
        let from_xpub =
            Deriver::from_account_key(BIP84_ZPUB_AS_XPUB, AddressScheme::P2wpkh(KnownHrp::Mainnet)).unwrap();
        assert_eq!(
            from_zpub.account_key_bytes(),
            from_xpub.account_key_bytes(),
            "one key in two spellings is one account"
        );
        let bip86 = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
        let taproot = Deriver::from_account_key(bip86, AddressScheme::P2tr(KnownHrp::Mainnet)).unwrap();
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
        assert!(matches!(Deriver::from_account_key("xpub123", AddressScheme::Evm), Err(DeriveError::InvalidXpub(_))));
        let deriver = Deriver::from_account_key(BIP84_ZPUB_AS_XPUB, AddressScheme::Evm).unwrap();
        assert_eq!(deriver.derive_address(1 << 31), Err(DeriveError::InvalidIndex(1 << 31)));
    }

    /// Returns the BIP84 account key with other version bytes.
    fn with_version(version: [u8; 4]) -> String {
        let mut payload = base58::decode_check(BIP84_ZPUB_AS_XPUB).unwrap();
        payload[..4].copy_from_slice(&version);
        base58::encode_check(&payload)
    }

    #[test]
    fn one_account_has_the_same_bytes_in_every_text() {
        let scheme = AddressScheme::P2wpkh(KnownHrp::Mainnet);
        let xpub = Deriver::from_account_key(BIP84_ZPUB_AS_XPUB, scheme).unwrap();
        assert!(!xpub.is_test_network_key());
        for (version, name, is_test) in [
            ([0x04, 0xb2, 0x47, 0x46], "zpub", false),
            ([0x04, 0x5f, 0x1c, 0xf6], "vpub", true),
            ([0x04, 0x35, 0x87, 0xcf], "tpub", true),
        ] {
            let text = with_version(version);
            assert!(text.starts_with(name), "{text}");
            let other = Deriver::from_account_key(&text, scheme).unwrap();
            assert_eq!(other.account_key_bytes(), xpub.account_key_bytes(), "{name}");
            assert_eq!(other.derive_address(7), xpub.derive_address(7), "{name}");
            assert_eq!(other.is_test_network_key(), is_test, "{name}");
        }
        let bip86 = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
        assert_ne!(Deriver::from_account_key(bip86, scheme).unwrap().account_key_bytes(), xpub.account_key_bytes());
    }

    #[test]
    fn keys_of_other_wallets_are_refused_by_their_names() {
        for (version, name) in UNSUPPORTED_VERSIONS {
            let text = with_version(version);
            assert!(text.starts_with(name), "{text}");
            let refused = Deriver::from_account_key(&text, AddressScheme::P2wpkh(KnownHrp::Mainnet)).unwrap_err();
            assert_eq!(refused, DeriveError::UnsupportedKeyVersion(name));
        }
    }

    #[test]
    fn a_private_key_is_refused_with_the_words_that_it_can_spend() {
        // The account key m/84'/0'/0' of BIP84's phrase, and texts with wrong letters.
        let zprv = "zprvAdG4iTXWBoARxkkzNpNh8r6Qag3irQB8PzEMkAFeTRXxHpbF9z4QgEvBRmfvqWvGp42t42nvgGpNgYSJA9iefm1yYNZKEm7z6qUWCroSQnE";
        for text in [zprv, "xprv123", "tprv", "Yprv9"] {
            let refused = Deriver::from_account_key(text, AddressScheme::P2wpkh(KnownHrp::Mainnet)).unwrap_err();
            assert_eq!(refused, DeriveError::PrivateKey(text[..4].to_owned()));
            let said = refused.to_string();
            assert!(said.contains("can spend all money of the account"), "{said}");
            assert!(!said.contains(&zprv[4..]), "the key itself is not repeated");
        }
    }

    #[test]
    fn a_quotation_mark_in_a_key_is_named() {
        let quoted = format!("\u{201c}{BIP84_ZPUB_AS_XPUB}\u{201d}");
        let refused = Deriver::from_account_key(&quoted, AddressScheme::Evm).unwrap_err().to_string();
        assert!(refused.contains("it has the character \u{201c}") && refused.contains("straight quotes"), "{refused}");
    }

    #[test]
    fn evm_and_tron_addresses_share_the_account_key() {
        let evm = Deriver::from_account_key(BIP84_ZPUB_AS_XPUB, AddressScheme::Evm).unwrap().derive_address(7).unwrap();
        let tron =
            Deriver::from_account_key(BIP84_ZPUB_AS_XPUB, AddressScheme::Tron).unwrap().derive_address(7).unwrap();
        assert_eq!(evm.key, tron.key);
        assert!(evm.text.starts_with("0x") && tron.text.starts_with('T'));
    }
}
