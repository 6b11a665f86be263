//! The reply of a node: results, errors and batches. A reply is parsed once, into types that borrow from its body.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

/// Maximum length of the message of a node's error, in characters. A longer message is cut off.
const MESSAGE_LENGTH_MAX: usize = 300;

/// The reply of one endpoint to one request.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The index in the configuration of the endpoint that sent the reply.
    pub endpoint: usize,
    /// The HTTP status of the reply.
    pub status: u16,
    content: Content<'a>,
}

/// The part of an HTTP reply that answers one request.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    /// The whole body of the HTTP reply.
    Body(&'a [u8]),
    /// The part of a reply to a JSON-RPC batch that answers one call.
    BatchItem { result: Option<&'a RawValue>, error: Option<&'a RawValue> },
}

/// The decision of the caller's closure about a reply that it does not reject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// The value is accepted as the result of the request.
    Accept(T),
    /// The value may be right, but another endpoint may know more, for example a block that this endpoint does not have
    /// yet. The value becomes the result only if no value of another endpoint is accepted.
    Fallback(T),
}

/// The reason why the caller's closure rejects a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The node replied with an error instead of a result. Such an error does not make the health of the endpoint
    /// worse.
    NodeError(NodeError),
    /// The reply is malformed, is about another object than requested, or does not match the hash or root that it must
    /// match. Such a reply makes the health of the endpoint worse.
    Invalid(String),
}

/// An error with which a node replied: a JSON-RPC error object, or an HTTP error status with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError {
    /// The code of the JSON-RPC error, or the HTTP status.
    pub code: i64,
    /// The beginning of the node's message, at most 300 characters, without control characters.
    pub message: String,
    /// The meaning of the error. It decides whether the request is sent again.
    pub kind: NodeErrorKind,
}

/// The meaning of a node's error, taken mainly from its message: nodes use the codes −32000 and −32603 for unrelated
/// errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeErrorKind {
    /// The node does not offer the method.
    MethodMissing,
    /// The requested range is too large, or the range has too many results.
    TooLarge,
    /// The node got too many requests.
    RateLimited,
    /// The node does not have the requested block or transaction.
    NotFound,
    /// The node no longer has the state or the history of the block.
    Pruned,
    /// The node replied with any other error, or with a message that is not recognised.
    Other,
}

/// The fields of a JSON-RPC reply.
#[derive(Deserialize)]
struct Envelope<'a, T> {
    #[serde(default = "Field::absent")]
    result: Field<T>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// A field of a JSON object. Unlike `Option`, this type distinguishes `null` from a missing field.
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
    /// Returns the reply of an endpoint, given by its index in the configuration.
    pub fn new(endpoint: usize, status: u16, body: &'a [u8]) -> Reply<'a> {
        Reply { endpoint, status, content: Content::Body(body) }
    }

    /// Returns the whole body, or an empty slice for an item of a batch.
    pub fn body(&self) -> &'a [u8] {
        match self.content {
            Content::Body(body) => body,
            Content::BatchItem { .. } => &[],
        }
    }

    /// Returns the result of a JSON-RPC reply.
    ///
    /// # Errors
    /// Returns the node's error object, or [`Rejection::Invalid`] if the result is not a `T`.
    pub fn parse_result<T: Deserialize<'a>>(&self) -> Result<T, Rejection> {
        match self.content {
            Content::Body(body) => {
                // Old nodes send `"error": null` together with a result.
                let envelope: Envelope<'a, T> = match serde_json::from_slice(body) {
                    Ok(envelope) => envelope,
                    Err(error) => {
                        return Err(find_json_rpc_error(body)
                            .map_or_else(|| reject_unexpected_json(error), Rejection::NodeError));
                    }
                };
                match (envelope.result, envelope.error.and_then(parse_and_classify_node_error)) {
                    (_, Some(error)) => Err(Rejection::NodeError(error)),
                    (Field::Present(result), None) => Ok(result),
                    (Field::Absent, None) => Err(Rejection::Invalid("neither a result nor an error".to_owned())),
                }
            }
            Content::BatchItem { result, error } => match (result, error.and_then(parse_and_classify_node_error)) {
                (_, Some(error)) => Err(Rejection::NodeError(error)),
                (Some(result), None) => serde_json::from_str(result.get()).map_err(reject_unexpected_json),
                (None, None) => Err(Rejection::Invalid("neither a result nor an error".to_owned())),
            },
        }
    }

    /// Returns the body of a plain-text reply with status 200, without leading and trailing white space.
    ///
    /// # Errors
    /// Returns [`Rejection::NodeError`] for another status, of kind `NotFound` for 400 and 404, and
    /// [`Rejection::Invalid`] if the body is not UTF-8.
    pub fn parse_text_of_status_200(&self) -> Result<&'a str, Rejection> {
        match std::str::from_utf8(self.body()).map(str::trim) {
            Ok(text) if self.status == 200 => Ok(text),
            Ok(text) => {
                let not_found = matches!(self.status, 400 | 404);
                let kind = if not_found { NodeErrorKind::NotFound } else { NodeErrorKind::Other };
                Err(Rejection::NodeError(NodeError {
                    code: i64::from(self.status),
                    message: clean_and_shorten_message(text),
                    kind,
                }))
            }
            Err(_) => Err(Rejection::Invalid("the body is not UTF-8 text".to_owned())),
        }
    }

    /// Returns the JSON body of a reply that is not JSON-RPC. The HTTP status is ignored.
    ///
    /// # Errors
    /// Returns [`Rejection::Invalid`] if the body is not a `T`.
    pub fn parse_json<T: Deserialize<'a>>(&self) -> Result<T, Rejection> {
        serde_json::from_slice(self.body()).map_err(reject_unexpected_json)
    }
}

/// Returns the rejection of a reply that is not the expected JSON.
fn reject_unexpected_json(error: serde_json::Error) -> Rejection {
    Rejection::Invalid(format!("not the expected JSON: {error}"))
}

/// Splits the reply to a batch into one reply for each call. Returns the id of each call with its reply, in the order
/// in which the node sent them.
pub(crate) fn split_batch_reply(endpoint: usize, status: u16, body: &[u8]) -> Result<Vec<(u64, Reply<'_>)>, Rejection> {
    #[derive(Deserialize)]
    struct Item<'a> {
        id: u64,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
        #[serde(borrow, default = "Field::absent")]
        result: Field<&'a RawValue>,
    }
    let items: Vec<Item<'_>> = serde_json::from_slice(body).map_err(|error| {
        find_json_rpc_error(body)
            .map_or_else(|| Rejection::Invalid(format!("not the reply to a batch: {error}")), Rejection::NodeError)
    })?;
    let mut replies = Vec::with_capacity(items.len());
    for Item { id, error, result } in items {
        let result = match result {
            Field::Present(result) => Some(result),
            Field::Absent => None,
        };
        replies.push((id, Reply { endpoint, status, content: Content::BatchItem { result, error } }));
    }
    Ok(replies)
}

/// Returns the time for which a gateway rejects requests, from a text such as `… the query server is suspended for
/// 30s`. Returns `None` for any other text.
pub(crate) fn parse_suspension_duration(text: &str) -> Option<Duration> {
    let seconds = text.split_once("suspended for ")?.1.split_once('s')?.0;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// Returns true if a reply body is a JSON-RPC error.
pub(crate) fn is_json_rpc_error(body: &[u8]) -> bool {
    find_json_rpc_error(body).is_some()
}

/// Returns the error of a JSON-RPC reply, or `None` if the body is not a JSON-RPC error.
fn find_json_rpc_error(body: &[u8]) -> Option<NodeError> {
    #[derive(Deserialize)]
    struct ErrorOnly<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    parse_and_classify_node_error(serde_json::from_slice::<ErrorOnly<'_>>(body).ok()?.error)
}

/// Parses the `error` field of a JSON-RPC reply. Returns `None` if the field is `null`. A text instead of an object, as
/// some gateways send it, becomes an error with code 0.
fn parse_and_classify_node_error(error: &RawValue) -> Option<NodeError> {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        code: i64,
        #[serde(default)]
        message: String,
        #[serde(default)]
        data: Option<Box<RawValue>>,
    }
    fn parse<T: DeserializeOwned>(error: &RawValue) -> Option<T> {
        serde_json::from_str(error.get()).ok()
    }
    if error.get() == "null" {
        return None;
    }
    let (code, message) = match parse::<Object>(error) {
        Some(Object { code, message, data: Some(data) }) if message.len() < MESSAGE_LENGTH_MAX => {
            (code, format!("{message} {}", data.get()))
        }
        Some(object) => (object.code, object.message),
        None => (0, parse::<String>(error).unwrap_or_else(|| error.get().to_owned())),
    };
    let message = clean_and_shorten_message(&message);
    Some(NodeError { code, kind: classify_node_error(code, &message), message })
}

/// Returns the first 300 characters of a node's message, without control characters.
fn clean_and_shorten_message(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(MESSAGE_LENGTH_MAX).collect()
}

/// Returns the kind of an error from its message or, if the message is not recognised, from its code. Nodes use code
/// −32005 for rate limits and for large ranges, so the kind is `TooLarge` only if the message mentions ranges or
/// results.
fn classify_node_error(code: i64, message: &str) -> NodeErrorKind {
    let text = message.to_ascii_lowercase();
    let contains_any = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if contains_any(&[
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
        return NodeErrorKind::TooLarge;
    }
    if code == -32601
        || contains_any(&[
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
        return NodeErrorKind::MethodMissing;
    }
    // Infura sends code 402 when the allowed requests of the day are used up.
    if matches!(code, -32005 | 402 | 429 | -32029)
        || contains_any(&[
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
        return NodeErrorKind::RateLimited;
    }
    if contains_any(&[
        "missing trie node",
        "pruned",
        "historical state",
        "state is not available",
        "state not available",
    ]) {
        return NodeErrorKind::Pruned;
    }
    if contains_any(&[
        "header not found",
        "unknown block",
        "block not found",
        "header for hash not found",
        "blocknotfound",
    ]) {
        return NodeErrorKind::NotFound;
    }
    NodeErrorKind::Other
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_result<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Rejection> {
        Reply::new(0, 200, body.as_bytes()).parse_result()
    }

    #[test]
    fn results_and_errors_are_distinguished() {
        assert_eq!(parse_result::<&str>(r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#), Ok("0x1"));
        assert_eq!(parse_result::<Option<u8>>(r#"{"result":null,"error":null}"#), Ok(None));
        assert!(matches!(parse_result::<Option<u8>>(r#"{"id":1}"#), Err(Rejection::Invalid(_))));
        assert!(matches!(parse_result::<u8>("<html>"), Err(Rejection::Invalid(_))));
        let Err(Rejection::NodeError(error)) =
            parse_result::<u8>(r#"{"error":{"code":-32000,"message":"header not found"}}"#)
        else {
            panic!("an error object is an error of the node")
        };
        assert_eq!((error.code, error.kind), (-32000, NodeErrorKind::NotFound));
        assert!(matches!(
            parse_result::<u8>(r#"{"error":"daily quota used","result":null}"#),
            Err(Rejection::NodeError(_))
        ));
    }

    #[test]
    fn errors_are_classified_by_message_and_code() {
        for (code, message, expected) in [
            (-32005, "query returned more than 10000 results", NodeErrorKind::TooLarge),
            (-32005, "daily request count exceeded, request rate limited", NodeErrorKind::RateLimited),
            (402, "Payment Required", NodeErrorKind::RateLimited),
            (-32602, "eth_getLogs block range is too large", NodeErrorKind::TooLarge),
            (-32600, "You can make eth_getLogs requests with up to a 500 block range.", NodeErrorKind::TooLarge),
            (-32601, "Method not found", NodeErrorKind::MethodMissing),
            (-32000, "the method debug_traceBlockByHash does not exist/is not available", NodeErrorKind::MethodMissing),
            (-32000, "missing trie node 0a", NodeErrorKind::Pruned),
            (-32000, "nonce too low", NodeErrorKind::Other),
            (3, "execution reverted", NodeErrorKind::Other),
        ] {
            assert_eq!(classify_node_error(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn the_duration_of_a_suspension_is_parsed() {
        let text = "The key exceeds the frequency limit(15), and the query server is suspended for 30s";
        assert_eq!(parse_suspension_duration(text), Some(Duration::from_secs(30)));
        for other in ["", "suspended for ever", "suspended for 5 minutes"] {
            assert_eq!(parse_suspension_duration(other), None, "{other}");
        }
    }

    #[test]
    fn batch_items_keep_their_ids() {
        let body = br#"[{"id":1,"result":"b"},{"id":0,"error":{"code":1,"message":"no"}}]"#;
        let items = split_batch_reply(3, 200, body).unwrap();
        assert_eq!(items[0].0, 1);
        assert_eq!(items[0].1.parse_result::<&str>(), Ok("b"));
        assert!(matches!(items[1].1.parse_result::<&str>(), Err(Rejection::NodeError(_))));
        assert!(matches!(
            split_batch_reply(0, 200, br#"{"error":{"code":1,"message":"no batches"}}"#),
            Err(Rejection::NodeError(_))
        ));
    }

    proptest! {
        #[test]
        fn any_body_is_parsed_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reply::new(0, 200, &body).parse_result::<Vec<String>>();
            let _ = split_batch_reply(0, 200, &body);
        }

        #[test]
        fn any_error_is_parsed_without_a_panic(error in r#"[\[\]{}:,"a-z0-9é ]{0,60}"#) {
            let _ = Reply::new(0, 200, format!(r#"{{"error":{error}}}"#).as_bytes()).parse_result::<u8>();
        }
    }
}
