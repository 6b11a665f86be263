//! Audits the hash chain, the holds and the balance rows of the ledger.

use std::collections::HashMap;

use chain::Amount;

use crate::audit::{Auditor, OpenHold, store};
use crate::ledger::{
    BalanceChange, GENESIS_HASH, PostingKind, Side, StoredPosting, list_hashed_postings_after,
    list_postings_without_hash,
};
use db::{self, Tx};
use ids::{AccountId, PostingSeq};

impl Auditor {
    /// Checks that no number is missing in the hash chain and that every hash is correct. Also checks each posting of
    /// the chain against its accounts, its hold and the object that caused it, and adds it to the computed sums of its
    /// accounts.
    pub(super) async fn audit_hashed_postings_and_sum(
        &mut self,
        tx: &mut Tx,
        accounts: &HashMap<AccountId, store::AuditedAccount>,
    ) -> Result<(), db::Error> {
        let (mut last_no, mut previous) = (0, GENESIS_HASH);
        loop {
            let page = list_hashed_postings_after(tx, last_no, self.page).await?;
            for posting in &page {
                let hash_chain_no = posting.hash_chain_no.unwrap_or_default();
                if hash_chain_no != last_no + 1 {
                    self.report.count_finding_and_add_if_room(format!(
                        "before posting {} ({}): number {} of the hash chain is missing",
                        posting.seq,
                        posting.entry,
                        last_no + 1
                    ));
                }
                let hash = posting.compute_hash_after(&previous, hash_chain_no);
                if posting.hash != Some(hash) {
                    self.report.count_finding_and_add_if_room(format!(
                        "posting {} ({}): its hash does not match its content or the previous hash",
                        posting.seq, posting.entry
                    ));
                }
                // Continue from the stored hash, not from the computed one. Otherwise one changed posting would also
                // give a finding for every later posting.
                previous = posting.hash.unwrap_or(hash);
                last_no = hash_chain_no;
                self.check_posting_and_add_to_sums(posting, accounts);
            }
            self.check_that_objects_are_stored(tx, &page).await?;
            if self.is_last_page(page.len()) {
                return Ok(());
            }
        }
    }

    /// Checks the postings that are not in the hash chain yet, and adds them to the computed sums of their accounts.
    pub(super) async fn check_and_sum_postings_without_hash(
        &mut self,
        tx: &mut Tx,
        accounts: &HashMap<AccountId, store::AuditedAccount>,
    ) -> Result<(), db::Error> {
        let mut last = PostingSeq(0);
        loop {
            let page = list_postings_without_hash(tx, last, self.page).await?;
            for posting in &page {
                self.report.without_hash += 1;
                last = posting.seq;
                self.check_posting_and_add_to_sums(posting, accounts);
            }
            self.check_that_objects_are_stored(tx, &page).await?;
            if self.is_last_page(page.len()) {
                return Ok(());
            }
        }
    }

    /// Adds a posting to the computed sums of its accounts, and updates the open holds. Adds a finding to the report
    /// when the posting does not match its accounts or its hold.
    pub(super) fn check_posting_and_add_to_sums(
        &mut self,
        posting: &StoredPosting,
        accounts: &HashMap<AccountId, store::AuditedAccount>,
    ) {
        self.report.postings += 1;
        let name = || format!("posting {} ({})", posting.seq, posting.entry);
        match (accounts.get(&posting.debit), accounts.get(&posting.credit)) {
            (Some(debit), Some(credit)) if debit.asset == credit.asset && debit.mode == credit.mode => {}
            (Some(_), Some(_)) => {
                self.report.count_finding_and_add_if_room(format!("{}: its accounts differ in asset or mode", name()));
            }
            _ => self.report.count_finding_and_add_if_room(format!("{}: one of its accounts does not exist", name())),
        }
        let change = match posting.kind {
            PostingKind::Posted => BalanceChange::Posted(posting.amount),
            PostingKind::Pending => {
                let hold = OpenHold { debit: posting.debit, credit: posting.credit, amount: posting.amount };
                self.open_holds.insert(posting.seq, hold);
                BalanceChange::Held(posting.amount)
            }
            PostingKind::Post | PostingKind::Void => {
                let hold = posting.hold_seq.and_then(|seq| Some((seq, self.open_holds.remove(&seq)?)));
                let Some((_, hold)) = hold else {
                    return self
                        .report
                        .count_finding_and_add_if_room(format!("{}: the hold that it resolves is not open", name()));
                };
                if (hold.debit, hold.credit) != (posting.debit, posting.credit) || posting.amount > hold.amount {
                    self.report.count_finding_and_add_if_room(format!(
                        "{}: it does not match the hold that it resolves",
                        name()
                    ));
                }
                let posted = (posting.kind == PostingKind::Post).then_some(posting.amount);
                BalanceChange::Resolved { held: hold.amount, posted: posted.unwrap_or(Amount::ZERO) }
            }
        };
        for (id, side) in [(posting.debit, Side::Debit), (posting.credit, Side::Credit)] {
            let balance = self.computed.entry(id).or_default();
            if balance.apply_balance_change(side, change).is_none() {
                self.report.count_finding_and_add_if_room(format!(
                    "{}: a sum of account {id} leaves the range of amounts",
                    name()
                ));
            }
            if accounts.get(&id).is_some_and(|account| posting.hash_chain_no == Some(account.rolled_up_to)) {
                self.computed_rolled_up.insert(id, *balance);
            }
        }
    }

    /// Compares the balance row of every account with its computed sums. Then checks for every asset that the debits of
    /// all accounts equal the credits.
    pub(super) fn audit_balances_and_asset_totals(&mut self, accounts: &HashMap<AccountId, store::AuditedAccount>) {
        let mut sorted: Vec<_> = accounts.values().collect();
        sorted.sort_by_key(|account| account.id);
        for account in sorted {
            let computed = self.computed.get(&account.id).copied().unwrap_or_default();
            let name = format!("account {} ({} of {})", account.id, account.code, account.asset);
            if !account.has_balance_row {
                self.report.count_finding_and_add_if_room(format!("{name}: its balance row is missing"));
            } else if account.non_negative {
                if computed != account.balance {
                    self.report.count_finding_and_add_if_room(format!(
                        "{name}: its balance row is not the sum of its postings"
                    ));
                }
                if computed.is_below_zero() {
                    self.report.count_finding_and_add_if_room(format!("{name}: it is below zero"));
                }
            } else if account.code.starts_with("merchant:") && computed.debits_posted > computed.credits_posted {
                self.report.count_finding_and_add_if_room(format!("{name}: its debits exceed its credits"));
            } else if account.rolled_up_to > 0 && self.computed_rolled_up.get(&account.id) != Some(&account.balance) {
                self.report.count_finding_and_add_if_room(format!(
                    "{name}: its balance row is not the sum of its postings up to number {} of the hash chain",
                    account.rolled_up_to
                ));
            }
        }
        let mut totals: HashMap<&chain::AssetId, (Option<Amount>, Option<Amount>)> = HashMap::new();
        for (id, balance) in &self.computed {
            let Some(account) = accounts.get(id) else { continue };
            let total = totals.entry(&account.asset).or_insert((Some(Amount::ZERO), Some(Amount::ZERO)));
            total.0 = total.0.and_then(|sum| sum.checked_add(balance.debits_posted));
            total.1 = total.1.and_then(|sum| sum.checked_add(balance.credits_posted));
        }
        let mut unequal: Vec<_> = totals.into_iter().filter(|(_, (debits, credits))| debits != credits).collect();
        unequal.sort_by_key(|(asset, _)| (*asset).clone());
        for (asset, _) in unequal {
            self.report.count_finding_and_add_if_room(format!(
                "asset {asset}: the sum of debits differs from the sum of credits"
            ));
        }
    }
}
