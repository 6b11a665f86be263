//! Test vectors for addresses, transactions and signatures. TronWeb produced them offline, and two other
//! implementations gave the same results.

use bip32::{ChildNumber, XPrv};
use chain::{AddressKey, Amount, BlockHash, BlockRef, Deriver, address::AddressScheme};
use k256::ecdsa::SigningKey;
use tron::{
    abi, address,
    transaction::{self, Operation, Resource, TransactionParams, UnsignedTransaction},
};

const ABANDON: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
const JUNK: &str = "test test test test test test test test test test test junk";
const XPUB: &str =
    "xpub6D1AabNHCupeiLM65ZR9UStMhJ1vCpyV4XbZdyhMZBiJXALQtmn9p42VTQckoHVn8WNqS7dqnJokZHAHcHGoaQgmv8D45oNUKx6DZMNZBCd";
const REFERENCE: &str = "0000000003fe262d52bfa4b2814f816fd2e57af5b98a33d60d8630a03a908e0e";
const USDT: &str = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t";

/// Keys of the phrase [`ABANDON`]: index, address, hexadecimal address, private key.
const ABANDON_KEYS: [(u32, &str, &str, &str); 8] = [
    (
        0,
        "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH",
        "41c8599111f29c1e1e061265b4af93ea1f274ad78a",
        "b5a4cea271ff424d7c31dc12a3e43e401df7a40d7412a15750f3f0b6b5449a28",
    ),
    (
        1,
        "TSeJkUh4Qv67VNFwY8LaAxERygNdy6NQZK",
        "41b6e708a39781c96bd399c7657780ff9fe9f052a8",
        "edb728e259afca2ddcc428459e7681b8414668649aedbc8d25c0872da219b2e6",
    ),
    (
        2,
        "TYJPRrdB5APNeRs4R7fYZSwW3TcrTKw2gx",
        "41f4f35fff5ca9ee43aca2c57ded9d9ec66ac42dd0",
        "0e5684898be2d272d54eb2be3fd41a12f720db6358cee02c2d23043eed4bf7a2",
    ),
    (
        3,
        "TRhVWK5XEDkQBDevcdCWW7RW51aRncty4W",
        "41ac892261ed306c7c91ff84895811fa2e5e58333d",
        "5b7bff42fdea332c127c455e5a15d691a562773677de88e8256fc8d19a1b0337",
    ),
    (
        4,
        "TT2X2yyubp7qpAWYYNE5JQWBtoZ7ikQFsY",
        "41bb1a70862e804bfe2885f6c7efc8fdf3f0148b00",
        "0463701bb6b397f5d90b68bd64454ebe1b4736e9d0862a9391980f31e3141348",
    ),
    (
        5,
        "TBdYXtwq18cAhi1BA574TrP6tw2G86anu1",
        "4112383c8eff283aa01d749ef7e45761f1f82762c4",
        "b46d74cf377ce98d89d7c9eade68eb863791296122e2b1324057fdc190369cd0",
    ),
    (
        100,
        "TVjTLqXUzMUsHhjAPaWP3TpA7vvz2MuvU1",
        "41d8c8a9d9e623c36374c97009666b2efbd2cd2754",
        "b242695cdef4cd994b1e3954b7e5d2fac4e49af44c482d329ca79222a96c941d",
    ),
    (
        2147483647,
        "TVapZk5c7S7ARtSBi9jD13rhkbZke4F4sa",
        "41d726a2af95aba2b8c78890f03b928571d1e5f9f5",
        "f4b569577a4aea1baaa868bcb8274b134b2f5d4ae694e7f8ab5f05ee39327180",
    ),
];

/// USDT on each network: preset, contract, hexadecimal contract, chain id. The chain id is the end of the genesis
/// block's id.
const CONTRACTS: [(&str, &str, &str, u32); 3] = [
    (
        include_str!("../../../../config/chains/tron.toml"),
        USDT,
        "41a614f803b6fd780986a42c78ec9c7f77e6ded13c",
        0x2b66_53dc,
    ),
    (
        include_str!("../../../../config/chains/nile.toml"),
        "TXYZopYRdj2D9XRtbG411XZZ3kM5VkAeBf",
        "41eca9bc828a3005b9a3b909f2cc5c2a54794de05f",
        0xcd86_90dc,
    ),
    (
        include_str!("../../../../config/chains/shasta.toml"),
        "TG3XXyExBkPp9nzdajDZsozEu4BkaSJozs",
        "4142a1e39aefa49290f2b3f9ed688d7cecf86cd6e0",
        0x94a9_059e,
    ),
];

/// Keys of the phrase [`JUNK`]: index, address, private key.
const JUNK_KEYS: [(u32, &str, &str); 5] = [
    (0, "TWer2Ygk5TEheHp3TPuYeqxmB6SsGZmaL6", "15f0bbb1774be40b7a8d7965d637f324bda2f711fc5726a3dcc19585c6950954"),
    (1, "TPjjvMwjPoDC32V2dGDYTkLH4E5LAtBZ6C", "9b6ac6a6faf1dc64240f654475a7e668141e4205262367feb7269ef332113929"),
    (2, "TB7mhtkvfhsRBRhe5FuRa4tFXSEyGDe4eA", "0c88a7fee5bfbe5a354c225bfa8a9d09557466cdf56f887cc2d000e7354f9453"),
    (3, "TEb822rMZ5QkYReuqdqK61zkheaan97PZZ", "68c9a7dcaa4677fdeba9f72c8a1d86d0adf34932cdbdb52d90a2d01504d9d4be"),
    (4, "TYc2iBENTQ7kwx5jbjW3JDqugR7kogQZn3", "a01527c0c2d83e71c8827f2f0ee5c1a6f715a0c9bace1c3da50c6690a4e69fe7"),
];
const TRX_RAW: &str = "0a02262d220852bfa4b2814f816f40c8acf4bfdd335a67080112630a2d747970652e676f6f676c65617069732e636f6d2f70726f746f636f6c2e5472616e73666572436f6e747261637412320a1541c8599111f29c1e1e061265b4af93ea1f274ad78a121541b6e708a39781c96bd399c7657780ff9fe9f052a818e0c65b70e8d7f0bfdd33";
const TRX_TXID: &str = "d68bd907ebccec545e8461644d836a5f02b510201649308636fe04eb1ad9670f";
const TRX_SIG: &str = "0991092b713725dd5808e877d329543ba5fa820162fdbbacc08fa8c545b1111647bc340807e467d1043dbc1879ff0bbda5263c0febdbd10c4e2a6478e0ae6c7c1b";
const TRX_TX: &str = "0a85010a02262d220852bfa4b2814f816f40c8acf4bfdd335a67080112630a2d747970652e676f6f676c65617069732e636f6d2f70726f746f636f6c2e5472616e73666572436f6e747261637412320a1541c8599111f29c1e1e061265b4af93ea1f274ad78a121541b6e708a39781c96bd399c7657780ff9fe9f052a818e0c65b70e8d7f0bfdd3312410991092b713725dd5808e877d329543ba5fa820162fdbbacc08fa8c545b1111647bc340807e467d1043dbc1879ff0bbda5263c0febdbd10c4e2a6478e0ae6c7c1b";
const TOKEN_RAW: &str = "0a02262d220852bfa4b2814f816f40c8acf4bfdd335aae01081f12a9010a31747970652e676f6f676c65617069732e636f6d2f70726f746f636f6c2e54726967676572536d617274436f6e747261637412740a1541c8599111f29c1e1e061265b4af93ea1f274ad78a121541a614f803b6fd780986a42c78ec9c7f77e6ded13c2244a9059cbb000000000000000000000000b6e708a39781c96bd399c7657780ff9fe9f052a80000000000000000000000000000000000000000000000000000000000bc614e70e8d7f0bfdd3390018087a70e";
const TOKEN_TXID: &str = "daef1f79ad4caa35547ef384b19b1175653e1e17a54ed2b3b7be1c69f68150cd";
const TOKEN_SIG: &str = "53736e6ef00278b907de391af031a9e96afb2e090b2472f7f599a423fac77bca693ee2f9b2cb8ac9e251a34a13b75081b7d77b51ab5bce467ffdda47c577491b1c";
const TOKEN_TX: &str = "0ad3010a02262d220852bfa4b2814f816f40c8acf4bfdd335aae01081f12a9010a31747970652e676f6f676c65617069732e636f6d2f70726f746f636f6c2e54726967676572536d617274436f6e747261637412740a1541c8599111f29c1e1e061265b4af93ea1f274ad78a121541a614f803b6fd780986a42c78ec9c7f77e6ded13c2244a9059cbb000000000000000000000000b6e708a39781c96bd399c7657780ff9fe9f052a80000000000000000000000000000000000000000000000000000000000bc614e70e8d7f0bfdd3390018087a70e124153736e6ef00278b907de391af031a9e96afb2e090b2472f7f599a423fac77bca693ee2f9b2cb8ac9e251a34a13b75081b7d77b51ab5bce467ffdda47c577491b1c";
const DELEGATE_RAW: &str = "0a02262d220852bfa4b2814f816f40c8acf4bfdd335a730839126f0a35747970652e676f6f676c65617069732e636f6d2f70726f746f636f6c2e44656c65676174655265736f75726365436f6e747261637412360a1541c8599111f29c1e1e061265b4af93ea1f274ad78a1001188094ebdc03221541b6e708a39781c96bd399c7657780ff9fe9f052a870e8d7f0bfdd33";
const FOREIGN_RAW: &str = "0a0229272208939ece39d08a7abe40d8c483c1dd335a67080112630a2d747970652e676f6f676c65617069732e636f6d2f70726f746f636f6c2e5472616e73666572436f6e747261637412320a1541dd791d6b49e190062d650e6a23c575510d35f2f912154192ad11c1bf16b3b14b0bd6b5c7e2db73a0b5e83a18c0843d70d68780c1dd33";

fn derive_seed(phrase: &str, passphrase: &str) -> [u8; 64] {
    bip39::Mnemonic::parse(phrase).unwrap().to_seed(passphrase)
}

fn derive_private_key(seed: &[u8], index: u32) -> SigningKey {
    let path = [(44, true), (195, true), (0, true), (0, false), (index, false)];
    let child = |key: XPrv, (number, hardened)| key.derive_child(ChildNumber::new(number, hardened).unwrap()).unwrap();
    let key = path.into_iter().fold(XPrv::new(seed).unwrap(), child);
    SigningKey::from_slice(&key.private_key().to_bytes()).unwrap()
}

fn to_address_text(key: &SigningKey) -> String {
    chain::address::encode_tron_address(transaction::derive_account(key.verifying_key())).text
}

fn signing_key(index: usize) -> SigningKey {
    SigningKey::from_slice(&const_hex::decode(ABANDON_KEYS[index].3).unwrap()).unwrap()
}

fn test_account(index: usize) -> AddressKey {
    address::parse_tron_address(ABANDON_KEYS[index].1).unwrap().key
}

fn test_params() -> TransactionParams {
    let hash = BlockHash(const_hex::decode_to_array(REFERENCE).unwrap());
    TransactionParams::without_fee_limit(BlockRef { height: 66_987_565, hash }, 1_777_445_181_000, 1_777_445_121_000)
}

fn build_trx_transfer(sun: i64) -> Operation {
    Operation::Transfer { to: test_account(1), sun }
}

fn build_token_transfer(amount: Amount) -> Operation {
    let contract = address::parse_tron_address(USDT).unwrap().key;
    Operation::Trigger { contract, call_value: 0, data: abi::encode_transfer_call(test_account(1), amount) }
}

fn build_test_transaction(operation: &Operation, params: &TransactionParams) -> UnsignedTransaction {
    transaction::build_transaction(test_account(0), operation, params)
}

fn assert_signed(unsigned: &UnsignedTransaction, raw: &str, txid: &str, signature: &str, bytes: &str) {
    let signed = unsigned.sign_if_owner(&signing_key(0)).unwrap();
    assert_eq!(const_hex::encode(&unsigned.raw), raw);
    assert_eq!(signed.txid.to_string(), txid);
    assert_eq!(const_hex::encode(signed.signature), signature);
    assert_eq!(const_hex::encode(&signed.bytes), bytes);
}

#[test]
fn addresses_are_derived_from_the_seed_and_from_the_account_key() {
    let seed = derive_seed(ABANDON, "");
    let deriver = Deriver::from_account_key(XPUB, AddressScheme::Tron).unwrap();
    for (index, text, hex, secret) in ABANDON_KEYS {
        let derived = deriver.derive_address(index).unwrap();
        assert_eq!((derived.text.as_str(), address::to_prefixed_hex(derived.key).as_str()), (text, hex));
        assert_eq!(address::parse_hex_with_network_prefix(hex), Some(derived.key));
        let key = derive_private_key(&seed, index);
        assert_eq!(const_hex::encode(key.to_bytes()), secret);
        assert_eq!(to_address_text(&key), text);
    }
}

#[test]
fn other_phrases_derive_the_published_addresses() {
    let junk = derive_seed(JUNK, "");
    for (index, text, secret) in JUNK_KEYS {
        let key = derive_private_key(&junk, index);
        assert_eq!((to_address_text(&key).as_str(), const_hex::encode(key.to_bytes()).as_str()), (text, secret));
    }
    let art = derive_seed(&format!("{}art", "abandon ".repeat(23)), "TREZOR");
    for (index, text) in [
        (0, "TUxz2kwj8gAZocscfj8cxseDdv4M2apZZz"),
        (1, "TK2isNzNqQQ4paoAqRoMFjnp7ZS76wjuPm"),
        (2, "TDTBBPHWbSAixmjjXG5P13fEGxuyagueLx"),
    ] {
        assert_eq!(to_address_text(&derive_private_key(&art, index)), text);
    }
}

#[test]
fn the_presets_contain_the_usdt_contracts_and_chain_ids() {
    for (preset, text, hex, chain_id) in CONTRACTS {
        assert_eq!(address::to_prefixed_hex(address::parse_tron_address(text).unwrap().key), hex);
        assert!(preset.contains(&format!("contract = \"{text}\"")), "{preset}");
        assert!(preset.contains(&format!("chain_id = {chain_id}\n")), "{preset}");
    }
}

#[test]
fn token_calls_have_the_published_selectors_and_layouts() {
    let holder = test_account(1);
    for (data, selector, words) in [
        (abi::encode_transfer_call(holder, Amount::from_units(1)), "a9059cbb", 2),
        (abi::encode_balance_of_call(holder), "70a08231", 1),
        (abi::encode_decimals_call(), "313ce567", 0),
        (abi::encode_is_black_listed_call(holder), "e47d6060", 1),
        (abi::encode_paused_call(), "5c975abb", 0),
    ] {
        assert_eq!((const_hex::encode(&data[..4]).as_str(), data.len()), (selector, 4 + 32 * words));
        assert!(words == 0 || (data[4..16] == [0; 12] && data[16..36] == holder.0), "{selector}");
    }
    let topic = alloy_primitives::keccak256("Transfer(address,address,uint256)");
    assert_eq!(abi::TRANSFER_TOPIC, const_hex::encode(topic));
}

#[test]
fn a_trx_transfer_matches_its_vector() {
    let unsigned = build_test_transaction(&build_trx_transfer(1_500_000), &test_params());
    assert_signed(&unsigned, TRX_RAW, TRX_TXID, TRX_SIG, TRX_TX);
    assert_eq!(transaction::compute_bandwidth_bytes(&unsigned.sign_if_owner(&signing_key(0)).unwrap().bytes), 267);
    for (sun, txid) in [
        (1, "1dd09e525627c6c7eb0515591cb63bc3f091c03409f09d489076d3468c0e6c4b"),
        (127, "2f3c99ff675efdf296db4b60b508c9068ed339c6e4a7b938a56d93b6274fd4d7"),
        (128, "2170a1c796debc45820dc1c2c4b962497ae1162fb8bc21ec433211f054b48b73"),
        (9_007_199_254_740_991, "9573622ab257b2576be8b76b7e2349b9509f53f73defd21b552272a25e640449"),
    ] {
        assert_eq!(build_test_transaction(&build_trx_transfer(sun), &test_params()).txid.to_string(), txid);
    }
}

#[test]
fn another_timestamp_or_permission_gives_another_id() {
    let later = TransactionParams { timestamp_ms: 1_777_445_121_001, ..test_params() };
    let txid = build_test_transaction(&build_trx_transfer(1_500_000), &later).txid.to_string();
    assert_eq!(txid, "d9bb858b05441588e96ebc127833adb45ba4083fa679b323c479ba4cbf5b7ef2");
    let permitted = TransactionParams { permission_id: 2, ..test_params() };
    let txid = build_test_transaction(&build_trx_transfer(1_500_000), &permitted).txid.to_string();
    assert_eq!(txid, "b85c43fde60151712d2cf24e4b927b5afb7565e3121be10a518f40b6cda0b9cf");
}

#[test]
fn a_usdt_transfer_matches_its_vector() {
    let unsigned = build_test_transaction(
        &build_token_transfer(Amount::from_units(12_345_678)),
        &test_params().with_fee_limit(30_000_000),
    );
    assert_signed(&unsigned, TOKEN_RAW, TOKEN_TXID, TOKEN_SIG, TOKEN_TX);
    assert_eq!(transaction::compute_bandwidth_bytes(&unsigned.sign_if_owner(&signing_key(0)).unwrap().bytes), 345);
    let maximum =
        build_test_transaction(&build_token_transfer(Amount::MAX), &test_params().with_fee_limit(100_000_000));
    assert_eq!(maximum.txid.to_string(), "8e4fb2be98aa0a8113e84a760ebb264720d36fa60e8f8f569b64644ee1e6bef0");
}

#[test]
fn a_transaction_with_a_memo_matches_its_vector() {
    let unsigned =
        build_test_transaction(&build_trx_transfer(1), &TransactionParams { memo: b"hello".to_vec(), ..test_params() });
    assert_eq!(unsigned.txid.to_string(), "fc0abaf733ebcea63d3bdba2794a9d91cdcd7f4522dfdb93033d335df496bb3e");
    let signature = const_hex::encode(unsigned.sign_if_owner(&signing_key(0)).unwrap().signature);
    assert_eq!(
        signature,
        "ece64cad2bfc1dcc6487846e3c31768e1fb607b17add1838835ed84553933e2b\
         5d2c425dedda9e418033830c407e5c0c10b0b1578cd41b92cc11d70ccceff60f1b"
    );
}

#[test]
fn lending_and_taking_back_energy_match_their_vectors() {
    let sun = 1_000_000_000;
    let lend = build_test_transaction(
        &Operation::Delegate { resource: Resource::Energy, sun, to: test_account(1) },
        &test_params(),
    );
    assert_eq!(const_hex::encode(&lend.raw), DELEGATE_RAW);
    assert_eq!(lend.txid.to_string(), "0ec9f067c88adea7103a3eef3f1196f2a13ea540f793066a1323b797611b34ae");
    let take_back = build_test_transaction(
        &Operation::Undelegate { resource: Resource::Energy, sun, from: test_account(1) },
        &test_params(),
    );
    assert_eq!(take_back.txid.to_string(), "d63c1c4060ef7f8657475b90b836f7e8edc3527cf790f7086239f434fab2e821");
}

#[test]
fn the_id_of_a_transaction_that_a_node_built_matches() {
    let raw = const_hex::decode(FOREIGN_RAW).unwrap();
    let txid = transaction::compute_txid(&raw).to_string();
    assert_eq!(txid, "6303c7639f591407ef9f34a7ac8c9c9a21151f5a6af21924502515734fc267ab");
}

#[test]
fn a_signature_recovers_to_its_signer_and_another_key_cannot_sign() {
    let unsigned = build_test_transaction(&build_trx_transfer(1_500_000), &test_params());
    let mut signature = unsigned.sign_if_owner(&signing_key(0)).unwrap().signature;
    assert_eq!(transaction::recover_signer(unsigned.txid, &signature), Some(test_account(0)));
    signature[64] -= 27;
    assert_eq!(transaction::recover_signer(unsigned.txid, &signature), Some(test_account(0)));
    assert_eq!(unsigned.sign_if_owner(&signing_key(1)), Err(transaction::SignError::NotTheOwner));
    assert_eq!(transaction::recover_signer(unsigned.txid, &signature[..64]), None);
}
