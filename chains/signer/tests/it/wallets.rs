//! Compares derived keys and addresses with those of other wallet libraries: ethers and bitcoinjs-lib, both unmodified.

use bip32::{ExtendedKey, Prefix};
use bitcoin::Network;
use chain::{Amount, Asset, AssetKind, ChainId, Deriver, Family, payment_uri};
use provision::node;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use signer::{
    accounts::{AccountPurpose, AddressKind, KeyAccount},
    seed::Seed,
};

/// The number of addresses compared per account.
const ADDRESSES: u32 = 5;
/// Amounts from the dust limit of nodes to the total supply of Bitcoin, in satoshis.
const SATS: [u64; 8] = [294, 330, 1_063, 4_250, 10_000_000, 100_000_000, 123_456_789, 2_100_000_000_000_000];

#[test]
fn ethers_and_bitcoinjs_derive_the_same_keys() {
    let fresh = || Seed::generate().unwrap().words();
    let cases = [
        (fresh(), "", Network::Bitcoin, "bitcoin", AccountPurpose::Deposit, 0),
        (fresh(), "", Network::Regtest, "regtest", AccountPurpose::TestDeposit, 0),
        // BIP39 normalises passphrases (NFKD). The letter é may be one character or two; both must give the same seed.
        (fresh(), "caf\u{e9} пароль", Network::Testnet, "testnet", AccountPurpose::Hot(0), 2),
        (words(&[0x5a; 16]), "cafe\u{301}", Network::Bitcoin, "bitcoin", AccountPurpose::Hot(89), 21_474_835),
    ];
    for (words, passphrase, network, name, purpose, epoch) in cases {
        let seed = Seed::from_words(&words, SecretString::from(passphrase)).unwrap();
        let account = |family| KeyAccount::with_default_address_kind(family, network, purpose, epoch).unwrap();
        let number = account(Family::Evm).account_number();
        let input = json!({
            "mnemonic": words.expose_secret(), "passphrase": passphrase, "account": number, "count": ADDRESSES, "network": name,
            "sats": SATS,
        });
        let wallets = node::run_node_script_blocking("derive", &input).unwrap();
        assert_same_keys(&seed, &account(Family::Evm), &wallets["evm"]);
        let bitcoin =
            [AddressKind::P2wpkh, AddressKind::P2tr].map(|kind| account(Family::Bitcoin).with_address_kind(kind));
        assert_same_keys(&seed, &bitcoin[0], &wallets["btc"]);
        assert_same_keys(&seed, &bitcoin[1], &wallets["taproot"]);
        let first_addresses = bitcoin.map(|account| account.derive_address(&seed, 0).unwrap().text);
        let uris = first_addresses.iter().flat_map(|address| SATS.map(|sats| bitcoin_uri(address, sats)));
        assert_eq!(wallets["uris"], json!(uris.collect::<Vec<String>>()));
    }
}

/// Returns the payment URI (BIP21) that settled puts into a QR code.
fn bitcoin_uri(address: &str, sats: u64) -> String {
    let btc = Asset::new(ChainId::parse("bitcoin").unwrap(), AssetKind::Native, "BTC", 8, 8);
    payment_uri::build_uri_or_plain_address(Family::Bitcoin, &btc, address, Amount::from(sats))
}

fn words(entropy: &[u8]) -> SecretString {
    Seed::from_entropy(entropy, SecretString::default()).unwrap().words()
}

fn assert_same_keys(seed: &Seed, account: &KeyAccount, wallet: &Value) {
    assert_eq!(wallet["path"], account.derivation_path());
    // Wallets encode the network in the version of the key (`tpub`); settled always writes `xpub`. The key is the same.
    let mut wallet_key: ExtendedKey = wallet["xpub"].as_str().unwrap().parse().unwrap();
    wallet_key.prefix = Prefix::XPUB;
    let xpub = account.derive_xpub(seed);
    assert_eq!(wallet_key.to_string(), xpub);

    let deriver = Deriver::from_account_key(&xpub, account.address_scheme()).unwrap();
    let from_seed: Vec<String> =
        (0..ADDRESSES).map(|index| account.derive_address(seed, index).unwrap().text).collect();
    let from_xpub: Vec<String> = (0..ADDRESSES).map(|index| deriver.derive_address(index).unwrap().text).collect();
    assert_eq!(wallet["addresses"], json!(from_seed));
    assert_eq!(from_seed, from_xpub);
}
