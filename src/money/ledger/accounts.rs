//! Ledger accounts: their kinds and names, and a cache of the account rows that this process has used.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chain::{AssetId, ChainId};

use crate::ledger::{JournalEntry, store};
use db::{self, Tx};
use ids::{MerchantId, Mode, UserId};

/// A ledger account, without mode and asset: the table `accounts` has a separate row for each mode and asset.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Account {
    /// The assets that the ledger has at the deposit addresses of a chain. A debit increases this account.
    OnChain(ChainId),
    /// The money of confirmed deposits to the merchant's invoices, until the invoice is paid or expires.
    MerchantIncoming(MerchantId),
    /// The money of paid invoices whose deposits a reorg can still remove.
    MerchantPending(MerchantId),
    /// The money of paid invoices whose deposits are final. Payouts may spend this money. The account never goes below
    /// zero.
    MerchantAvailable(MerchantId),
    /// Unallocated money: an address of the merchant received it, but no invoice counts it. The second field is the
    /// reason.
    Suspense(MerchantId, Suspense),
    /// The balance of a user at a shop. The account never goes below zero.
    User(UserId),
    /// The operator's own funds, from which administrators credit users.
    OperatorEquity,
    /// Money at addresses of our account keys that belong to no invoice. The operator decides whose it is.
    OperatorUnclaimed,
}

/// The reason why an invoice does not count a deposit, so that its money is in a suspense account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suspense {
    /// The money was a partial payment of an invoice that expired.
    Short,
    /// The money exceeds the amount that the invoice requested.
    Surplus,
    /// The money arrived after the payment window of the invoice had ended.
    Late,
    /// The money is in another asset than the invoice requests.
    Foreign,
    /// The amount is too small to be a payment.
    Dust,
}

impl Account {
    /// Returns the stable name of the account in the database, such as `merchant:7:available`.
    pub fn account_code(&self) -> String {
        match self {
            Account::OnChain(chain) => format!("onchain:{chain}"),
            Account::MerchantIncoming(merchant) => format!("merchant:{merchant}:incoming"),
            Account::MerchantPending(merchant) => format!("merchant:{merchant}:pending"),
            Account::MerchantAvailable(merchant) => format!("merchant:{merchant}:available"),
            Account::Suspense(merchant, Suspense::Short) => format!("merchant:{merchant}:suspense:short"),
            Account::Suspense(merchant, Suspense::Surplus) => format!("merchant:{merchant}:suspense:surplus"),
            Account::Suspense(merchant, Suspense::Late) => format!("merchant:{merchant}:suspense:late"),
            Account::Suspense(merchant, Suspense::Foreign) => format!("merchant:{merchant}:suspense:foreign"),
            Account::Suspense(merchant, Suspense::Dust) => format!("merchant:{merchant}:suspense:dust"),
            Account::User(user) => format!("user:{user}"),
            Account::OperatorEquity => "operator:equity".to_owned(),
            Account::OperatorUnclaimed => "operator:unclaimed".to_owned(),
        }
    }

    /// Returns true when the balance of this kind of account may not go below zero. The ledger then refuses entries
    /// that would spend more than the account has.
    pub fn may_not_go_below_zero(&self) -> bool {
        match self {
            Account::MerchantAvailable(_) | Account::User(_) => true,
            Account::OnChain(_)
            | Account::MerchantIncoming(_)
            | Account::MerchantPending(_)
            | Account::Suspense(..)
            | Account::OperatorEquity
            | Account::OperatorUnclaimed => false,
        }
    }
}

/// The account rows that this process has used, kept in memory. Account rows never change, so each is read from the
/// database once.
#[derive(Default)]
struct AccountCache(Mutex<HashMap<AccountKey, store::AccountRow>>);

impl AccountCache {
    fn find_cached_account(&self, key: &AccountKey) -> Option<store::AccountRow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    fn insert_cached_account(&self, key: AccountKey, account: store::AccountRow) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, account);
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct AccountKey {
    mode: Mode,
    account: Account,
    asset: AssetId,
}

impl AccountKey {
    pub fn new(mode: Mode, account: &Account, asset: &AssetId) -> AccountKey {
        AccountKey { mode, account: account.clone(), asset: asset.clone() }
    }
}

/// Returns the account rows for all lines of the entries, from the cache or the database. Creates rows for accounts
/// that are used for the first time.
pub(super) async fn find_or_create_accounts_of_entries(
    tx: &mut Tx,
    entries: &[JournalEntry],
) -> Result<HashMap<AccountKey, store::AccountRow>, db::Error> {
    let cache = tx.shared_cache::<AccountCache>();
    let mut accounts = HashMap::new();
    for (mode, lines) in entries.iter().filter_map(JournalEntry::entry_lines) {
        for line in lines {
            for account in [&line.debit, &line.credit] {
                let key = AccountKey::new(mode, account, &line.asset);
                if accounts.contains_key(&key) {
                    continue;
                }
                let found = match cache.find_cached_account(&key) {
                    Some(found) => found,
                    None => {
                        let found = store::find_or_insert_ledger_account(tx, mode, account, &line.asset).await?;
                        let (cache, key) = (cache.clone(), key.clone());
                        tx.after_commit(move || cache.insert_cached_account(key, found));
                        found
                    }
                };
                accounts.insert(key, found);
            }
        }
    }
    Ok(accounts)
}
