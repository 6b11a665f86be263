use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::Network;
use chain::address::AddressScheme;
use chain::{ChainId, Deriver, Family, WatchSet};
use futures_util::future::join_all;

use crate::addresses::{Addresses, ChainAccount, IssueError, MarkFile, PAGE, ReservedAddress, watch_issued_addresses};
use clock::Instant;
use db::{BatchRows, Db, Error, batch_row, row};
use ids::Mode;

/// The account key of the test vectors in BIP 84.
const XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

fn parse_chain_id(name: &str) -> ChainId {
    ChainId::parse(name).unwrap()
}

/// Opens the addresses of two chains that share an account key and a watch set.
async fn open_addresses(db: &Db) -> (Addresses, Arc<WatchSet>) {
    let watched = Arc::new(WatchSet::default());
    let account = |name: &str| ChainAccount {
        chain: parse_chain_id(name),
        family: Family::Evm,
        purpose: "deposit-test".into(),
        mode: Mode::Test,
        path: String::new(),
        deriver: Deriver::from_account_key(XPUB, AddressScheme::Evm).unwrap(),
        watched: watched.clone(),
    };
    let accounts = vec![account("ethereum"), account("polygon")];
    let addresses =
        db.write("open", move |tx| Box::pin(Addresses::store_account_keys_and_build(tx, accounts))).await.unwrap();
    for chain in ["ethereum", "polygon"] {
        watch_issued_addresses(db, &parse_chain_id(chain), &watched).await.unwrap();
        addresses.watch_unissued_leased_addresses(db, &parse_chain_id(chain)).await.unwrap();
    }
    (addresses, watched)
}

async fn store_and_issue_address(db: &Db, reserved: ReservedAddress) -> String {
    db.write("issue", move |tx| {
        Box::pin(async move {
            let id = reserved.queue_address_insert(tx, Instant(0));
            tx.run_queued().await?;
            tx.id_of(id)?;
            Ok::<_, Error>(reserved.watch_and_issue_address())
        })
    })
    .await
    .unwrap()
}

async fn load_next_index(db: &Db) -> i64 {
    let found =
        db.read("next", |tx| Box::pin(async move { row!(tx, "select next_index from address_accounts") })).await;
    found.unwrap().unwrap().get_at(0).unwrap()
}

db::both! {
    async fn every_address_is_issued_once_across_chains_and_restarts(db: Db) {
        let mut seen = HashSet::new();
        for _ in 0..2 {
            let (addresses, watched) = open_addresses(&db).await;
            // Both chains share the watch set. After a restart it also has the leased addresses that were not issued.
            let leased = usize::try_from(load_next_index(&db).await).unwrap();
            assert_eq!(watched.len(), leased);
            let names = ["ethereum", "polygon"].map(parse_chain_id);
            let reservations = (0..150).map(|n: usize| addresses.reserve_address(&db, &names[n % 2]));
            for reserved in join_all(reservations).await {
                assert!(seen.insert(store_and_issue_address(&db, reserved.unwrap()).await));
            }
            assert!(watched.len() >= seen.len());
        }
        assert_eq!(seen.len(), 300);
    }

    async fn a_key_written_as_zpub_and_as_xpub_is_one_account(db: Db) {
        let zpub = "zpub6rFR7y4Q2AijBEqTUquhVz398htDFrtymD9xYYfG1m4wAcvPhXNfE3EfH1r1ADqtfSdVCToUG868RvUUkgDKf31mGDtKsAYz2oz2AGutZYs";
        let bitcoin = parse_chain_id("bitcoin");
        let mut issued = Vec::new();
        for spelling in [zpub, XPUB] {
            let account = ChainAccount {
                chain: bitcoin.clone(),
                family: Family::Bitcoin,
                purpose: "deposit-test".into(),
                mode: Mode::Test,
                path: String::new(),
                deriver: Deriver::from_account_key(spelling, AddressScheme::for_family(Family::Bitcoin, Network::Bitcoin)).unwrap(),
                watched: Arc::default(),
            };
            let addresses = db
                .write("open", move |tx| Box::pin(Addresses::store_account_keys_and_build(tx, vec![account])))
                .await
                .unwrap();
            issued.push(store_and_issue_address(&db, addresses.reserve_address(&db, &bitcoin).await.unwrap()).await);
        }
        assert_ne!(issued[0], issued[1], "the second spelling does not begin with index 0");
        assert_eq!(load_next_index(&db).await, 128);
    }

    async fn a_mark_file_that_cannot_be_written_issues_no_address_and_takes_one_lease(db: Db) {
        let (addresses, _) = open_addresses(&db).await;
        // A file stands where the folder of the mark would be.
        let blocked = std::env::temp_dir().join(format!("settled-no-folder-{}-{:?}", std::process::id(), db.backend()));
        std::fs::write(&blocked, "").unwrap();
        let addresses = addresses.with_mark_file(Arc::new(MarkFile::new(blocked.join("addresses"))));
        let ethereum = parse_chain_id("ethereum");
        for _ in 0..3 {
            assert!(matches!(addresses.reserve_address(&db, &ethereum).await, Err(IssueError::Mark(_))));
        }
        assert_eq!(load_next_index(&db).await, 64, "the three orders share a lease");
        std::fs::remove_file(&blocked).unwrap();
        addresses.reserve_address(&db, &ethereum).await.unwrap();
        assert_eq!(load_next_index(&db).await, 64);
        std::fs::remove_dir_all(&blocked).unwrap();
    }

    async fn issued_addresses_are_loaded_in_pages_outside_of_write_transactions(db: Db) {
        open_addresses(&db).await;
        // Three pages of which the last one is full, so that a fourth, empty one follows.
        let total = 3 * PAGE;
        let keys = (0..total).map(|n| (n * 7_919) % total);
        let rows = keys.map(|n| {
            let mut key = [0; 20];
            key[12..].copy_from_slice(&n.to_be_bytes());
            batch_row![key, format!("{n:x}"), n]
        });
        let rows: BatchRows = rows.collect();
        let insert = "with given (key bytea, name text, n bigint)
            insert into addresses (chain, key, text, account_id, derivation_index, issued_at)
            select 'ethereum', given.key, given.name, a.id, given.n, 0 from given, address_accounts a";
        db.write("fill", move |tx| Box::pin(async move { tx.execute_for_each(insert, rows, Vec::new()).await })).await.unwrap();

        let (before, watched) = (db.counters(), WatchSet::default());
        watch_issued_addresses(&db, &parse_chain_id("ethereum"), &watched).await.unwrap();
        let after = db.counters();
        assert_eq!(i64::try_from(watched.len()).unwrap(), total);
        assert_eq!(after.sql_statements - before.sql_statements, 4, "one query for each page");
        assert_eq!(after.transactions - before.transactions, 4, "one transaction for each page");
        assert_eq!(after.commits, before.commits, "nothing is written");
        let other = WatchSet::default();
        watch_issued_addresses(&db, &parse_chain_id("polygon"), &other).await.unwrap();
        assert!(other.is_empty());
    }

    async fn an_address_that_was_not_issued_is_reserved_again(db: Db) {
        let (addresses, watched) = open_addresses(&db).await;
        let ethereum = parse_chain_id("ethereum");
        let dropped = addresses.reserve_address(&db, &ethereum).await.unwrap();
        let first = format!("{dropped:?}");
        drop(dropped);
        let refused = addresses.reserve_address(&db, &ethereum).await.unwrap();
        let result = db.write("refused", move |tx| Box::pin(async move {
            refused.queue_address_insert(tx, Instant(0));
            tx.run_queued().await?;
            Err::<(), _>(Error::Conflict("on purpose".into()))
        })).await;
        assert!(result.is_err());
        assert!(watched.is_empty());
        let again = addresses.reserve_address(&db, &ethereum).await.unwrap();
        assert_eq!(format!("{again:?}"), first);
        let (again, other) = (store_and_issue_address(&db, again).await, store_and_issue_address(&db, addresses.reserve_address(&db, &ethereum).await.unwrap()).await);
        assert_ne!(again, other);
        assert_eq!((watched.len(), load_next_index(&db).await), (2, 64));
    }

    async fn a_lease_is_stored_before_it_is_used(db: Db) {
        let (addresses, _) = open_addresses(&db).await;
        assert_eq!(load_next_index(&db).await, 0);
        let _reserved = addresses.reserve_address(&db, &parse_chain_id("ethereum")).await.unwrap();
        assert_eq!(load_next_index(&db).await, 64);
        let unknown = addresses.reserve_address(&db, &parse_chain_id("tron")).await;
        assert!(matches!(unknown, Err(IssueError::NoAccount(_))));
    }
}
