//! Native coins that contracts send inside transactions, from the node's call traces.
//!
//! Traces are not committed to by any header: they are as good as the node. A subtree that reverted moved nothing, a
//! DELEGATECALL or STATICCALL carries no value of its own, and a CALLCODE pays the caller itself.

use alloy_primitives::{Address, B256};
use chain::{
    AddressKey, Amount, AssetId, Transfer, TransferIndex, TxId, TxPart, derive::evm_address, watch::WatchedAddresses,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{block::Body, hex};

/// One call in the order in which calls began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Frame {
    /// The caller's place in the list; `None` for the transaction itself.
    parent: Option<usize>,
    moves_value: bool,
    from: Option<Address>,
    to: Option<Address>,
    value: Amount,
    failed: bool,
}

/// One item of `debug_traceBlockByHash` with `callTracer`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TxTrace<'a> {
    #[serde(default)]
    tx_hash: Option<&'a str>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

/// One item of `trace_block`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlatTrace<'a> {
    #[serde(borrow)]
    action: Action<'a>,
    block_hash: &'a str,
    #[serde(default)]
    error: Option<&'a str>,
    trace_address: Vec<u32>,
    /// Rewards have none.
    #[serde(default)]
    transaction_hash: Option<&'a str>,
    #[serde(default)]
    transaction_position: Option<u32>,
    r#type: &'a str,
    #[serde(borrow, default)]
    result: Option<Created<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action<'a> {
    #[serde(default)]
    call_type: Option<&'a str>,
    #[serde(default)]
    from: Option<&'a str>,
    #[serde(default)]
    to: Option<&'a str>,
    #[serde(default)]
    value: Option<&'a str>,
    /// Of a self-destructed contract.
    #[serde(default)]
    address: Option<&'a str>,
    #[serde(default)]
    refund_address: Option<&'a str>,
    #[serde(default)]
    balance: Option<&'a str>,
}

#[derive(Deserialize)]
struct Created<'a> {
    #[serde(default)]
    address: Option<&'a str>,
}

/// Internal transfers to watched addresses from geth's traces of a block.
pub fn nested(
    traces: &[TxTrace<'_>],
    body: &Body,
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<Transfer>, String> {
    if traces.len() != body.hashes.len() {
        return Err(format!(
            "block {} has {} transactions, got {} traces",
            body.header.height,
            body.hashes.len(),
            traces.len()
        ));
    }
    let mut transfers = Vec::new();
    for (tx_index, (trace, txid)) in traces.iter().zip(&body.hashes).enumerate() {
        if trace.tx_hash.is_some_and(|hash| hex::hash(hash) != Some(*txid)) {
            return Err(format!("a trace of block {} belongs to another transaction", body.header.height));
        }
        let root = trace.result.ok_or_else(|| format!("transaction {txid} was not traced"))?;
        let frames = frames(root.get()).ok_or_else(|| format!("the trace of {txid} is none"))?;
        collect(&frames, tx_index, *txid, native, watched, &mut transfers)?;
    }
    Ok(transfers)
}

/// Internal transfers to watched addresses from the flat traces of Parity's interface.
pub fn flat(
    traces: &[FlatTrace<'_>],
    body: &Body,
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
) -> Result<Vec<Transfer>, String> {
    let mut of_tx: Vec<Vec<&FlatTrace<'_>>> = body.hashes.iter().map(|_| Vec::new()).collect();
    for trace in traces {
        if hex::hash(trace.block_hash).is_none_or(|hash| hash.0 != body.header.hash.0) {
            return Err(format!("the traces are of another block than {}", body.header.hash));
        }
        let (Some(hash), Some(position)) = (trace.transaction_hash, trace.transaction_position) else { continue };
        let index = usize::try_from(position).unwrap_or(usize::MAX);
        if hex::hash(hash).is_none() || body.hashes.get(index).copied() != hex::hash(hash) {
            return Err(format!("a trace of block {} belongs to another transaction", body.header.height));
        }
        of_tx[index].push(trace);
    }
    let mut transfers = Vec::new();
    for (tx_index, (traces, txid)) in of_tx.iter().zip(&body.hashes).enumerate() {
        if traces.is_empty() {
            return Err(format!("transaction {txid} was not traced"));
        }
        collect(&unflatten(traces), tx_index, *txid, native, watched, &mut transfers)?;
    }
    Ok(transfers)
}

/// Numbers the movements of a transaction in trace order, so that both interfaces give one movement the same place.
fn collect(
    frames: &[Frame],
    tx_index: usize,
    txid: B256,
    native: &AssetId,
    watched: &WatchedAddresses<'_>,
    transfers: &mut Vec<Transfer>,
) -> Result<(), String> {
    let tx_index = u32::try_from(tx_index).map_err(|_| "too many transactions")?;
    let mut undone: Vec<bool> = Vec::with_capacity(frames.len());
    let mut movement = 0u32;
    for frame in frames {
        let by_caller = frame.parent.and_then(|parent| undone.get(parent).copied()).unwrap_or(false);
        undone.push(by_caller || frame.failed);
        let moved = frame.moves_value && !frame.value.is_zero() && frame.from != frame.to;
        if frame.parent.is_none() || by_caller || frame.failed || !moved {
            continue;
        }
        let part = TxPart::Internal(movement);
        movement = movement.checked_add(1).ok_or("too many calls")?;
        let Some(to) = frame.to.map(|to| AddressKey(to.into())).filter(|to| watched.contains(to)) else { continue };
        transfers.push(Transfer {
            txid: TxId(txid.0),
            index: TransferIndex { tx_index, part },
            asset: native.clone(),
            to,
            from: frame.from.map(|from| evm_address(AddressKey(from.into())).text),
            amount: frame.value,
        });
    }
    Ok(())
}

fn moves_value(kind: &str) -> bool {
    matches!(kind, "CALL" | "CREATE" | "CREATE2" | "SELFDESTRUCT" | "SUICIDE")
}

fn unflatten(traces: &[&FlatTrace<'_>]) -> Vec<Frame> {
    // The path of calls from the transaction to the one just read.
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
        frames.push(Frame {
            parent,
            moves_value,
            from: from.and_then(hex::address),
            to: to.and_then(hex::address),
            value: value.and_then(hex::number).map(Amount::new).unwrap_or_default(),
            failed: trace.error.is_some(),
        });
    }
    frames
}

/// What an open bracket of the text belongs to.
enum Open {
    Frame(usize),
    /// The list of calls that a frame made.
    Calls(usize),
    Other,
}

/// Reads geth's nested frames without recursion: calls nest up to 1,024 deep, and whoever sends a transaction chooses how
/// deep. The text is valid JSON already; fields that come after the nested calls are taken all the same.
fn frames(text: &str) -> Option<Vec<Frame>> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut key: Option<&str> = None;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '[', ']', '"', ',']) {
        let (mark, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = after;
        match mark {
            b'{' => {
                let parent = match open.last() {
                    None => Some(None),
                    Some(Open::Calls(caller)) => Some(Some(*caller)),
                    Some(Open::Frame(_) | Open::Other) => None,
                };
                open.push(match parent {
                    Some(parent) => {
                        frames.push(Frame { parent, ..Frame::default() });
                        Open::Frame(frames.len() - 1)
                    }
                    None => Open::Other,
                });
                key = None;
            }
            b'[' => {
                let calls = match (open.last(), key) {
                    (Some(Open::Frame(caller)), Some("calls")) => Open::Calls(*caller),
                    (Some(_), _) => Open::Other,
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
                let (string, after) = quoted(rest)?;
                rest = after;
                let Some(Open::Frame(index)) = open.last() else { continue };
                match key {
                    None => key = Some(string),
                    Some(key) => set(frames.get_mut(*index)?, key, string)?,
                }
            }
        }
    }
    if open.is_empty() && !frames.is_empty() { Some(frames) } else { None }
}

fn set(frame: &mut Frame, key: &str, text: &str) -> Option<()> {
    match key {
        "type" => frame.moves_value = moves_value(text),
        "from" => frame.from = Some(hex::address(text)?),
        "to" if !text.is_empty() => frame.to = Some(hex::address(text)?),
        "value" => frame.value = Amount::new(hex::number(text)?),
        "error" => frame.failed = true,
        _ => {}
    }
    Some(())
}

/// The text up to the closing quote, as it stands, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text[from..].find(['"', '\\'])?;
        if text.as_bytes()[at] == b'"' {
            return Some((&text[..at], &text[at + 1..]));
        }
        // The escaped character may be longer than a byte only if the text is no JSON.
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
    const OURS: &str = "0xbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn body() -> Body {
        let header = chain::Header { height: 7, hash: BlockHash([1; 32]), parent: BlockHash([0; 32]), time: 0 };
        let (hashes, payments) = (vec![B256::ZERO], Vec::new());
        let (bloom, receipts_root) = (Bloom::ZERO, B256::ZERO);
        Body { header, bloom, receipts_root, hashes, payments, unread: false, full: true, unproven: None }
    }

    fn watched() -> WatchSet {
        let set = WatchSet::default();
        set.insert(AddressKey([0xbb; 20]));
        set
    }

    fn call(kind: &str, value: &str, calls: Value) -> Value {
        json!({ "from": A, "to": OURS, "input": "0x{\"", "calls": calls, "value": value, "type": kind })
    }

    fn failed(mut call: Value) -> Value {
        call["error"] = "execution reverted".into();
        call
    }

    /// Places and amounts of what is found.
    fn found(root: Value) -> Vec<(u32, u64)> {
        let text = json!([{ "txHash": B256::ZERO, "result": root }]).to_string();
        let traces: Vec<TxTrace<'_>> = serde_json::from_str(&text).unwrap();
        let native = AssetId::from_stored("ethereum/native");
        places(nested(&traces, &body(), &native, &watched().read_addresses()).unwrap())
    }

    fn places(transfers: Vec<Transfer>) -> Vec<(u32, u64)> {
        let place = |transfer: Transfer| {
            let TxPart::Internal(index) = transfer.index.part else { panic!("{transfer:?} is not internal") };
            (index, transfer.amount.units().to::<u64>())
        };
        transfers.into_iter().map(place).collect()
    }

    #[test]
    fn subtrees_that_count() {
        let none = || json!([]);
        for (why, root, expected) in [
            ("the transaction's own value is not internal", call("CALL", "0x5", none()), vec![]),
            ("a call", call("CALL", "0x0", json!([call("CALL", "0x5", none())])), vec![(0, 5)]),
            ("no value", call("CALL", "0x0", json!([call("CALL", "0x0", none())])), vec![]),
            (
                "below a delegate call",
                call("CALL", "0x0", json!([call("DELEGATECALL", "0x9", json!([call("CALL", "0x5", none())]))])),
                vec![(0, 5)],
            ),
            ("static call", call("CALL", "0x0", json!([call("STATICCALL", "0x5", none())])), vec![]),
            ("call code pays itself", call("CALL", "0x0", json!([call("CALLCODE", "0x5", none())])), vec![]),
            (
                "created with value",
                call("CALL", "0x0", json!([call("CREATE", "0x5", none()), call("CREATE2", "0x6", none())])),
                vec![(0, 5), (1, 6)],
            ),
            ("self-destruct", call("CALL", "0x0", json!([call("SELFDESTRUCT", "0x5", none())])), vec![(0, 5)]),
            (
                "failed call",
                call("CALL", "0x0", json!([failed(call("CALL", "0x5", none())), call("CALL", "0x6", none())])),
                vec![(0, 6)],
            ),
            (
                "below a failed call",
                call("CALL", "0x0", json!([failed(call("CALL", "0x0", json!([call("CALL", "0x5", none())])))])),
                vec![],
            ),
            (
                "failed transaction",
                failed(call("CALL", "0x1", json!([call("CALL", "0x5", json!([call("CALL", "0x6", none())]))]))),
                vec![],
            ),
            (
                "two in order",
                call(
                    "CALL",
                    "0x0",
                    json!([call("CALL", "0x5", json!([call("CALL", "0x6", none())])), call("CALL", "0x7", none())]),
                ),
                vec![(0, 5), (1, 6), (2, 7)],
            ),
        ] {
            assert_eq!(found(root), expected, "{why}");
        }
    }

    #[test]
    fn both_interfaces_give_the_same_places() {
        let trace = |kind: &str, call_type: &str, value: &str, at: &[u32], error: Option<&str>| {
            let action = match kind {
                "suicide" => json!({ "address": A, "refundAddress": OURS, "balance": value }),
                _ => json!({ "from": A, "to": OURS, "value": value, "callType": call_type }),
            };
            json!({ "action": action, "blockHash": B256::repeat_byte(1), "traceAddress": at, "type": kind, "error": error,
                "transactionHash": B256::ZERO, "transactionPosition": 0, "result": { "address": OURS } })
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
        let flat = places(flat(&traces, &body(), &native, &watched().read_addresses()).unwrap());
        let nested = found(call(
            "CALL",
            "0x1",
            json!([
                call("CALL", "0x2", json!([failed(call("CALL", "0x3", json!([call("CALL", "0x4", json!([]))])))])),
                call("DELEGATECALL", "0x5", json!([call("CREATE", "0x6", json!([]))])),
                call("SELFDESTRUCT", "0x7", json!([])),
            ]),
        ));
        assert_eq!(flat, nested);
        assert_eq!(flat, [(0, 2), (1, 6), (2, 7)]);
    }

    #[test]
    fn any_depth_is_read() {
        let depth = 20_000;
        let open = format!(r#"{{"type":"CALL","from":"{A}","to":"{OURS}","value":"0x1","calls":["#);
        let text = format!("{}{}", open.repeat(depth), "]}".repeat(depth));
        assert_eq!(frames(&text).unwrap().len(), depth);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in r#"[\[\]{}:,"\\a-z0é]{0,80}"#) {
            let _ = frames(&text);
        }
    }
}
