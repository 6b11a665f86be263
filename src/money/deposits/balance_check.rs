//! Balance checks: the balance of an address is compared with its booked deposits. Money that no deposit explains is
//! booked as a deposit without a known transaction.

use chain::{AssetKind, BlockRef, ChainId, Height, Transfer, TransferIndex, TxId, TxPart};

use crate::cursors::{self, Position};
use crate::deposits::batch::DepositBatch;
use crate::deposits::block_sums::BlockSums;
use crate::deposits::{DepositService, is_bookable_amount, store};
use crate::effects::{self, ReviewRequest};
use crate::invoices;
use crate::ledger::PostError;
use clock::Instant;
use db::{self, Tx};
use ids::InvoiceId;
use records::reviews;

/// The address of an invoice, with the booked deposits that explain the balance of the address.
#[derive(Debug, Clone)]
pub struct BalanceCheck {
    /// The invoice that the address belongs to.
    pub invoice: InvoiceId,
    /// The id of the address in the database.
    pub id: ids::AddressId,
    /// The address whose balance is checked.
    pub address: chain::Address,
    /// The asset that the invoice requests.
    pub asset: AssetKind,
    /// The balance of the address before it was issued, in base units; `None` while it has not been read yet, so that the
    /// balance cannot be compared.
    pub initial: Option<chain::Amount>,
    /// The block height and the amount, in base units, of each deposit in this asset.
    /// The sum of the amounts is in range.
    pub deposits: Vec<(Height, chain::Amount)>,
    /// The height of the oldest stored block, or of the block of the initial balance if that is higher. Money that arrived
    /// earlier cannot be assigned to its block.
    pub oldest: Height,
}

impl BalanceCheck {
    /// Returns the part of the balance after the block at `height` that the initial balance and booked deposits explain, in
    /// base units. Deposits of later blocks explain nothing: the balance does not include them.
    pub fn explained_amount_at(&self, height: Height) -> chain::Amount {
        let amounts = self.deposits.iter().filter(|(booked, _)| *booked <= height).map(|(_, amount)| *amount);
        chain::Amount::checked_sum(amounts.chain(self.initial)).unwrap_or(chain::Amount::MAX)
    }

    /// Returns the transaction index under which a deposit without a known transaction is stored. The index is made
    /// from the id of the address, so that two addresses of a chain do not use the same index.
    ///
    /// # Panics
    /// Never: the value has 31 bits.
    pub fn synthetic_tx_index(&self) -> u32 {
        u32::try_from(self.id.0 & 0x7fff_ffff).expect("31 bits")
    }

    /// Returns the id of the asset on `chain`.
    pub fn asset_id_on_chain(&self, chain: &ChainId) -> chain::AssetId {
        chain::AssetId::on_chain(chain, &self.asset)
    }
}

/// The result of the attempt to book the part of a balance that no deposit explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnexplainedCredit {
    /// The credit was booked, or it was too large to be booked and a review was opened.
    Booked,
    /// The block is not on the branch that the follower has read, so nothing was booked.
    OffBranch,
    /// After the balance check was read, another deposit to the address was booked, so this credit was not booked. The
    /// caller has to compare the balance again.
    Outdated,
}

/// Returns the last block that the follower has read, and at most `limit` open invoices in the native asset of the
/// chain, those that expire first. The block is `None` before the follower first starts.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_open_native_invoices_and_cursor(
    tx: &mut Tx,
    chain: &ChainId,
    limit: i64,
) -> Result<(Option<BlockRef>, Vec<InvoiceId>), db::Error> {
    let cursor = cursors::find_cursor(tx, chain).await?;
    let invoices = invoices::list_open_native_invoices_by_expiry(tx, chain, limit).await?;
    Ok((cursor.and_then(|cursor| cursor.recent.last().copied()), invoices))
}

/// Returns the balance check of each invoice: its address with the booked deposits. Leaves out invoices for which an
/// earlier check found a balance that is too large to be booked.
///
/// # Errors
/// Any [`db::Error`] of the database.
pub async fn list_balance_checks_in_range(tx: &mut Tx, invoices: &[InvoiceId]) -> Result<Vec<BalanceCheck>, db::Error> {
    let mut checks = Vec::with_capacity(invoices.len());
    for invoice in invoices {
        checks.extend(store::find_balance_check_in_range(tx, *invoice).await?);
    }
    Ok(checks)
}

impl DepositService {
    /// Books `credit`, the base units by which the balance of an address exceeds its booked deposits, as a deposit in
    /// the block `at`. Locks the cursor and reads the deposits again, so that neither the follower nor a second balance
    /// check can book the same money twice. Books nothing when the block or the deposits have changed since the check.
    /// A credit that is too large to be booked opens a review instead.
    ///
    /// # Errors
    /// Returns an error when the chain was never started, and when the ledger refuses an entry.
    pub async fn book_credit_if_still_unexplained(
        &self,
        tx: &mut Tx,
        now: Instant,
        at: BlockRef,
        check: &BalanceCheck,
        credit: chain::Amount,
    ) -> Result<UnexplainedCredit, PostError> {
        let chain = &self.chain;
        cursors::lock_cursor_and_check_deposits_or_fail(tx, &chain.id, Position::NONE).await?;
        let Some(header) = cursors::find_block_header_without_parent(tx, &chain.id, at).await? else {
            return Ok(UnexplainedCredit::OffBranch);
        };
        let current = store::find_balance_check_in_range(tx, check.invoice).await?;
        let explained = check.explained_amount_at(at.height);
        if current.is_none_or(|current| current.explained_amount_at(at.height) != explained) {
            return Ok(UnexplainedCredit::Outdated);
        }
        let mut batch = DepositBatch::empty_for_service(now, self);
        // The credit is too large to be booked, so open a review. `store::find_balance_check_in_range` leaves out
        // invoices with this kind of review, so the address is not checked again.
        if !is_bookable_amount(credit) {
            let asset = check.asset_id_on_chain(&chain.id);
            batch.add_review_request(ReviewRequest {
                kind: reviews::Kind::BalanceOutOfRange,
                subject: format!("invoice/{}", check.invoice),
                detail: format!("its balance is {credit} base units of {asset} more than is booked"),
                amount: None,
            });
        } else {
            let transfer = Transfer {
                txid: TxId([0; 32]),
                index: TransferIndex { tx_index: check.synthetic_tx_index(), part: TxPart::BalanceIncrease },
                asset: check.asset_id_on_chain(&chain.id),
                to: check.address.key,
                from: None,
                amount: credit,
            };
            let sums = BlockSums::sum_stored_counted_deposits(tx, &chain.id, std::iter::once(header.height)).await?;
            batch.add_received_transfers(tx, self.limits.grace, sums, &[(header, &transfer)]).await?;
        }
        let stored = batch.store_deposits_and_settle_invoices(tx, None).await?;
        let changes = effects::apply_effects(tx, now, stored.effects).await?;
        changes.dispatch_to_listener(tx, now, &*self.listener).await?;
        Ok(UnexplainedCredit::Booked)
    }
}
