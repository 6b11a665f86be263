//! What other wallets derive from the same words: ethers and bitcoinjs-lib, unchanged, are the judges.

use bip32::{ExtendedKey, Prefix};
use bitcoin::Network;
use chain::{Amount, Asset, AssetKind, ChainId, Deriver, Family, payment_uri::payment_uri};
use provision::node;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use signer::{
    accounts::{AddressKind, KeyAccount, Purpose},
    seed::Seed,
};

const ADDRESSES: u32 = 5;
/// From the least that nodes relay to all coins that there will ever be.
const SATS: [u64; 8] = [294, 330, 1_063, 4_250, 10_000_000, 100_000_000, 123_456_789, 2_100_000_000_000_000];

#[test]
fn ethers_and_bitcoinjs_derive_the_same_keys() {
    let fresh = || Seed::generate().unwrap().words();
    let cases = [
        (fresh(), "", Network::Bitcoin, "bitcoin", Purpose::Deposit, 0),
        (fresh(), "", Network::Regtest, "regtest", Purpose::TestDeposit, 0),
        // NFKD matters for a passphrase like this: the letter may be written as one character or as two.
        (fresh(), "caf\u{e9} пароль", Network::Testnet, "testnet", Purpose::Hot(0), 2),
        (words_of(&[0x5a; 16]), "cafe\u{301}", Network::Bitcoin, "bitcoin", Purpose::Hot(89), 21_474_835),
    ];
    for (words, passphrase, network, name, purpose, epoch) in cases {
        let seed = Seed::from_words(&words, SecretString::from(passphrase)).unwrap();
        let account = |family| KeyAccount::new(family, network, purpose, epoch).unwrap();
        let number = account(Family::Evm).number();
        let input = json!({
            "mnemonic": words.expose_secret(), "passphrase": passphrase, "account": number, "count": ADDRESSES, "network": name,
            "sats": SATS,
        });
        let wallets = node::run_script_blocking("derive", &input).unwrap();
        agree(&seed, &account(Family::Evm), &wallets["evm"]);
        let bitcoin =
            [AddressKind::P2wpkh, AddressKind::P2tr].map(|kind| account(Family::Bitcoin).with_address_kind(kind));
        agree(&seed, &bitcoin[0], &wallets["btc"]);
        agree(&seed, &bitcoin[1], &wallets["taproot"]);
        let firsts = bitcoin.map(|account| seed.address(&account, 0).unwrap().text);
        let uris = firsts.iter().flat_map(|address| SATS.map(|sats| asked(address, sats)));
        assert_eq!(wallets["uris"], json!(uris.collect::<Vec<String>>()));
    }
}

/// What our QR code holds (BIP21).
fn asked(address: &str, sats: u64) -> String {
    let coin = Asset::new(ChainId::new("bitcoin").unwrap(), AssetKind::Native, "BTC", 8, 8);
    payment_uri(Family::Bitcoin, &coin, address, Amount::from(sats))
}

fn words_of(entropy: &[u8]) -> SecretString {
    Seed::from_entropy(entropy, SecretString::default()).unwrap().words()
}

fn agree(seed: &Seed, account: &KeyAccount, wallet: &Value) {
    assert_eq!(wallet["path"], account.path());
    // Wallets write the network into the version of the key (`tpub`); ours is always `xpub`. The key is the same.
    let mut theirs: ExtendedKey = wallet["xpub"].as_str().unwrap().parse().unwrap();
    theirs.prefix = Prefix::XPUB;
    let xpub = seed.account_xpub(account);
    assert_eq!(theirs.to_string(), xpub);

    let deriver = Deriver::new(&xpub, account.scheme()).unwrap();
    let ours: Vec<String> = (0..ADDRESSES).map(|index| seed.address(account, index).unwrap().text).collect();
    let daemons: Vec<String> = (0..ADDRESSES).map(|index| deriver.derive_address(index).unwrap().text).collect();
    assert_eq!(wallet["addresses"], json!(ours));
    assert_eq!(ours, daemons);
}
