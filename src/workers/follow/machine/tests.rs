//! Runs the follower's state machine with lists of observations and compares the actions that it returns.

use chain::source::{Corroboration, CrossCheckResult};
use chain::{
    AddressKey, Amount, AssetId, Block, BlockHash, BlockRef, ChainId, Family, Header, Height, SourceError, Tip,
    Transfer, TransferIndex, TxId, TxPart,
};

use crate::workers::Ran;
use crate::workers::follow::machine::actions::{Action, Observation};
use crate::workers::follow::machine::notices::Notice;
use crate::workers::follow::machine::{FollowLimits, Machine, StepError};
use clock::Instant;
use ids::{DepositId, InvoiceId, Mode};
use money::assets::{Depths, Dust, FollowedChain};
use money::cursors::{Cursor, Position};
use money::deposits::{BlockToCorroborate, DepositLimits, Grace};

const NOW: Instant = Instant(1_000_000_000);
/// The height of the stored cursor. A deposit has 2 blocks when it is confirmed and 5 blocks when it is final.
const CURSOR: Height = 100;

fn default_limits() -> FollowLimits {
    FollowLimits {
        batch: 10,
        tip_age_max_ms: 120_000,
        quiet_tip_max_ms: None,
        start_height: None,
        cursor_flush_ms: 10_000,
        balance_patience_ms: 300_000,
    }
}

fn followed_chain(family: Family) -> FollowedChain {
    FollowedChain {
        id: ChainId::parse("model").unwrap(),
        family,
        mode: Mode::Test,
        depths: Depths::depths_without_tiers(2, 5),
        watched: std::sync::Arc::default(),
        siblings: Vec::new(),
        dust: Dust::default(),
    }
}

fn new_machine_with(family: Family, limits: FollowLimits) -> Machine {
    let recent = (CURSOR - 20..=CURSOR).map(|height| block_ref(0, height)).collect();
    let cursor = Cursor { recent, final_height: CURSOR - 4, time: block_time(CURSOR), halted: None };
    let deposit_limits = DepositLimits { grace: Grace { ms: 60_000 }, keep: 100 };
    Machine::new(followed_chain(family), limits, deposit_limits, cursor, NOW).unwrap()
}

fn new_machine() -> Machine {
    new_machine_with(Family::Evm, default_limits())
}

/// Returns the Unix time of a block in seconds: block 200 has the time `NOW`, and each block is 1 s younger than its parent.
fn block_time(height: Height) -> i64 {
    NOW.unix_seconds() - 200 + i64::try_from(height).unwrap()
}

/// Returns block `height` of a branch. Two branches have no common block.
fn block_ref(branch: u8, height: Height) -> BlockRef {
    let mut hash = [branch; 32];
    hash[..8].copy_from_slice(&height.to_be_bytes());
    BlockRef { height, hash: BlockHash(hash) }
}

fn header_on(branch: u8, height: Height, parent: BlockRef) -> Header {
    let BlockRef { height, hash } = block_ref(branch, height);
    Header { height, hash, parent: parent.hash, time: block_time(height) }
}

fn header(branch: u8, height: Height) -> Header {
    header_on(branch, height, block_ref(branch, height - 1))
}

fn block(height: Height) -> Block {
    Block { header: header(0, height), transfers: Vec::new(), spends: Vec::new() }
}

fn paid_block(height: Height) -> Block {
    let transfer = Transfer {
        txid: TxId([1; 32]),
        index: TransferIndex { tx_index: 0, part: TxPart::Value },
        asset: AssetId::from_stored("model/native"),
        to: AddressKey([2; 20]),
        from: None,
        amount: Amount::from(5),
    };
    Block { transfers: vec![transfer], ..block(height) }
}

fn tip_at(height: Height) -> Observation {
    Observation::Tip(Tip { head: header(0, height), finalized: None })
}

fn blocks_stored(final_height: Height, unfinished: bool) -> Observation {
    Observation::Stored { final_height, unfinished }
}

/// Passes these observations to the machine at the time `now`, and returns all actions after `ReadTip`.
fn run_and_list_actions(
    machine: &mut Machine,
    now: Instant,
    cross_checkable: bool,
    observations: impl IntoIterator<Item = Observation>,
) -> Vec<Action> {
    assert_eq!(machine.start_run(cross_checkable, false), Action::ReadTip);
    observations.into_iter().map(|observation| machine.decide_next_action(now, observation).unwrap()).collect()
}

/// Passes these observations to the machine, and returns its result for the last one.
fn run_and_return_last(
    machine: &mut Machine,
    cross_checkable: bool,
    observations: impl IntoIterator<Item = Observation>,
) -> Result<Action, StepError> {
    let mut last = Ok(machine.start_run(cross_checkable, false));
    for observation in observations {
        last.clone().unwrap();
        last = machine.decide_next_action(NOW, observation);
    }
    last
}

/// Brings the machine to block 101 with only final deposits, so that later runs store only what they must.
fn finish_all_deposits(machine: &mut Machine) {
    let observations = [tip_at(CURSOR), Observation::Done, blocks_stored(CURSOR - 4, false)];
    let block = tip_at(CURSOR + 1);
    let observations = if machine.start_run(false, false) == Action::ReadTip {
        let [_, done, stored] = observations;
        [block, Observation::Blocks(vec![paid_block(CURSOR + 1)]), done, stored, Observation::Expirable(Vec::new())]
    } else {
        panic!("a run starts with the tip")
    };
    let mut last = Action::ReadTip;
    for observation in observations {
        last = machine.decide_next_action(NOW, observation).unwrap();
    }
    assert_eq!(last, Action::Finish(Ran::Worked));
}

#[test]
fn new_blocks_are_stored_with_the_position_that_their_depth_gives() {
    let mut machine = new_machine();
    let blocks = vec![block(101), paid_block(102)];
    let observations = [
        tip_at(102),
        Observation::Blocks(blocks.clone()),
        Observation::Done,
        blocks_stored(98, true),
        Observation::Expirable(Vec::new()),
    ];
    let actions = run_and_list_actions(&mut machine, NOW, false, observations);
    let advance_to = Some(Position { cursor: 102, last: 98 });
    let passed = Instant::from_unix_seconds(block_time(102)).plus_ms(-60_000);
    assert_eq!(
        actions,
        [
            Action::ReadBlocks { from: 101, to: 102 },
            Action::CloseDispute,
            Action::StoreBlocks { from: block_ref(0, 100), blocks, advance_to },
            Action::ListExpirable { passed },
            Action::Finish(Ran::Worked),
        ]
    );
    assert!(!machine.has_unstored_blocks());
}

#[test]
fn blocks_without_transfers_are_stored_when_the_cursor_is_old() {
    let mut machine = new_machine();
    finish_all_deposits(&mut machine);
    let read = |height: Height| [tip_at(height), Observation::Blocks(vec![block(height)])];
    let actions = run_and_list_actions(&mut machine, NOW.plus_ms(4_000), false, read(102));
    assert_eq!(actions, [Action::ReadBlocks { from: 102, to: 102 }, Action::Finish(Ran::Worked)]);
    assert!(machine.has_unstored_blocks());
    let actions = run_and_list_actions(&mut machine, NOW.plus_ms(10_000), false, read(103));
    let advance_to = Some(Position { cursor: 103, last: 99 });
    let blocks = vec![block(102), block(103)];
    assert_eq!(actions[1], Action::StoreBlocks { from: block_ref(0, 101), blocks, advance_to });
}

#[test]
fn a_paid_block_is_stored_at_once() {
    let mut machine = new_machine();
    finish_all_deposits(&mut machine);
    let observations = [tip_at(102), Observation::Blocks(vec![paid_block(102)])];
    let actions = run_and_list_actions(&mut machine, NOW, false, observations);
    assert!(matches!(&actions[1], Action::StoreBlocks { blocks, .. } if *blocks == [paid_block(102)]), "{actions:?}");
}

#[test]
fn invoices_expire_at_a_quiet_tip_after_two_reads_of_it() {
    let rare = FollowLimits { quiet_tip_max_ms: Some(1_200_000), ..default_limits() };
    let by_block = Instant::from_unix_seconds(block_time(101)).plus_ms(-60_000);
    for (limits, second, third) in [
        (default_limits(), by_block, by_block),
        (rare, NOW.plus_ms(20_000).plus_ms(-60_000), NOW.plus_ms(40_000).plus_ms(-60_000)),
    ] {
        let mut machine = new_machine_with(Family::Evm, limits);
        finish_all_deposits(&mut machine);
        let mut passed_at = |after_ms: i64| {
            let observations = [tip_at(101), Observation::Expirable(Vec::new())];
            let actions = run_and_list_actions(&mut machine, NOW.plus_ms(after_ms), false, observations);
            assert_eq!(actions[1], Action::Finish(Ran::Idle));
            actions[0].clone()
        };
        assert_eq!(passed_at(20_000), Action::ListExpirable { passed: by_block }, "one read proves nothing");
        assert_eq!(passed_at(40_000), Action::ListExpirable { passed: second });
        assert_eq!(passed_at(60_000), Action::ListExpirable { passed: third });
    }
}

#[test]
fn an_old_tip_is_reported_and_proves_nothing() {
    let mut machine =
        new_machine_with(Family::Evm, FollowLimits { quiet_tip_max_ms: Some(150_000), ..default_limits() });
    finish_all_deposits(&mut machine);
    machine.take_notices();
    let by_block = Instant::from_unix_seconds(block_time(101)).plus_ms(-60_000);
    // The tip is read four times per second, but an old tip is reported once in ten minutes.
    for (after_ms, is_reported) in
        [(100_000, true), (100_250, false), (699_999, false), (700_000, true), (700_250, false), (1_300_000, true)]
    {
        let observations = [tip_at(101), Observation::Expirable(Vec::new())];
        let actions = run_and_list_actions(&mut machine, NOW.plus_ms(after_ms), false, observations);
        assert_eq!(actions[0], Action::ListExpirable { passed: by_block });
        let expected = is_reported.then_some(Notice::OldTip { age_ms: 99_000 + after_ms });
        assert_eq!(machine.take_notices(), Vec::from_iter(expected), "{after_ms}");
    }
}

#[test]
fn a_fork_is_searched_block_by_block_and_stored_blocks_are_reversed() {
    let mut machine = new_machine();
    let forking = Block { header: header(1, 101), ..block(101) };
    let observations = [
        tip_at(101),
        Observation::Blocks(vec![forking]),
        Observation::Header(Some(header(1, 100))),
        Observation::Header(Some(header_on(1, 99, block_ref(0, 98)))),
        Observation::Done,
    ];
    let actions = run_and_list_actions(&mut machine, NOW, false, observations);
    assert_eq!(
        actions[1..],
        [
            Action::ReadHeader(100),
            Action::ReadHeader(99),
            Action::Rewind { from: block_ref(0, 100), to: block_ref(0, 98) },
            Action::Finish(Ran::Worked),
        ]
    );
    assert_eq!(machine.take_notices(), [Notice::Reorganised { depth: 2, to: 98 }]);
    assert_eq!(
        run_and_list_actions(&mut machine, NOW, false, [tip_at(101)]),
        [Action::ReadBlocks { from: 99, to: 101 }]
    );
}

#[test]
fn a_fork_above_the_stored_cursor_changes_nothing_in_the_database() {
    let mut machine = new_machine();
    finish_all_deposits(&mut machine);
    run_and_list_actions(&mut machine, NOW, false, [tip_at(102), Observation::Blocks(vec![block(102)])]);
    let forking = Block { header: header(1, 103), ..block(103) };
    let parent = header_on(1, 102, block_ref(0, 101));
    let observations = [tip_at(103), Observation::Blocks(vec![forking]), Observation::Header(Some(parent))];
    let actions = run_and_list_actions(&mut machine, NOW, false, observations);
    assert_eq!(actions.last(), Some(&Action::Finish(Ran::Worked)));
    assert!(!machine.has_unstored_blocks());
}

#[test]
fn a_branch_with_a_gap_between_its_blocks_is_rejected() {
    let forking = || Observation::Blocks(vec![Block { header: header(1, 101), ..block(101) }]);
    let cases = [(Some(header(2, 100)), None), (None, Some(StepError::Source(SourceError::BlockNotFound(100))))];
    for (parent, expected) in cases {
        let outcome =
            run_and_return_last(&mut new_machine(), false, [tip_at(101), forking(), Observation::Header(parent)]);
        match expected {
            Some(expected) => assert_eq!(outcome, Err(expected)),
            None => assert!(matches!(outcome, Err(StepError::Source(SourceError::InvalidResponse(_))))),
        }
    }
}

#[test]
fn responses_with_wrong_heights_or_gaps_are_rejected() {
    let answer = |heights: &[Height]| Observation::Blocks(heights.iter().map(|height| block(*height)).collect());
    let outcome = run_and_return_last(&mut new_machine(), false, [tip_at(103), answer(&[102])]);
    assert_eq!(outcome, Err(StepError::WrongHeight { requested: 101, returned: 102 }));
    let outcome = run_and_return_last(&mut new_machine(), false, [tip_at(103), answer(&[101, 103])]);
    assert_eq!(outcome, Err(StepError::BrokenSequence(103)));
    assert_eq!(
        run_and_return_last(&mut new_machine(), false, [tip_at(103), answer(&[])]),
        Ok(Action::Finish(Ran::Idle))
    );
    let outcome = run_and_return_last(&mut new_machine(), false, [Observation::Done]);
    assert!(matches!(outcome, Err(StepError::UnexpectedObservation(_))));
}

#[test]
fn confirmed_deposits_are_reversed_only_when_a_second_endpoint_has_the_other_branch() {
    let forking = Block { header: header_on(1, 101, block_ref(0, 99)), ..block(101) };
    let forking = Block { header: Header { height: 101, ..forking.header }, ..forking };
    let parent = header_on(1, 100, block_ref(0, 99));
    let forking = Block { header: Header { parent: parent.hash, ..forking.header }, ..forking };
    let theirs = parent.block_ref();
    let rewind = Action::Rewind { from: block_ref(0, 100), to: block_ref(0, 99) };
    let conflicting = CrossCheckResult::Conflicting { endpoint: "b".into(), hash: BlockHash([9; 32]) };
    let behind = CrossCheckResult::Behind { endpoint: "b".into(), head: header(0, 99) };
    let cases = [
        (None, rewind.clone()),
        (Some(CrossCheckResult::NoAnswer("timeout".into())), rewind.clone()),
        (Some(behind), Action::Finish(Ran::Idle)),
    ];
    let observations = |result: Option<CrossCheckResult>| {
        let mut observations = vec![
            tip_at(101),
            Observation::Blocks(vec![forking.clone()]),
            Observation::Header(Some(parent)),
            Observation::ConfirmedAbove(result.is_some()),
        ];
        observations.extend(result.map(Observation::CrossChecked));
        observations
    };
    for (result, expected) in cases {
        assert_eq!(run_and_return_last(&mut new_machine(), true, observations(result)), Ok(expected));
    }
    let mut asked = new_machine();
    let actions = run_and_list_actions(&mut asked, NOW, true, observations(Some(CrossCheckResult::Confirmed)));
    assert_eq!(actions[2..], [Action::FindConfirmedAbove(99), Action::CrossCheck(theirs), Action::CloseDispute]);
    assert_eq!(asked.decide_next_action(NOW, Observation::Done), Ok(rewind));

    let mut disputed = new_machine();
    let opened = run_and_return_last(&mut disputed, true, observations(Some(conflicting.clone())));
    assert!(matches!(opened, Ok(Action::OpenDispute(_))), "{opened:?}");
    assert_eq!(disputed.decide_next_action(NOW, Observation::Done), Ok(Action::Finish(Ran::Idle)));
    let again = run_and_return_last(&mut disputed, true, observations(Some(conflicting)));
    assert_eq!(again, Ok(Action::Finish(Ran::Idle)), "the review is open already");
}

#[test]
fn a_branch_below_the_final_block_halts_the_chain() {
    for cross_checkable in [false, true] {
        let mut machine = new_machine();
        let head = Observation::Tip(Tip { head: header(1, 96), finalized: None });
        let mut observations = vec![head, Observation::Header(Some(header(1, 96)))];
        if cross_checkable {
            observations.extend([Observation::CrossChecked(CrossCheckResult::Confirmed), Observation::Done]);
        }
        let halt = run_and_return_last(&mut machine, cross_checkable, observations);
        assert!(matches!(halt, Ok(Action::Halt(_))), "{halt:?}");
        assert!(!machine.is_halted());
        assert_eq!(machine.decide_next_action(NOW, Observation::Done), Ok(Action::Finish(Ran::Worked)));
        assert!(machine.is_halted());
    }
}

#[test]
fn a_conflicting_head_is_reported_once_while_the_preferred_endpoint_is_on_the_followed_branch() {
    let mut machine = new_machine();
    finish_all_deposits(&mut machine);
    machine.take_notices();
    let conflicting = header(1, 101);
    for expected in [vec![Notice::ConflictingHead(conflicting.block_ref())], Vec::new()] {
        let observations = [
            Observation::Tip(Tip { head: conflicting, finalized: None }),
            Observation::Header(Some(header(0, 101))),
            Observation::Expirable(Vec::new()),
        ];
        let actions = run_and_list_actions(&mut machine, NOW, false, observations);
        assert_eq!(actions[0], Action::ReadHeader(101));
        assert_eq!(actions[2], Action::Finish(Ran::Idle));
        assert_eq!(machine.take_notices(), expected);
    }
}

/// Returns a block with unchecked deposits that have these ids.
fn unchecked_block(height: Height, ids: &[i64]) -> BlockToCorroborate {
    let transfers = ids.iter().flat_map(|_| paid_block(height).transfers).collect();
    BlockToCorroborate {
        block: block_ref(0, height),
        deposits: ids.iter().copied().map(DepositId).collect(),
        transfers,
    }
}

fn shown() -> Corroboration {
    Corroboration::Shown { endpoint: "b".into() }
}

fn contradicted() -> Corroboration {
    Corroboration::Contradicted { endpoint: "b".into(), detail: "a shows it and b does not".into() }
}

fn cannot_say() -> Corroboration {
    Corroboration::CannotSay { reason: "b is silent".into() }
}

/// Runs a machine whose chain needs a second source, and returns all actions after `ReadTip`.
fn run_with_second_source(
    machine: &mut Machine,
    now: Instant,
    observations: impl IntoIterator<Item = Observation>,
) -> Vec<Action> {
    assert_eq!(machine.start_run(true, true), Action::ReadTip);
    observations.into_iter().map(|observation| machine.decide_next_action(now, observation).unwrap()).collect()
}

/// Returns the observations that bring a new machine to the listing of unchecked deposits, after block 102.
fn read_blocks_and_list(listed: Vec<BlockToCorroborate>) -> Vec<Observation> {
    vec![
        tip_at(102),
        Observation::Blocks(vec![paid_block(101), block(102)]),
        Observation::Done,
        blocks_stored(98, true),
        Observation::Unchecked(listed),
    ]
}

#[test]
fn deposits_are_stored_and_advance_with_the_answers_of_a_second_source() {
    let advance_to = Position { cursor: 102, last: 98 };
    for answers in [vec![shown(), shown()], vec![shown(), contradicted()], vec![cannot_say(), shown()]] {
        let listed = unchecked_block(101, &[7, 8]);
        let mut observations = read_blocks_and_list(vec![listed.clone()]);
        observations.extend([Observation::Answers(answers.clone()), blocks_stored(98, true)]);
        observations.push(Observation::Expirable(Vec::new()));
        let actions = run_with_second_source(&mut new_machine(), NOW, observations);
        let blocks = vec![paid_block(101), block(102)];
        let by_deposit = [DepositId(7), DepositId(8)].into_iter().zip(answers).collect();
        assert_eq!(
            actions[1..6],
            [
                Action::CloseDispute,
                Action::StoreBlocks { from: block_ref(0, 100), blocks, advance_to: Some(advance_to) },
                Action::ListUnchecked(advance_to, 512),
                Action::ConfirmTransfers { block: listed.block, transfers: listed.transfers },
                Action::StoreAnswers { answers: by_deposit, advance_to },
            ]
        );
        assert_eq!(actions.last(), Some(&Action::Finish(Ran::Worked)));
    }
}

#[test]
fn no_second_source_is_asked_without_unchecked_deposits_or_on_chains_that_need_none() {
    let mut observations = read_blocks_and_list(Vec::new());
    let actions = run_with_second_source(&mut new_machine(), NOW, observations.clone());
    assert!(matches!(actions.last(), Some(Action::ListExpirable { .. })), "{actions:?}");
    observations.pop();
    let actions = run_and_list_actions(&mut new_machine(), NOW, true, observations);
    assert!(matches!(actions.last(), Some(Action::ListExpirable { .. })), "{actions:?}");
}

#[test]
fn a_run_asks_about_a_limited_number_of_blocks_for_a_limited_time() {
    let listed: Vec<BlockToCorroborate> =
        (1..=20).map(|n| unchecked_block(80 + n, &[i64::try_from(n).unwrap()])).collect();
    // Each row is: the answer about every block, the time until it comes in milliseconds, the number of blocks asked
    // about, the delay of the next listing in milliseconds.
    let table = [
        (shown(), 0, 16, 0),
        (contradicted(), 0, 16, 1_000),
        (cannot_say(), 0, 16, 1_000),
        (shown(), 1_000, 3, 0),
        (cannot_say(), 10_000, 1, 1_000),
    ];
    for (answer, answer_ms, asked, delay_ms) in table {
        let mut machine = new_machine();
        let mut actions = run_with_second_source(&mut machine, NOW, read_blocks_and_list(listed.clone()));
        let mut action = actions.pop().unwrap();
        let (mut heights, mut now) = (Vec::new(), NOW);
        while let Action::ConfirmTransfers { block, .. } = action {
            heights.push(block.height);
            now = now.plus_ms(answer_ms);
            action = machine.decide_next_action(now, Observation::Answers(vec![answer.clone()])).unwrap();
        }
        assert_eq!(heights, (81..81 + asked).collect::<Vec<_>>(), "{answer:?}");
        let Action::StoreAnswers { answers, .. } = action else { panic!("{action:?}") };
        assert_eq!(u64::try_from(answers.len()).unwrap(), asked);
        machine.decide_next_action(now, blocks_stored(98, true)).unwrap();
        let next = |machine: &mut Machine, after_ms| {
            run_with_second_source(machine, now.plus_ms(after_ms), [tip_at(102)]).remove(0)
        };
        if delay_ms > 0 {
            assert!(matches!(next(&mut machine, delay_ms - 1), Action::ListExpirable { .. }));
        }
        assert!(matches!(next(&mut machine, delay_ms), Action::ListUnchecked(..)), "{answer:?}");
    }
}

#[test]
fn a_missing_answer_is_reported_once_per_block() {
    let mut machine = new_machine();
    let mut observations = read_blocks_and_list(vec![unchecked_block(101, &[7])]);
    observations.extend([Observation::Answers(vec![cannot_say()]), blocks_stored(98, true)]);
    run_with_second_source(&mut machine, NOW, observations);
    let notice = Notice::NotCorroborated { height: 101, reason: "b is silent".into() };
    assert_eq!(machine.take_notices(), [notice]);
    let listed = Observation::Unchecked(vec![unchecked_block(101, &[7])]);
    let answers = Observation::Answers(vec![cannot_say()]);
    run_with_second_source(&mut machine, NOW.plus_ms(1_000), [tip_at(102), listed, answers, blocks_stored(98, true)]);
    assert_eq!(machine.take_notices(), []);
}

#[test]
fn a_wrong_number_of_answers_is_rejected() {
    let mut machine = new_machine();
    let observations = read_blocks_and_list(vec![unchecked_block(101, &[7, 8])]);
    run_with_second_source(&mut machine, NOW, observations);
    let outcome = machine.decide_next_action(NOW, Observation::Answers(vec![shown()]));
    assert_eq!(outcome, Err(StepError::WrongNumberOfAnswers { height: 101, asked: 2, answered: 1 }));
}

#[test]
fn unchecked_deposits_are_listed_after_a_start_without_a_new_block() {
    let mut machine = new_machine();
    let observations = [tip_at(100), Observation::Done, blocks_stored(96, true)];
    let actions = run_with_second_source(&mut machine, NOW, observations);
    assert!(matches!(actions.last(), Some(Action::ListUnchecked(..))), "{actions:?}");
}

#[test]
fn a_final_block_on_another_branch_opens_a_dispute_and_confirms_nothing() {
    let mut machine = new_machine();
    let tip = Tip { head: header(0, 101), finalized: Some(block_ref(1, 95)) };
    let observations = [Observation::Tip(tip), Observation::Blocks(vec![paid_block(101)]), Observation::Done];
    let actions = run_and_list_actions(&mut machine, NOW, true, observations);
    assert!(matches!(actions[1], Action::OpenDispute(_)), "{actions:?}");
    assert!(matches!(actions[2], Action::StoreBlocks { advance_to: None, .. }), "{actions:?}");
}

#[test]
fn balances_are_checked_before_invoices_expire() {
    let invoices = vec![InvoiceId(7), InvoiceId(8)];
    let expired = || [tip_at(101), Observation::Expirable(invoices.clone())];
    let expire = Action::ExpireInvoices { invoices: invoices.clone(), unchecked: None };

    let mut bitcoin = new_machine_with(Family::Bitcoin, default_limits());
    finish_all_deposits(&mut bitcoin);
    assert_eq!(
        run_and_return_last(&mut bitcoin, false, expired()),
        Ok(expire.clone()),
        "Bitcoin's blocks show every output"
    );

    let mut explained = new_machine();
    finish_all_deposits(&mut explained);
    let check = Action::CheckBalances { at: block_ref(0, 101), invoices: invoices.clone() };
    assert_eq!(run_and_return_last(&mut explained, false, expired()), Ok(check));
    assert_eq!(explained.decide_next_action(NOW, Observation::Balances(Ok(true))), Ok(expire));
    assert_eq!(explained.decide_next_action(NOW, Observation::Done), Ok(Action::Finish(Ran::Worked)));

    let mut booked = new_machine();
    finish_all_deposits(&mut booked);
    run_and_return_last(&mut booked, false, expired()).unwrap();
    let store = booked.decide_next_action(NOW, Observation::Balances(Ok(false))).unwrap();
    assert!(matches!(&store, Action::StoreBlocks { blocks, .. } if blocks.is_empty()), "{store:?}");
    assert_eq!(
        booked.decide_next_action(NOW, blocks_stored(97, true)),
        Ok(Action::Finish(Ran::Worked)),
        "the next run checks the invoice again"
    );
}

#[test]
fn invoices_wait_for_balances_for_a_limited_time() {
    let mut machine = new_machine();
    finish_all_deposits(&mut machine);
    let unavailable = || Observation::Balances(Err(SourceError::Unavailable("b".into())));
    let mut run_at = |after_ms: i64, balances: Observation| {
        let now = NOW.plus_ms(after_ms);
        run_and_list_actions(&mut machine, now, false, [tip_at(101), Observation::Expirable(vec![InvoiceId(7)])]);
        machine.decide_next_action(now, balances)
    };
    let waits = Err(StepError::BalancesUnavailable(SourceError::Unavailable("b".into())));
    assert_eq!(run_at(0, unavailable()), waits);
    assert_eq!(run_at(299_999, unavailable()), waits);
    let unchecked = run_at(300_000, unavailable());
    assert!(matches!(unchecked, Ok(Action::ExpireInvoices { unchecked: Some(_), .. })), "{unchecked:?}");
    assert!(run_at(400_000, Observation::Balances(Ok(true))).is_ok());
    assert_eq!(run_at(500_000, unavailable()), waits, "a success ends the wait");
}

#[test]
fn missing_balances_do_not_stop_the_follower_while_it_reads_blocks() {
    let mut machine = new_machine();
    let observations = [
        tip_at(101),
        Observation::Blocks(vec![paid_block(101)]),
        Observation::Done,
        blocks_stored(97, true),
        Observation::Expirable(vec![InvoiceId(7)]),
        Observation::Balances(Err(SourceError::Unavailable("b".into()))),
    ];
    let actions = run_and_list_actions(&mut machine, NOW, false, observations);
    assert_eq!(actions.last(), Some(&Action::Finish(Ran::Worked)));
    assert!(matches!(machine.take_notices()[..], [Notice::ExpiryDelayed(_)]));
}

#[test]
fn balances_are_requested_at_the_same_block_until_they_are_known() {
    let mut machine = new_machine();
    finish_all_deposits(&mut machine);
    let mut balance_block = |height: Height, after_ms: i64| {
        let blocks = (height > 101).then(|| Observation::Blocks((height..=height).map(paid_block).collect()));
        let store = blocks.is_some().then(|| blocks_stored(97, true));
        let observations = [Some(tip_at(height)), blocks, store, Some(Observation::Expirable(vec![InvoiceId(7)]))];
        let actions =
            run_and_list_actions(&mut machine, NOW.plus_ms(after_ms), false, observations.into_iter().flatten());
        let Some(Action::CheckBalances { at, .. }) = actions.last() else { panic!("{actions:?}") };
        at.height
    };
    assert_eq!(balance_block(101, 0), 101);
    assert_eq!(balance_block(102, 5_000), 101);
    assert_eq!(
        (103..=164).map(|height| balance_block(height, 5_000 * i64::try_from(height).unwrap())).last(),
        Some(101)
    );
    assert_eq!(balance_block(165, 5_000 * 165), 165, "nodes forget the balances at old blocks");
}

#[test]
fn an_invoice_that_expires_later_is_not_checked_at_an_older_block() {
    let mut machine = new_machine();
    finish_all_deposits(&mut machine);
    let mut check = |height: Height, after_ms: i64, expirable: &[i64], result: Option<Result<bool, SourceError>>| {
        let blocks = (height > 101).then(|| Observation::Blocks((height..=height).map(paid_block).collect()));
        let store = blocks.is_some().then(|| blocks_stored(97, true));
        let expirable = Observation::Expirable(expirable.iter().map(|id| InvoiceId(*id)).collect());
        let observations = [Some(tip_at(height)), blocks, store, Some(expirable), result.map(Observation::Balances)];
        run_and_list_actions(&mut machine, NOW.plus_ms(after_ms), false, observations.into_iter().flatten())
    };
    let block_and_invoices = |action: Option<&Action>| match action {
        Some(Action::CheckBalances { at, invoices }) => (at.height, invoices.iter().map(|id| id.0).collect::<Vec<_>>()),
        other => panic!("{other:?}"),
    };
    assert_eq!(block_and_invoices(check(101, 0, &[7], None).last()), (101, vec![7]));
    let actions = check(102, 5_000, &[7, 8], Some(Ok(true)));
    let asked = actions.iter().find(|action| matches!(action, Action::CheckBalances { .. }));
    assert_eq!(block_and_invoices(asked), (101, vec![7]), "the window of invoice 8 may have ended after block 101");
    let Some(Action::ExpireInvoices { invoices, .. }) = actions.last() else { panic!("{actions:?}") };
    assert_eq!(invoices, &[InvoiceId(7)]);
    assert_eq!(block_and_invoices(check(103, 10_000, &[8], None).last()), (103, vec![8]));
}
