//! Accounts, what they may use for nothing, and what they burn.

use std::collections::BTreeMap;

use alloy_primitives::{Address, U256};
use revm::state::AccountInfo;

use crate::vm::{State, sun};

/// Bandwidth and energy come back over a day.
const DAY_MS: i64 = 86_400_000;

/// Parameters of the chain, in sun.
#[derive(Debug, Clone)]
pub struct Prices {
    pub energy: u64,
    pub bandwidth: u64,
    pub free_bandwidth: u64,
    pub new_account: u64,
    pub new_account_bandwidth: u64,
    pub memo: u64,
    pub fee_limit_max: u64,
}

impl Default for Prices {
    fn default() -> Prices {
        Prices {
            energy: 100,
            bandwidth: 1_000,
            free_bandwidth: 600,
            new_account: 1_000_000,
            new_account_bandwidth: 100_000,
            memo: 1_000_000,
            fee_limit_max: 15_000_000_000,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Account {
    pub created_ms: i64,
    pub free_bandwidth: Used,
    pub energy: Used,
    /// By stake, own or lent.
    pub energy_limit: u64,
}

/// What was used lately.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    amount: u64,
    at_ms: i64,
}

impl Used {
    /// What of it has not come back.
    pub fn now(self, now_ms: i64) -> u64 {
        let left = u64::try_from((DAY_MS - (now_ms - self.at_ms)).clamp(0, DAY_MS)).unwrap_or(0);
        u64::try_from(u128::from(self.amount) * u128::from(left) / 86_400_000).unwrap_or(0)
    }

    fn add(&mut self, amount: u64, now_ms: i64) {
        *self = Used { amount: self.now(now_ms) + amount, at_ms: now_ms };
    }
}

/// Everything that a block changes.
#[derive(Clone, Default)]
pub struct Ledger {
    pub vm: State,
    pub accounts: BTreeMap<Address, Account>,
}

impl Ledger {
    pub fn balance(&self, of: Address) -> u64 {
        self.vm.cache.accounts.get(&of).map_or(0, |account| sun(account.info.balance))
    }

    pub fn set_balance(&mut self, of: Address, amount: u64) {
        let info = self.vm.cache.accounts.get(&of).and_then(|account| account.info());
        let info = AccountInfo { balance: U256::from(amount), ..info.unwrap_or_default() };
        self.vm.insert_account_info(of, info);
    }

    pub fn is_contract(&self, of: Address) -> bool {
        self.vm.cache.accounts.get(&of).is_some_and(|account| !account.info.is_empty_code_hash())
    }

    pub fn activate(&mut self, of: Address, now_ms: i64) {
        self.accounts.entry(of).or_insert_with(|| Account { created_ms: now_ms, ..Account::default() });
    }

    pub fn burn(&mut self, of: Address, amount: u64) -> bool {
        let left = self.balance(of).checked_sub(amount);
        if let Some(left) = left {
            self.set_balance(of, left);
        }
        left.is_some()
    }

    /// Takes bandwidth from the free allowance or burns for all of it: `(used, burned)`, or nothing if neither suffices.
    pub fn take_bandwidth(&mut self, of: Address, bytes: u64, prices: &Prices, now_ms: i64) -> Option<(u64, u64)> {
        let account = self.accounts.get_mut(&of)?;
        if account.free_bandwidth.now(now_ms) + bytes <= prices.free_bandwidth {
            account.free_bandwidth.add(bytes, now_ms);
            return Some((bytes, 0));
        }
        let fee = bytes.checked_mul(prices.bandwidth)?;
        self.burn(of, fee).then_some((0, fee))
    }

    pub fn energy_left(&self, of: Address, now_ms: i64) -> u64 {
        let left = |account: &Account| account.energy_limit.saturating_sub(account.energy.now(now_ms));
        self.accounts.get(&of).map_or(0, left)
    }

    /// Takes energy from the stake and burns for the rest: `(used, burned)`.
    pub fn take_energy(&mut self, of: Address, energy: u64, prices: &Prices, now_ms: i64) -> (u64, u64) {
        let used = self.energy_left(of, now_ms).min(energy);
        if let Some(account) = self.accounts.get_mut(&of) {
            account.energy.add(used, now_ms);
        }
        let fee = (energy - used).saturating_mul(prices.energy).min(self.balance(of));
        self.burn(of, fee);
        (used, fee)
    }
}
