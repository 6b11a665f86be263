//! The state of the chain: accounts, their balances, and the bandwidth and energy that they use or pay for.

use std::collections::BTreeMap;

use alloy_primitives::{Address, U256};
use revm::state::AccountInfo;

use crate::vm::{EvmState, to_sun};

/// The time in which used bandwidth and energy recover.
const DAY_MS: i64 = 86_400_000;

/// The number of the resource energy in contracts.
const ENERGY: i32 = 1;
/// The minimum stake whose energy can be lent, in sun.
const LENT_SUN_MIN: u64 = 1_000_000;
/// The energy that all stakes give together in a day.
pub const TOTAL_ENERGY: u64 = 180_000_000_000;
/// The TRX that all accounts have staked for energy.
pub const TOTAL_STAKED: u64 = 19_000_000_000;

/// Returns the energy that a stake in sun gives in a day.
pub fn energy_for_stake(sun: u64) -> u64 {
    let energy = u128::from(sun) * u128::from(TOTAL_ENERGY) / u128::from(TOTAL_STAKED) / 1_000_000;
    u64::try_from(energy).unwrap_or(u64::MAX)
}

/// The prices of the chain, in sun, and its limits.
#[derive(Debug, Clone)]
pub struct FeeSchedule {
    pub energy: u64,
    pub bandwidth: u64,
    /// The free bandwidth of an account per day, in bytes.
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

/// An activated account; its balance is in the state of the virtual machine.
#[derive(Debug, Clone, Default)]
pub struct AccountRecord {
    pub created_ms: i64,
    pub free_bandwidth: DecayingUsage,
    pub energy: DecayingUsage,
    /// The energy per day from its own stake and from stakes of others.
    pub energy_limit: u64,
}

/// A used amount of a resource, which decreases to zero over a day.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecayingUsage {
    amount: u64,
    at_ms: i64,
}

impl DecayingUsage {
    /// Returns the part of the amount that has not recovered at `now_ms`.
    pub fn at(self, now_ms: i64) -> u64 {
        let left = u64::try_from((DAY_MS - (now_ms - self.at_ms)).clamp(0, DAY_MS)).unwrap_or(0);
        u64::try_from(u128::from(self.amount) * u128::from(left) / 86_400_000).unwrap_or(0)
    }

    fn add(&mut self, amount: u64, now_ms: i64) {
        *self = DecayingUsage { amount: self.at(now_ms) + amount, at_ms: now_ms };
    }
}

/// The state after a block.
#[derive(Clone, Default)]
pub struct ChainState {
    pub vm: EvmState,
    pub accounts: BTreeMap<Address, AccountRecord>,
    /// Stakes whose energy is lent, in sun, by lender and borrower.
    lent: BTreeMap<(Address, Address), u64>,
}

impl ChainState {
    /// Returns the balance of an account, in sun.
    pub fn balance(&self, address: Address) -> u64 {
        self.vm.cache.accounts.get(&address).map_or(0, |account| to_sun(account.info.balance))
    }

    /// Sets the balance of an account, in sun.
    pub fn set_balance(&mut self, address: Address, amount: u64) {
        let info = self.vm.cache.accounts.get(&address).and_then(|account| account.info());
        let info = AccountInfo { balance: U256::from(amount), ..info.unwrap_or_default() };
        self.vm.insert_account_info(address, info);
    }

    /// Returns true when the account has code.
    pub fn is_contract(&self, address: Address) -> bool {
        self.vm.cache.accounts.get(&address).is_some_and(|account| !account.info.is_empty_code_hash())
    }

    /// Creates the account if it does not exist.
    pub fn activate_account(&mut self, address: Address, now_ms: i64) {
        self.accounts
            .entry(address)
            .or_insert_with(|| AccountRecord { created_ms: now_ms, ..AccountRecord::default() });
    }

    /// Subtracts an amount in sun from an account. Returns false and subtracts nothing when the balance is too small.
    pub fn burn_balance(&mut self, address: Address, amount: u64) -> bool {
        let left = self.balance(address).checked_sub(amount);
        if let Some(left) = left {
            self.set_balance(address, left);
        }
        left.is_some()
    }

    /// Charges bandwidth: uses the free bandwidth, or burns TRX for all bytes. Returns the used bytes and the burned sun, or
    /// `None` when the account has neither enough bandwidth nor enough TRX.
    pub fn charge_bandwidth(
        &mut self,
        address: Address,
        bytes: u64,
        prices: &FeeSchedule,
        now_ms: i64,
    ) -> Option<(u64, u64)> {
        let account = self.accounts.get_mut(&address)?;
        if account.free_bandwidth.at(now_ms) + bytes <= prices.free_bandwidth {
            account.free_bandwidth.add(bytes, now_ms);
            return Some((bytes, 0));
        }
        let fee = bytes.checked_mul(prices.bandwidth)?;
        self.burn_balance(address, fee).then_some((0, fee))
    }

    /// Lends the energy of staked TRX to another account, which must exist and must not be a contract.
    ///
    /// # Errors
    ///
    /// Fails with the message of java-tron.
    pub fn lend(&mut self, owner: Address, to: Address, resource: i32, sun: i64) -> Result<(), &'static str> {
        let sun = u64::try_from(sun).ok().filter(|sun| *sun >= LENT_SUN_MIN && resource == ENERGY);
        let sun = sun.ok_or("delegateBalance must be greater than or equal to 1 TRX")?;
        if to == owner {
            return Err("receiverAddress must not be the same as ownerAddress");
        }
        if !self.accounts.contains_key(&to) || self.is_contract(to) {
            return Err("receiverAddress is no account that can receive resources");
        }
        self.move_energy(owner, to, energy_for_stake(sun))
            .ok_or("delegateBalance must be less than or equal to available FreezeEnergyV2 balance")?;
        *self.lent.entry((owner, to)).or_default() += sun;
        Ok(())
    }

    /// Takes lent energy back.
    ///
    /// # Errors
    ///
    /// Fails with the message of java-tron.
    pub fn take_back_energy(
        &mut self,
        owner: Address,
        from: Address,
        resource: i32,
        sun: i64,
    ) -> Result<(), &'static str> {
        let lent = self.lent.get(&(owner, from)).copied().unwrap_or(0);
        let sun = u64::try_from(sun).ok().filter(|sun| *sun > 0 && *sun <= lent && resource == ENERGY);
        let sun = sun.ok_or("insufficient delegatedFrozenBalance(Energy)")?;
        self.move_energy(from, owner, energy_for_stake(sun)).ok_or("insufficient delegatedFrozenBalance(Energy)")?;
        self.lent.insert((owner, from), lent - sun);
        Ok(())
    }

    fn move_energy(&mut self, from: Address, to: Address, energy: u64) -> Option<()> {
        let lender = self.accounts.get_mut(&from)?;
        lender.energy_limit = lender.energy_limit.checked_sub(energy)?;
        self.accounts.get_mut(&to)?.energy_limit += energy;
        Some(())
    }

    /// Returns the unused energy of an account.
    pub fn unused_energy(&self, address: Address, now_ms: i64) -> u64 {
        let left = |account: &AccountRecord| account.energy_limit.saturating_sub(account.energy.at(now_ms));
        self.accounts.get(&address).map_or(0, left)
    }

    /// Charges energy: uses the energy of the stake and burns TRX for the rest. Returns the used energy and the burned sun.
    pub fn charge_energy(&mut self, address: Address, energy: u64, prices: &FeeSchedule, now_ms: i64) -> (u64, u64) {
        let used = self.unused_energy(address, now_ms).min(energy);
        if let Some(account) = self.accounts.get_mut(&address) {
            account.energy.add(used, now_ms);
        }
        let fee = (energy - used).saturating_mul(prices.energy).min(self.balance(address));
        self.burn_balance(address, fee);
        (used, fee)
    }
}
