//! The virtual machine: an EVM in which one wei stands for one sun. It uses the gas rules of Istanbul, which are closest to
//! TRON's energy: the first use of a storage slot costs 15,000 more than a change.

use alloy_primitives::{Address, Bytes, TxKind, U256};
use revm::{
    Context, DatabaseCommit, ExecuteEvm, InspectEvm, Inspector, MainBuilder, MainContext,
    context::{
        TxEnv,
        result::{ExecutionResult, HaltReason, Output},
    },
    database::{CacheDB, EmptyDB},
    interpreter::{CallInputs, CallOutcome, CreateInputs, CreateOutcome},
    primitives::hardfork::SpecId,
};

/// Accounts and storage of the EVM.
pub type EvmState = CacheDB<EmptyDB>;

/// The gas that an EVM charges before the first instruction. TRON does not charge it.
const INTRINSIC_GAS: u64 = 21_000;
/// The additional gas for the creation of a contract.
const INTRINSIC_CREATE_GAS: u64 = 32_000;

/// A call of a contract, or its creation.
pub struct ContractCall {
    pub from: Address,
    /// `None` creates a contract.
    pub to: Option<Address>,
    pub sun: u64,
    pub data: Vec<u8>,
    /// The maximum energy.
    pub limit: u64,
    /// The penalty of the contract, in thousandths of the energy without it.
    pub factor: u64,
}

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionStatus {
    Success,
    Revert,
    OutOfEnergy,
    Illegal,
}

/// The effects of a call.
pub struct Execution {
    pub status: ExecutionStatus,
    /// The used energy, with the penalty.
    pub energy: u64,
    /// The part of the energy that is the penalty.
    pub penalty: u64,
    pub output: Vec<u8>,
    pub logs: Vec<Log>,
    pub internal_transfers: Vec<InternalCall>,
    pub created: Option<Address>,
}

/// A log of a contract.
#[derive(Clone)]
pub struct Log {
    pub address: Address,
    pub topics: Vec<[u8; 32]>,
    pub data: Vec<u8>,
}

/// A call inside a transaction.
#[derive(Clone)]
pub struct InternalCall {
    pub from: Address,
    pub to: Address,
    pub sun: u64,
    /// `call`, `create` or `suicide`.
    pub note: &'static str,
    /// True when the call, or one around it, was reverted.
    pub rejected: bool,
}

/// Records the calls inside a transaction, without the outermost one.
#[derive(Default)]
struct InternalCallRecorder {
    internal_transfers: Vec<InternalCall>,
    /// For each call that has not returned, the index of the first call that it made.
    open: Vec<usize>,
}

impl InternalCallRecorder {
    fn push_call(&mut self, from: Address, to: Address, value: U256, note: &'static str) {
        self.open.push(self.internal_transfers.len());
        if self.open.len() > 1 {
            self.internal_transfers.push(InternalCall { from, to, sun: to_sun(value), note, rejected: false });
        }
    }

    fn pop_call(&mut self, succeeded: bool) {
        let first = self.open.pop().unwrap_or(0);
        if !succeeded {
            self.internal_transfers[first..].iter_mut().for_each(|internal| internal.rejected = true);
        }
    }
}

impl<CTX> Inspector<CTX> for InternalCallRecorder {
    fn call(&mut self, _: &mut CTX, inputs: &mut CallInputs) -> Option<CallOutcome> {
        let value = inputs.value.transfer().unwrap_or(U256::ZERO);
        self.push_call(inputs.caller, inputs.target_address, value, "call");
        None
    }

    fn call_end(&mut self, _: &mut CTX, _: &CallInputs, outcome: &mut CallOutcome) {
        self.pop_call(outcome.result.is_ok());
    }

    fn create(&mut self, _: &mut CTX, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.push_call(inputs.caller(), Address::ZERO, inputs.value(), "create");
        None
    }

    fn create_end(&mut self, _: &mut CTX, _: &CreateInputs, outcome: &mut CreateOutcome) {
        if let (Some(begin), Some(address)) = (self.open.last(), outcome.address)
            && let Some(internal) = self.internal_transfers.get_mut(*begin)
        {
            internal.to = address;
        }
        self.pop_call(outcome.result.is_ok());
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        self.internal_transfers.push(InternalCall {
            from: contract,
            to: target,
            sun: to_sun(value),
            note: "suicide",
            rejected: false,
        });
    }
}

/// Returns a value of the EVM in sun, at most `u64::MAX`.
pub fn to_sun(value: U256) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Runs a call. Changes are kept only if the call succeeds and `commit` is true.
pub fn run_call(state: &mut EvmState, call: ContractCall, time_ms: i64, height: u64, commit: bool) -> Execution {
    let intrinsic = INTRINSIC_GAS
        + if call.to.is_none() { INTRINSIC_CREATE_GAS } else { 0 }
        + call.data.iter().map(|byte| if *byte == 0 { 4 } else { 16 }).sum::<u64>();
    let plain_limit = call.limit.saturating_mul(1_000) / (1_000 + call.factor);
    let context = Context::mainnet()
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(SpecId::ISTANBUL);
            cfg.disable_nonce_check = true;
        })
        .modify_block_chained(|block| {
            block.gas_limit = u64::MAX;
            block.number = U256::from(height);
            block.timestamp = U256::from(u64::try_from(time_ms / 1_000).unwrap_or(0));
        })
        .with_db(&mut *state);
    let mut vm = context.build_mainnet_with_inspector(InternalCallRecorder::default());
    let transaction = TxEnv::builder()
        .caller(call.from)
        .kind(call.to.map_or(TxKind::Create, TxKind::Call))
        .value(U256::from(call.sun))
        .data(Bytes::from(call.data))
        .gas_limit(plain_limit.saturating_add(intrinsic))
        .build()
        .expect("the builder has all fields of a legacy transaction");
    let result = vm.inspect_one_tx(transaction).expect("the transaction was validated before");
    let internal_transfers = std::mem::take(&mut vm.inspector.internal_transfers);
    let changed = vm.finalize();
    drop(vm);
    let plain = result.gas().total_gas_spent().saturating_sub(intrinsic);
    let energy = plain.saturating_mul(1_000 + call.factor) / 1_000;
    let logs = list_logs(&result);
    let created = result.created_address();
    let (status, output, energy) = match result {
        ExecutionResult::Success { output: Output::Call(output) | Output::Create(output, _), .. } => {
            (ExecutionStatus::Success, output.to_vec(), energy)
        }
        ExecutionResult::Revert { output, .. } => (ExecutionStatus::Revert, output.to_vec(), energy),
        ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => {
            (ExecutionStatus::OutOfEnergy, Vec::new(), call.limit)
        }
        ExecutionResult::Halt { .. } => (ExecutionStatus::Illegal, Vec::new(), call.limit),
    };
    if status == ExecutionStatus::Success && commit {
        state.commit(changed);
    }
    Execution { status, energy, penalty: energy.saturating_sub(plain), output, logs, internal_transfers, created }
}

fn list_logs(result: &ExecutionResult) -> Vec<Log> {
    if !result.is_success() {
        return Vec::new();
    }
    let log = |log: &alloy_primitives::Log| Log {
        address: log.address,
        topics: log.data.topics().iter().map(|topic| topic.0).collect(),
        data: log.data.data.to_vec(),
    };
    result.logs().iter().map(log).collect()
}
