//! An account key that is written in two ways is one account: its addresses are never issued again.

use bitcoin::base58;
use config::Config;

use crate::world::World;

/// The version bytes of a key of BIP 84 (SLIP-132), which wallets export as a zpub.
const ZPUB: [u8; 4] = [0x04, 0xb2, 0x47, 0x46];
/// The version bytes of BIP 32.
const XPUB: [u8; 4] = [0x04, 0x88, 0xb2, 0x1e];

/// Writes the Bitcoin account for P2WPKH addresses with these version bytes.
fn write_bitcoin_key_with_version(config: &mut Config, version: [u8; 4]) {
    let is_p2wpkh = |path: &str| path.starts_with("m/84'");
    let account = config.accounts.iter_mut().find(|account| is_p2wpkh(&account.path)).unwrap();
    let mut payload = base58::decode_check(&account.xpub).unwrap();
    payload[..4].copy_from_slice(&version);
    account.xpub = base58::encode_check(&payload);
}

async fn count_accounts(world: &World) -> i64 {
    let sql = "select count(*) as n from address_accounts";
    let row = world.db.read("look", move |tx| Box::pin(async move { tx.row(sql, Vec::new()).await })).await;
    row.unwrap().unwrap().get("n").unwrap()
}

both! {
    async fn the_same_account_as_zpub_and_as_xpub_continues_its_indices(world: World = |config| {
        write_bitcoin_key_with_version(config, ZPUB);
    }) {
        let first = world.place_order_of(40, "btc").await;
        let accounts = count_accounts(&world).await;
        for version in [XPUB, ZPUB] {
            write_bitcoin_key_with_version(&mut world.config, version);
            world.crash_and_boot().await;
            let second = world.place_order_of(40, "btc").await;
            assert_ne!(second.address, first.address, "an address is issued once");
            assert_eq!(count_accounts(&world).await, accounts, "it is one account");
        }
    }
}
