//! The repair of a restored database: indices that may have been issued after the backup are skipped, and stay watched.

use crate::addresses::{AddressMark, store};
use clock::Instant;
use db::{self, Tx};
use records::audit_log::{self, Action, Actor};

/// The number of indices that are skipped above the highest issued one, unless the mark is higher.
pub const DEFAULT_SKIP: u32 = 1_000;
/// The lowest number that is not a derivation index.
const INDEX_END: u32 = 1 << 31;

/// The indices of one account that were skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedIndices {
    /// The name of the account for people.
    pub account: String,
    /// The first skipped index.
    pub first: u32,
    /// The index from which the account continues.
    pub next: u32,
}

/// The result of [`skip_indices_after_restore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredAddresses {
    /// The new epoch.
    pub epoch: u64,
    /// The accounts, with the indices that were skipped.
    pub accounts: Vec<SkippedIndices>,
}

/// The reason why no indices were skipped.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The mark is missing, so the number of indices to skip is not known.
    #[error(
        "the address mark is missing, so the number of addresses that were issued after the backup is not known: pass \
         `--skip N`, and choose N well above the number of on-chain orders since the backup"
    )]
    SkipRequired,
    /// An account has too few indices left.
    #[error("{account} has no index left above {next}; use a new account key")]
    NoIndicesLeft {
        /// The name of the account.
        account: String,
        /// The first index that is not available.
        next: u32,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] db::Error),
}

/// Moves every account to the highest of its mark in the file, its leased indices, and `skip` indices above the highest
/// issued one (1,000 without a number). The skipped indices stay leased on all chains of the account, so that they are
/// watched and never issued. Raises the epoch above that of the file, which stops other instances from leasing, and
/// records the action in the audit log.
///
/// # Errors
/// [`RestoreError::SkipRequired`] without a mark and without a number.
pub async fn skip_indices_after_restore(
    tx: &mut Tx,
    now: Instant,
    actor: &Actor,
    file: Option<&AddressMark>,
    skip: Option<u32>,
) -> Result<RestoredAddresses, RestoreError> {
    let skip = match (file, skip) {
        (_, Some(skip)) => skip,
        (Some(_), None) => DEFAULT_SKIP,
        (None, None) => return Err(RestoreError::SkipRequired),
    };
    for (key, account) in file.iter().flat_map(|file| &file.accounts) {
        store::find_or_insert_address_account(tx, key, account).await?;
    }
    let mut accounts = Vec::new();
    for (id, key, account) in store::list_address_accounts(tx).await? {
        let issued = store::find_issued_index_end(tx, id).await?;
        let marked = file.and_then(|file| file.accounts.get(&key)).map_or(0, |marked| marked.next_index);
        let next = marked.max(account.next_index).max(issued.saturating_add(skip));
        if next >= INDEX_END {
            return Err(RestoreError::NoIndicesLeft { account: account.describe(), next });
        }
        if next > account.next_index {
            store::skip_indices(tx, id, account.next_index..next).await?;
        }
        accounts.push(SkippedIndices { account: account.describe(), first: account.next_index, next });
    }
    let epoch = store::raise_epoch_above(tx, file.map_or(0, |file| file.epoch)).await?;
    let detail: Vec<String> =
        accounts.iter().map(|skipped| format!("{} {}..{}", skipped.account, skipped.first, skipped.next)).collect();
    let detail = format!("skipped address indices: {}", detail.join(", "));
    audit_log::record_action(tx, now, actor, Action::DatabaseRestore, &format!("epoch {epoch}"), &detail).await?;
    Ok(RestoredAddresses { epoch, accounts })
}
