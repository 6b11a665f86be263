//! Finds the native coins that contracts send inside transactions, in the call traces of a node.
//!
//! Nothing in a block header proves the traces, so they are only as reliable as the endpoint. A reverted call and all
//! calls below it moved nothing, DELEGATECALL and STATICCALL carry no value of their own, and CALLCODE sends value from
//! a contract to itself.

use alloy_primitives::{Address, B256};
use chain::{
    AddressKey, Amount, AssetId, Transfer, TransferIndex, TxId, TxPart, address::encode_evm_address,
    watch::WatchedAddresses,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{block::BlockBody, hex};

/// One call that a transaction makes. Calls are listed in the order in which they began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct CallFrame {
    /// The index of the calling frame in the list; `None` for the first call, which is the transaction itself.
    parent: Option<usize>,
    moves_value: bool,
    from: Option<Address>,
    to: Option<Address>,
    value: Amount,
    failed: bool,
}

/// The trace of one transaction from `debug_traceBlockByHash` with `callTracer`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TxTrace<'a> {
    #[serde(default)]
    tx_hash: Option<&'a str>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

/// One call from `trace_block`, which lists the calls of all transactions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlatTrace<'a> {
    #[serde(borrow)]
    action: TraceAction<'a>,
    block_hash: &'a str,
    #[serde(default)]
    error: Option<&'a str>,
    trace_address: Vec<u32>,
    /// The hash of the transaction. `None` for block rewards, which belong to no transaction.
    #[serde(default)]
    transaction_hash: Option<&'a str>,
    #[serde(default)]
    transaction_position: Option<u32>,
    r#type: &'a str,
    #[serde(borrow, default)]
    result: Option<CreatedContract<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TraceAction<'a> {
    #[serde(default)]
    call_type: Option<&'a str>,
    #[serde(default)]
    from: Option<&'a str>,
    #[serde(default)]
    to: Option<&'a str>,
    #[serde(default)]
    value: Option<&'a str>,
    /// The address of the contract that destroyed itself; `None` for actions of other types.
    #[serde(default)]
    address: Option<&'a str>,
    #[serde(default)]
    refund_address: Option<&'a str>,
    #[serde(default)]
    balance: Option<&'a str>,
}

#[derive(Deserialize)]
struct CreatedContract<'a> {
    #[serde(default)]
    address: Option<&'a str>,
}

/// Returns the native coins that contracts sent to watched addresses, from geth's nested traces of a block. Fails when
/// a trace is missing, malformed or belongs to another transaction.
pub fn list_watched_transfers_in_nested_traces(
    traces: &[TxTrace<'_>],
    body: &BlockBody,
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<Transfer>, String> {
    if traces.len() != body.txids.len() {
        return Err(format!(
            "block {} has {} transactions, but {} traces were returned",
            body.header.height,
            body.txids.len(),
            traces.len()
        ));
    }
    let mut transfers = Vec::new();
    for (tx_index, (trace, txid)) in traces.iter().zip(&body.txids).enumerate() {
        if trace.tx_hash.is_some_and(|hash| hex::parse_hash(hash) != Some(*txid)) {
            return Err(format!("a trace of block {} belongs to another transaction", body.header.height));
        }
        let root = trace.result.ok_or_else(|| format!("transaction {txid} was not traced"))?;
        let frames = parse_nested_call_frames(root.get())
            .ok_or_else(|| format!("the trace of transaction {txid} is malformed"))?;
        append_watched_internal_transfers(&frames, tx_index, *txid, native, watched, &mut transfers)?;
    }
    Ok(transfers)
}

/// Returns the native coins that contracts sent to watched addresses, from the flat traces of Parity's `trace_block`.
/// Fails when a transaction has no trace, or when a trace belongs to another block or transaction.
pub fn list_watched_transfers_in_flat_traces(
    traces: &[FlatTrace<'_>],
    body: &BlockBody,
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<Transfer>, String> {
    let mut by_tx: Vec<Vec<&FlatTrace<'_>>> = body.txids.iter().map(|_| Vec::new()).collect();
    for trace in traces {
        if hex::parse_hash(trace.block_hash).is_none_or(|hash| hash.0 != body.header.hash.0) {
            return Err(format!("the traces belong to another block than {}", body.header.hash));
        }
        let (Some(hash), Some(position)) = (trace.transaction_hash, trace.transaction_position) else { continue };
        let index = usize::try_from(position).unwrap_or(usize::MAX);
        if hex::parse_hash(hash).is_none() || body.txids.get(index).copied() != hex::parse_hash(hash) {
            return Err(format!("a trace of block {} belongs to another transaction", body.header.height));
        }
        by_tx[index].push(trace);
    }
    let mut transfers = Vec::new();
    for (tx_index, (traces, txid)) in by_tx.iter().zip(&body.txids).enumerate() {
        if traces.is_empty() {
            return Err(format!("transaction {txid} was not traced"));
        }
        append_watched_internal_transfers(
            &flat_traces_to_call_frames(traces),
            tx_index,
            *txid,
            native,
            watched,
            &mut transfers,
        )?;
    }
    Ok(transfers)
}

/// Appends the internal transfers of one transaction to watched addresses. The index of a transfer counts all internal
/// transfers in the order of the trace, so that both trace methods give the same index.
fn append_watched_internal_transfers(
    frames: &[CallFrame],
    tx_index: usize,
    txid: B256,
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
    transfers: &mut Vec<Transfer>,
) -> Result<(), String> {
    let tx_index = u32::try_from(tx_index).map_err(|_| "too many transactions")?;
    let mut reverted: Vec<bool> = Vec::with_capacity(frames.len());
    let mut transfer_index = 0u32;
    for frame in frames {
        let caller_reverted = frame.parent.and_then(|parent| reverted.get(parent).copied()).unwrap_or(false);
        reverted.push(caller_reverted || frame.failed);
        let sends_value = frame.moves_value && !frame.value.is_zero() && frame.from != frame.to;
        if frame.parent.is_none() || caller_reverted || frame.failed || !sends_value {
            continue;
        }
        let part = TxPart::Internal(transfer_index);
        transfer_index = transfer_index.checked_add(1).ok_or("too many calls")?;
        let Some(to) = frame.to.map(|to| AddressKey(to.into())).filter(|to| watched.contains(to)) else { continue };
        transfers.push(Transfer {
            txid: TxId(txid.0),
            index: TransferIndex { tx_index, part },
            asset: native.clone(),
            to,
            from: frame.from.map(|from| encode_evm_address(AddressKey(from.into())).text),
            amount: frame.value,
        });
    }
    Ok(())
}

/// Returns true when a call of this type, as geth names it, can send coins to another account.
fn is_value_moving_call(kind: &str) -> bool {
    matches!(kind, "CALL" | "CREATE" | "CREATE2" | "SELFDESTRUCT" | "SUICIDE")
}

/// Converts the flat traces of one transaction to call frames.
fn flat_traces_to_call_frames(traces: &[&FlatTrace<'_>]) -> Vec<CallFrame> {
    // The indexes in `frames` of the current call and of all calls that lead to it, beginning with the transaction
    // itself.
    let mut path: Vec<usize> = Vec::new();
    let mut frames = Vec::with_capacity(traces.len());
    for (index, trace) in traces.iter().enumerate() {
        path.truncate(trace.trace_address.len());
        let parent = path.last().copied();
        path.push(index);
        let action = &trace.action;
        let created = trace.result.as_ref().and_then(|result| result.address);
        let (moves_value, from, to, value) = match trace.r#type {
            "call" => (action.call_type.is_none_or(|kind| kind == "call"), action.from, action.to, action.value),
            "create" => (true, action.from, created, action.value),
            "suicide" | "selfdestruct" => (true, action.address, action.refund_address, action.balance),
            _ => (false, None, None, None),
        };
        frames.push(CallFrame {
            parent,
            moves_value,
            from: from.and_then(hex::parse_address),
            to: to.and_then(hex::parse_address),
            value: value.and_then(hex::parse_u256).map(Amount::new).unwrap_or_default(),
            failed: trace.error.is_some(),
        });
    }
    frames
}

/// A bracket of the JSON text that is not closed yet.
enum OpenBracket {
    /// The JSON object of a call frame; the number is the frame's index in the trace.
    CallFrame(usize),
    /// The list of calls that a frame made; the number is the frame's index in the trace.
    Calls(usize),
    /// An object or list whose content is ignored.
    Other,
}

/// Parses geth's nested call frames. Works without recursion, because the sender of a transaction decides how deep its
/// calls nest, up to 1,024 levels. The text is already known to be valid JSON. Returns `None` when a field is
/// malformed.
fn parse_nested_call_frames(text: &str) -> Option<Vec<CallFrame>> {
    let mut frames: Vec<CallFrame> = Vec::new();
    let mut open: Vec<OpenBracket> = Vec::new();
    let mut key: Option<&str> = None;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '[', ']', '"', ',']) {
        let (bracket, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = after;
        match bracket {
            b'{' => {
                let parent = match open.last() {
                    None => Some(None),
                    Some(OpenBracket::Calls(caller)) => Some(Some(*caller)),
                    Some(OpenBracket::CallFrame(_) | OpenBracket::Other) => None,
                };
                open.push(match parent {
                    Some(parent) => {
                        frames.push(CallFrame { parent, ..CallFrame::default() });
                        OpenBracket::CallFrame(frames.len() - 1)
                    }
                    None => OpenBracket::Other,
                });
                key = None;
            }
            b'[' => {
                let calls = match (open.last(), key) {
                    (Some(OpenBracket::CallFrame(caller)), Some("calls")) => OpenBracket::Calls(*caller),
                    (Some(_), _) => OpenBracket::Other,
                    (None, _) => return None,
                };
                open.push(calls);
            }
            b'}' | b']' => {
                open.pop()?;
                key = None;
            }
            b',' => key = None,
            _ => {
                let (string, after) = split_at_closing_quote(rest)?;
                rest = after;
                let Some(OpenBracket::CallFrame(index)) = open.last() else { continue };
                match key {
                    None => key = Some(string),
                    Some(key) => set_call_frame_field(frames.get_mut(*index)?, key, string)?,
                }
            }
        }
    }
    if open.is_empty() && !frames.is_empty() { Some(frames) } else { None }
}

/// Sets one field of a call frame. Returns `None` when its value is malformed.
fn set_call_frame_field(frame: &mut CallFrame, key: &str, text: &str) -> Option<()> {
    match key {
        "type" => frame.moves_value = is_value_moving_call(text),
        "from" => frame.from = Some(hex::parse_address(text)?),
        "to" if !text.is_empty() => frame.to = Some(hex::parse_address(text)?),
        "value" => frame.value = Amount::new(hex::parse_u256(text)?),
        "error" => frame.failed = true,
        _ => {}
    }
    Some(())
}

/// Splits a JSON text that begins inside a string. Returns the string up to its closing quote, with escapes unchanged,
/// and the text after the quote; `None` without a closing quote.
fn split_at_closing_quote(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(['"', '\\'])?;
        if text.as_bytes()[at] == b'"' {
            return Some((&text[..at], &text[at + 1..]));
        }
        // In valid JSON, the character after a backslash is always a single byte.
        from = at + 2;
        if !text.is_char_boundary(from) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Bloom;
    use chain::{BlockHash, WatchSet};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const A: &str = "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const WATCHED: &str = "0xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn build_block_body() -> BlockBody {
        let header = chain::Header { height: 7, hash: BlockHash([1; 32]), parent: BlockHash([0; 32]), time: 0 };
        let (txids, payments) = (vec![B256::ZERO], Vec::new());
        let (bloom, receipts_root) = (Bloom::ZERO, B256::ZERO);
        BlockBody {
            header,
            bloom,
            receipts_root,
            txids,
            payments,
            has_unproven_payment: false,
            has_full_transactions: true,
            unproven: None,
        }
    }

    fn build_watch_set() -> WatchSet {
        let set = WatchSet::default();
        set.insert(AddressKey([0xbb; 20]));
        set
    }

    fn build_call_json(kind: &str, value: &str, calls: Value) -> Value {
        json!({ "from": A, "to": WATCHED, "input": "0x{\"", "calls": calls, "value": value, "type": kind })
    }

    fn mark_call_failed(mut call: Value) -> Value {
        call["error"] = "execution reverted".into();
        call
    }

    /// The indexes and amounts of the internal transfers in a nested trace.
    fn list_transfers_in_trace(root: Value) -> Vec<(u32, u64)> {
        let text = json!([{ "txHash": B256::ZERO, "result": root }]).to_string();
        let traces: Vec<TxTrace<'_>> = serde_json::from_str(&text).unwrap();
        let native = AssetId::from_stored("ethereum/native");
        to_indexes_and_amounts(
            list_watched_transfers_in_nested_traces(
                &traces,
                &build_block_body(),
                &native,
                &build_watch_set().lock_addresses(),
            )
            .unwrap(),
        )
    }

    /// Returns the index and the amount of each internal transfer.
    fn to_indexes_and_amounts(transfers: Vec<Transfer>) -> Vec<(u32, u64)> {
        let index_and_amount = |transfer: Transfer| {
            let TxPart::Internal(index) = transfer.index.part else { panic!("{transfer:?} is not internal") };
            (index, transfer.amount.units().to::<u64>())
        };
        transfers.into_iter().map(index_and_amount).collect()
    }

    #[test]
    fn only_successful_calls_that_send_value_are_transfers() {
        let none = || json!([]);
        for (case, root, expected) in [
            ("the value of the transaction itself is not internal", build_call_json("CALL", "0x5", none()), vec![]),
            ("a call", build_call_json("CALL", "0x0", json!([build_call_json("CALL", "0x5", none())])), vec![(0, 5)]),
            (
                "a call without value",
                build_call_json("CALL", "0x0", json!([build_call_json("CALL", "0x0", none())])),
                vec![],
            ),
            (
                "below a delegate call",
                build_call_json(
                    "CALL",
                    "0x0",
                    json!([build_call_json("DELEGATECALL", "0x9", json!([build_call_json("CALL", "0x5", none())]))]),
                ),
                vec![(0, 5)],
            ),
            (
                "a static call",
                build_call_json("CALL", "0x0", json!([build_call_json("STATICCALL", "0x5", none())])),
                vec![],
            ),
            (
                "CALLCODE sends value to the calling contract itself",
                build_call_json("CALL", "0x0", json!([build_call_json("CALLCODE", "0x5", none())])),
                vec![],
            ),
            (
                "contracts created with value",
                build_call_json(
                    "CALL",
                    "0x0",
                    json!([build_call_json("CREATE", "0x5", none()), build_call_json("CREATE2", "0x6", none())]),
                ),
                vec![(0, 5), (1, 6)],
            ),
            (
                "a self-destruct",
                build_call_json("CALL", "0x0", json!([build_call_json("SELFDESTRUCT", "0x5", none())])),
                vec![(0, 5)],
            ),
            (
                "a failed call",
                build_call_json(
                    "CALL",
                    "0x0",
                    json!([
                        mark_call_failed(build_call_json("CALL", "0x5", none())),
                        build_call_json("CALL", "0x6", none())
                    ]),
                ),
                vec![(0, 6)],
            ),
            (
                "below a failed call",
                build_call_json(
                    "CALL",
                    "0x0",
                    json!([mark_call_failed(build_call_json(
                        "CALL",
                        "0x0",
                        json!([build_call_json("CALL", "0x5", none())])
                    ))]),
                ),
                vec![],
            ),
            (
                "a failed transaction",
                mark_call_failed(build_call_json(
                    "CALL",
                    "0x1",
                    json!([build_call_json("CALL", "0x5", json!([build_call_json("CALL", "0x6", none())]))]),
                )),
                vec![],
            ),
            (
                "several calls in order",
                build_call_json(
                    "CALL",
                    "0x0",
                    json!([
                        build_call_json("CALL", "0x5", json!([build_call_json("CALL", "0x6", none())])),
                        build_call_json("CALL", "0x7", none())
                    ]),
                ),
                vec![(0, 5), (1, 6), (2, 7)],
            ),
        ] {
            assert_eq!(list_transfers_in_trace(root), expected, "{case}");
        }
    }

    #[test]
    fn both_trace_methods_give_a_transfer_the_same_index() {
        let trace = |kind: &str, call_type: &str, value: &str, at: &[u32], error: Option<&str>| {
            let action = match kind {
                "suicide" => json!({ "address": A, "refundAddress": WATCHED, "balance": value }),
                _ => json!({ "from": A, "to": WATCHED, "value": value, "callType": call_type }),
            };
            json!({ "action": action, "blockHash": B256::repeat_byte(1), "traceAddress": at, "type": kind, "error": error,
                "transactionHash": B256::ZERO, "transactionPosition": 0, "result": { "address": WATCHED } })
        };
        let text = json!([
            trace("call", "call", "0x1", &[], None),
            trace("call", "call", "0x2", &[0], None),
            trace("call", "call", "0x3", &[0, 0], Some("Reverted")),
            trace("call", "call", "0x4", &[0, 0, 0], None),
            trace("call", "delegatecall", "0x5", &[1], None),
            trace("create", "", "0x6", &[1, 0], None),
            trace("suicide", "", "0x7", &[2], None),
        ])
        .to_string();
        let traces: Vec<FlatTrace<'_>> = serde_json::from_str(&text).unwrap();
        let native = AssetId::from_stored("ethereum/native");
        let flat = to_indexes_and_amounts(
            list_watched_transfers_in_flat_traces(
                &traces,
                &build_block_body(),
                &native,
                &build_watch_set().lock_addresses(),
            )
            .unwrap(),
        );
        let nested = list_transfers_in_trace(build_call_json(
            "CALL",
            "0x1",
            json!([
                build_call_json(
                    "CALL",
                    "0x2",
                    json!([mark_call_failed(build_call_json(
                        "CALL",
                        "0x3",
                        json!([build_call_json("CALL", "0x4", json!([]))])
                    ))])
                ),
                build_call_json("DELEGATECALL", "0x5", json!([build_call_json("CREATE", "0x6", json!([]))])),
                build_call_json("SELFDESTRUCT", "0x7", json!([])),
            ]),
        ));
        assert_eq!(flat, nested);
        assert_eq!(flat, [(0, 2), (1, 6), (2, 7)]);
    }

    #[test]
    fn calls_may_nest_at_any_depth() {
        let depth = 20_000;
        let open = format!(r#"{{"type":"CALL","from":"{A}","to":"{WATCHED}","value":"0x1","calls":["#);
        let text = format!("{}{}", open.repeat(depth), "]}".repeat(depth));
        assert_eq!(parse_nested_call_frames(&text).unwrap().len(), depth);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in r#"[\[\]{}:,"\\a-z0é]{0,80}"#) {
            let _ = parse_nested_call_frames(&text);
        }
    }
}
