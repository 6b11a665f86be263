//! What a node answered, read once and straight into borrowed types.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// Longest text of a node that is kept.
const MESSAGE_LENGTH_MAX: usize = 300;

/// One answer of one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Which endpoint answered, by its place in the configuration.
    pub endpoint: usize,
    pub status: u16,
    text: Text<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Text<'a> {
    Whole(&'a [u8]),
    /// An item of a batch, taken apart already.
    Item {
        result: Option<&'a RawValue>,
        error: Option<&'a RawValue>,
    },
}

/// How far a reader trusts an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    Sure(T),
    /// Possible but suspicious: used only if no other endpoint is sure.
    Doubtful(T),
}

/// Why a reader does not use an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The node says that it cannot or will not.
    Refused(Refusal),
    /// Not what was asked for, or in contradiction to what it is committed to.
    Wrong(String),
}

/// A JSON-RPC error object. Codes are useless on their own: −32000 and −32603 carry everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: i64,
    pub message: String,
    pub kind: RefusalKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The node does not offer the method.
    MethodMissing,
    /// The range or its results are too large: ask for less.
    TooLarge,
    /// Too many requests.
    Quota,
    /// The node does not know the block.
    NotThere,
    /// The node knew the block's state or history once.
    Pruned,
    Other,
}

#[derive(Deserialize)]
struct Envelope<'a, T> {
    #[serde(default = "Field::absent")]
    result: Field<T>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Tells `"result": null` from no result at all.
enum Field<T> {
    Absent,
    Present(T),
}

impl<T> Field<T> {
    fn absent() -> Field<T> {
        Field::Absent
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Field<T>, D::Error> {
        T::deserialize(deserializer).map(Field::Present)
    }
}

impl<'a> Reply<'a> {
    pub fn new(endpoint: usize, status: u16, body: &'a [u8]) -> Reply<'a> {
        Reply { endpoint, status, text: Text::Whole(body) }
    }

    /// The whole body; empty for an item of a batch.
    pub fn body(&self) -> &'a [u8] {
        match self.text {
            Text::Whole(body) => body,
            Text::Item { .. } => &[],
        }
    }

    /// The result of a JSON-RPC answer.
    pub fn result<T: Deserialize<'a>>(&self) -> Result<T, Rejection> {
        let wrong = |error: serde_json::Error| Rejection::Wrong(format!("not the expected JSON: {error}"));
        match self.text {
            Text::Whole(body) => {
                // A `null` error beside a result is what old nodes send.
                let envelope: Envelope<'a, T> = match serde_json::from_slice(body) {
                    Ok(envelope) => envelope,
                    Err(error) => return Err(refusal_in(body).map_or_else(|| wrong(error), Rejection::Refused)),
                };
                match (envelope.result, envelope.error.and_then(refusal)) {
                    (_, Some(refusal)) => Err(Rejection::Refused(refusal)),
                    (Field::Present(result), None) => Ok(result),
                    (Field::Absent, None) => Err(Rejection::Wrong("neither a result nor an error".to_owned())),
                }
            }
            Text::Item { result, error } => match (result, error.and_then(refusal)) {
                (_, Some(refusal)) => Err(Rejection::Refused(refusal)),
                (Some(result), None) => serde_json::from_str(result.get()).map_err(wrong),
                (None, None) => Err(Rejection::Wrong("neither a result nor an error".to_owned())),
            },
        }
    }

    /// The body of a plain HTTP answer that is a text and nothing but.
    pub fn text(&self) -> Result<&'a str, Rejection> {
        let not_there = matches!(self.status, 400 | 404);
        match std::str::from_utf8(self.body()).map(str::trim) {
            Ok(text) if self.status == 200 => Ok(text),
            Ok(text) => {
                let message = text.chars().filter(|c| !c.is_control()).take(MESSAGE_LENGTH_MAX).collect();
                let kind = if not_there { RefusalKind::NotThere } else { RefusalKind::Other };
                Err(Rejection::Refused(Refusal { code: i64::from(self.status), message, kind }))
            }
            Err(_) => Err(Rejection::Wrong("not a text".to_owned())),
        }
    }

    /// The body of a plain HTTP answer.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, Rejection> {
        serde_json::from_slice(self.body()).map_err(|error| Rejection::Wrong(format!("not the expected JSON: {error}")))
    }
}

/// Takes a batch answer apart: `(id, reply)` in the order in which the node sent them.
pub(crate) fn items(endpoint: usize, status: u16, body: &[u8]) -> Result<Vec<(u64, Reply<'_>)>, Rejection> {
    #[derive(Deserialize)]
    struct Item<'a> {
        id: u64,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
        #[serde(borrow, default = "Field::absent")]
        result: Field<&'a RawValue>,
    }
    let items: Vec<Item<'_>> = serde_json::from_slice(body).map_err(|error| {
        refusal_in(body)
            .map_or_else(|| Rejection::Wrong(format!("not the answer to a batch: {error}")), Rejection::Refused)
    })?;
    let mut replies = Vec::with_capacity(items.len());
    for Item { id, error, result } in items {
        let result = match result {
            Field::Present(result) => Some(result),
            Field::Absent => None,
        };
        replies.push((id, Reply { endpoint, status, text: Text::Item { result, error } }));
    }
    Ok(replies)
}

/// The time for which a gateway says that it will not answer: `… the query server is suspended for 30s`.
pub(crate) fn suspension(text: &str) -> Option<Duration> {
    let seconds = text.split_once("suspended for ")?.1.split_once('s')?.0;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// Whether a body is a JSON-RPC error, whatever HTTP status it came with.
pub(crate) fn is_refusal(body: &[u8]) -> bool {
    refusal_in(body).is_some()
}

fn refusal_in(body: &[u8]) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct Only<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    refusal(serde_json::from_slice::<Only<'_>>(body).ok()?.error)
}

/// `None` for `null`. Some gateways send a plain text instead of an object.
fn refusal(error: &RawValue) -> Option<Refusal> {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        code: i64,
        #[serde(default)]
        message: String,
        #[serde(default)]
        data: Option<Box<RawValue>>,
    }
    fn read<T: DeserializeOwned>(error: &RawValue) -> Option<T> {
        serde_json::from_str(error.get()).ok()
    }
    if error.get() == "null" {
        return None;
    }
    let (code, message) = match read::<Object>(error) {
        Some(Object { code, message, data: Some(data) }) if message.len() < MESSAGE_LENGTH_MAX => {
            (code, format!("{message} {}", data.get()))
        }
        Some(object) => (object.code, object.message),
        None => (0, read::<String>(error).unwrap_or_else(|| error.get().to_owned())),
    };
    let message: String = message.chars().filter(|c| !c.is_control()).take(MESSAGE_LENGTH_MAX).collect();
    Some(Refusal { code, kind: kind(code, &message), message })
}

/// −32005 stands for quotas and for ranges: only a text that names ranges or results asks for a smaller range.
fn kind(code: i64, message: &str) -> RefusalKind {
    let text = message.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if says(&[
        "block range",
        "range is too",
        "range too",
        "too large range",
        "range limit",
        "query returned more than",
        "too many results",
        "many logs",
        "max results",
        "response size",
        "response is too big",
        "result size",
    ]) {
        return RefusalKind::TooLarge;
    }
    if code == -32601
        || says(&[
            "method not found",
            "does not exist/is not available",
            "unsupported method",
            "method not supported",
            "method is not supported",
            "method not available",
            "method not allowed",
            "method is not whitelisted",
            "not implemented",
        ])
    {
        return RefusalKind::MethodMissing;
    }
    // 402 is how Infura says that a day's requests are used up.
    if matches!(code, -32005 | 402 | 429 | -32029)
        || says(&[
            "rate limit",
            "too many requests",
            "quota",
            "compute units",
            "request count",
            "capacity",
            "throttl",
            "payment required",
        ])
    {
        return RefusalKind::Quota;
    }
    if says(&["missing trie node", "pruned", "historical state", "state is not available", "state not available"]) {
        return RefusalKind::Pruned;
    }
    if says(&["header not found", "unknown block", "block not found", "header for hash not found", "blocknotfound"]) {
        return RefusalKind::NotThere;
    }
    RefusalKind::Other
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Rejection> {
        Reply::new(0, 200, body.as_bytes()).result()
    }

    #[test]
    fn results_and_errors_are_told_apart() {
        assert_eq!(result::<&str>(r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#), Ok("0x1"));
        assert_eq!(result::<Option<u8>>(r#"{"result":null,"error":null}"#), Ok(None));
        assert!(matches!(result::<Option<u8>>(r#"{"id":1}"#), Err(Rejection::Wrong(_))));
        assert!(matches!(result::<u8>("<html>"), Err(Rejection::Wrong(_))));
        let Err(Rejection::Refused(refusal)) =
            result::<u8>(r#"{"error":{"code":-32000,"message":"header not found"}}"#)
        else {
            panic!("an error object is a refusal")
        };
        assert_eq!((refusal.code, refusal.kind), (-32000, RefusalKind::NotThere));
        assert!(matches!(result::<u8>(r#"{"error":"daily quota used","result":null}"#), Err(Rejection::Refused(_))));
    }

    #[test]
    fn kinds_of_refusals() {
        for (code, message, expected) in [
            (-32005, "query returned more than 10000 results", RefusalKind::TooLarge),
            (-32005, "daily request count exceeded, request rate limited", RefusalKind::Quota),
            (402, "Payment Required", RefusalKind::Quota),
            (-32602, "eth_getLogs block range is too large", RefusalKind::TooLarge),
            (-32600, "You can make eth_getLogs requests with up to a 500 block range.", RefusalKind::TooLarge),
            (-32601, "Method not found", RefusalKind::MethodMissing),
            (-32000, "the method debug_traceBlockByHash does not exist/is not available", RefusalKind::MethodMissing),
            (-32000, "missing trie node 0a", RefusalKind::Pruned),
            (-32000, "nonce too low", RefusalKind::Other),
            (3, "execution reverted", RefusalKind::Other),
        ] {
            assert_eq!(kind(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn a_suspension_is_as_long_as_it_says() {
        let text = "The key exceeds the frequency limit(15), and the query server is suspended for 30s";
        assert_eq!(suspension(text), Some(Duration::from_secs(30)));
        for other in ["", "suspended for ever", "suspended for 5 minutes"] {
            assert_eq!(suspension(other), None, "{other}");
        }
    }

    #[test]
    fn batch_items_keep_their_numbers() {
        let body = br#"[{"id":1,"result":"b"},{"id":0,"error":{"code":1,"message":"no"}}]"#;
        let items = items(3, 200, body).unwrap();
        assert_eq!(items[0].0, 1);
        assert_eq!(items[0].1.result::<&str>(), Ok("b"));
        assert!(matches!(items[1].1.result::<&str>(), Err(Rejection::Refused(_))));
        assert!(matches!(
            super::items(0, 200, br#"{"error":{"code":1,"message":"no batches"}}"#),
            Err(Rejection::Refused(_))
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reply::new(0, 200, &body).result::<Vec<String>>();
            let _ = items(0, 200, &body);
        }

        #[test]
        fn any_error_is_read_without_a_panic(error in r#"[\[\]{}:,"a-z0-9é ]{0,60}"#) {
            let _ = Reply::new(0, 200, format!(r#"{{"error":{error}}}"#).as_bytes()).result::<u8>();
        }
    }
}
