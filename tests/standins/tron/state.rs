//! Accounts, what they may use for nothing, and what they burn.

use std::collections::BTreeMap;

use alloy_primitives::{Address, U256};
use revm::state::AccountInfo;

use crate::vm::{EvmState, sun};

/// Bandwidth and energy come back over a day.
const DAY_MS: i64 = 86_400_000;

/// The resource as contracts number it.
const ENERGY: i32 = 1;
/// Sun that can be lent at least.
const LENT_MIN: u64 = 1_000_000;
/// Energy of the whole chain and day, and the TRX that are staked for it.
pub const TOTAL_ENERGY: u64 = 180_000_000_000;
pub const TOTAL_STAKED: u64 = 19_000_000_000;

/// What staked sun give in a day.
pub fn energy_of(sun: u64) -> u64 {
    let energy = u128::from(sun) * u128::from(TOTAL_ENERGY) / u128::from(TOTAL_STAKED) / 1_000_000;
    u64::try_from(energy).unwrap_or(u64::MAX)
}

/// Parameters of the chain, in sun.
#[derive(Debug, Clone)]
pub struct FeeSchedule {
    pub energy: u64,
    pub bandwidth: u64,
    pub free_bandwidth: u64,
    pub new_account: u64,
    pub new_account_bandwidth: u64,
    pub memo: u64,
    pub fee_limit_max: u64,
}

impl Default for FeeSchedule {
    fn default() -> FeeSchedule {
        FeeSchedule {
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
pub struct AccountRecord {
    pub created_ms: i64,
    pub free_bandwidth: DecayingUsage,
    pub energy: DecayingUsage,
    /// By stake, own or lent.
    pub energy_limit: u64,
}

/// What was used lately.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecayingUsage {
    amount: u64,
    at_ms: i64,
}

impl DecayingUsage {
    /// What of it has not come back.
    pub fn now(self, now_ms: i64) -> u64 {
        let left = u64::try_from((DAY_MS - (now_ms - self.at_ms)).clamp(0, DAY_MS)).unwrap_or(0);
        u64::try_from(u128::from(self.amount) * u128::from(left) / 86_400_000).unwrap_or(0)
    }

    fn add(&mut self, amount: u64, now_ms: i64) {
        *self = DecayingUsage { amount: self.now(now_ms) + amount, at_ms: now_ms };
    }
}

/// Everything that a block changes.
#[derive(Clone, Default)]
pub struct ChainState {
    pub vm: EvmState,
    pub accounts: BTreeMap<Address, AccountRecord>,
    /// Staked sun whose energy somebody else uses, by lender and borrower.
    lent: BTreeMap<(Address, Address), u64>,
}

impl ChainState {
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
        self.accounts.entry(of).or_insert_with(|| AccountRecord { created_ms: now_ms, ..AccountRecord::default() });
    }

    pub fn burn(&mut self, of: Address, amount: u64) -> bool {
        let left = self.balance(of).checked_sub(amount);
        if let Some(left) = left {
            self.set_balance(of, left);
        }
        left.is_some()
    }

    /// Takes bandwidth from the free allowance or burns for all of it: `(used, burned)`, or nothing if neither suffices.
    pub fn take_bandwidth(&mut self, of: Address, bytes: u64, prices: &FeeSchedule, now_ms: i64) -> Option<(u64, u64)> {
        let account = self.accounts.get_mut(&of)?;
        if account.free_bandwidth.now(now_ms) + bytes <= prices.free_bandwidth {
            account.free_bandwidth.add(bytes, now_ms);
            return Some((bytes, 0));
        }
        let fee = bytes.checked_mul(prices.bandwidth)?;
        self.burn(of, fee).then_some((0, fee))
    }

    /// Lends the energy of staked sun; borrowers must exist and are no contracts.
    pub fn lend(&mut self, owner: Address, to: Address, resource: i32, sun: i64) -> Result<(), &'static str> {
        let sun = u64::try_from(sun).ok().filter(|sun| *sun >= LENT_MIN && resource == ENERGY);
        let sun = sun.ok_or("delegateBalance must be greater than or equal to 1 TRX")?;
        if to == owner {
            return Err("receiverAddress must not be the same as ownerAddress");
        }
        if !self.accounts.contains_key(&to) || self.is_contract(to) {
            return Err("receiverAddress is no account that can receive resources");
        }
        self.move_energy(owner, to, energy_of(sun))
            .ok_or("delegateBalance must be less than or equal to available FreezeEnergyV2 balance")?;
        *self.lent.entry((owner, to)).or_default() += sun;
        Ok(())
    }

    pub fn take_back(&mut self, owner: Address, from: Address, resource: i32, sun: i64) -> Result<(), &'static str> {
        let lent = self.lent.get(&(owner, from)).copied().unwrap_or(0);
        let sun = u64::try_from(sun).ok().filter(|sun| *sun > 0 && *sun <= lent && resource == ENERGY);
        let sun = sun.ok_or("insufficient delegatedFrozenBalance(Energy)")?;
        self.move_energy(from, owner, energy_of(sun)).ok_or("insufficient delegatedFrozenBalance(Energy)")?;
        self.lent.insert((owner, from), lent - sun);
        Ok(())
    }

    fn move_energy(&mut self, from: Address, to: Address, energy: u64) -> Option<()> {
        let giver = self.accounts.get_mut(&from)?;
        giver.energy_limit = giver.energy_limit.checked_sub(energy)?;
        self.accounts.get_mut(&to)?.energy_limit += energy;
        Some(())
    }

    pub fn energy_left(&self, of: Address, now_ms: i64) -> u64 {
        let left = |account: &AccountRecord| account.energy_limit.saturating_sub(account.energy.now(now_ms));
        self.accounts.get(&of).map_or(0, left)
    }

    /// Takes energy from the stake and burns for the rest: `(used, burned)`.
    pub fn take_energy(&mut self, of: Address, energy: u64, prices: &FeeSchedule, now_ms: i64) -> (u64, u64) {
        let used = self.energy_left(of, now_ms).min(energy);
        if let Some(account) = self.accounts.get_mut(&of) {
            account.energy.add(used, now_ms);
        }
        let fee = (energy - used).saturating_mul(prices.energy).min(self.balance(of));
        self.burn(of, fee);
        (used, fee)
    }
}
