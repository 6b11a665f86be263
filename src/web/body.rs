//! Requests read leniently where nothing can go wrong and strictly elsewhere: unknown fields are ignored, a field of a
//! wrong type or a missing one is refused by its name.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

/// Longer texts are refused; no field of a surface needs more.
const TEXT_LENGTH_MAX: usize = 1000;

/// What is wrong with a request, in words for its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("the Content-Type must be application/json")]
    NotJson,
    #[error("the body is not a JSON object: {0}")]
    Malformed(String),
    #[error("`{field}` {problem}")]
    Field { field: &'static str, problem: String },
}

impl BadRequest {
    pub fn field(field: &'static str, problem: impl Into<String>) -> BadRequest {
        BadRequest::Field { field, problem: problem.into() }
    }
}

/// The fields of a request, from a JSON body or a query string.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn from_json(headers: &HeaderMap, body: &[u8]) -> Result<Fields, BadRequest> {
        if !is_json(headers) {
            return Err(BadRequest::NotJson);
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(BadRequest::Malformed("it is another kind of value".into())),
            Err(e) => Err(BadRequest::Malformed(e.to_string())),
        }
    }

    /// Of a field that is named twice, the last counts, as in JSON.
    pub fn from_query(query: Option<&str>) -> Fields {
        let pairs = url::form_urlencoded::parse(query.unwrap_or("").as_bytes());
        Fields(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect())
    }

    pub fn text(&self, field: &'static str) -> Result<&str, BadRequest> {
        self.optional_text(field)?.ok_or_else(|| BadRequest::field(field, "is missing"))
    }

    /// An empty text, and `null`, are as good as none.
    pub fn optional_text(&self, field: &'static str) -> Result<Option<&str>, BadRequest> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            // PostgreSQL stores no NUL, and no name, number or address has any other control character.
            Some(Value::String(text)) if text.chars().any(char::is_control) => {
                Err(BadRequest::field(field, "has control characters"))
            }
            Some(Value::String(text)) if text.len() > TEXT_LENGTH_MAX => Err(BadRequest::field(field, "is too long")),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(BadRequest::field(field, "must be a string"))
            }
        }
    }

    /// A JSON integer from 0 on: neither `1.0` nor `"1"`.
    pub fn integer(&self, field: &'static str) -> Result<u64, BadRequest> {
        match self.0.get(field) {
            None | Some(Value::Null) => Err(BadRequest::field(field, "is missing")),
            Some(value) => value.as_u64().ok_or_else(|| BadRequest::field(field, "must be a positive integer")),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = media_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(content_type: &'static str, body: &[u8]) -> Result<Fields, BadRequest> {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect();
        Fields::from_json(&headers, body)
    }

    #[test]
    fn only_a_json_object_is_read() {
        for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/json ; charset=UTF-8"]
        {
            assert!(read(content_type, b"{}").is_ok(), "{content_type}");
        }
        for content_type in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            assert_eq!(read(content_type, b"{}").unwrap_err(), BadRequest::NotJson, "{content_type}");
        }
        let deep = "[".repeat(100_000);
        for body in
            [&b""[..], b"{", b"[]", b"1", b"null", b"{\"a\":1e999}", b"{\"a\":\"\xff\"}", b"{} {}", deep.as_bytes()]
        {
            assert!(matches!(read("application/json", body), Err(BadRequest::Malformed(_))));
        }
    }

    #[test]
    fn integers_are_integers() {
        let read =
            |value: &str| read("application/json", format!("{{\"n\":{value}}}").as_bytes()).unwrap().integer("n").ok();
        assert_eq!((read("0"), read("7"), read("18446744073709551615")), (Some(0), Some(7), Some(u64::MAX)));
        for value in ["-1", "1.0", "1e2", "\"1\"", "true", "null", "[1]", "18446744073709551616", "-0"] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn texts_have_no_control_characters_and_an_empty_one_is_none() {
        let read = |value: &str| {
            let fields = read("application/json", format!("{{\"t\":{value}}}").as_bytes()).unwrap();
            fields.optional_text("t").map(|text| text.map(str::to_owned)).map_err(|_| ())
        };
        assert_eq!(read("\"a b\""), Ok(Some("a b".to_owned())));
        assert_eq!((read("null"), read("\"\""), read("\"  \"")), (Ok(None), Ok(None), Ok(None)));
        for value in ["\"a\\u0000b\"", "\"a\\nb\"", "1", "{}", "[]", "true"] {
            assert_eq!(read(value), Err(()), "{value}");
        }
    }

    #[test]
    fn a_query_is_read_like_a_body() {
        let fields = Fields::from_query(Some("orderNo=CO1&email=a%40example.com&email=b%2Bc%40example.com"));
        assert_eq!((fields.text("orderNo"), fields.text("email")), (Ok("CO1"), Ok("b+c@example.com")));
        assert!(Fields::from_query(None).text("orderNo").is_err());
        assert!(Fields::from_query(Some("orderNo=%00")).text("orderNo").is_err());
    }
}
