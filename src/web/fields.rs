//! The fields of a request, from a JSON body or a query string. Fields that no endpoint asks for are ignored. The error
//! for a missing field or a wrong type contains the name of the field.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

/// Maximum length of the text in a field, in bytes.
const TEXT_LENGTH_MAX: usize = 1000;

/// The reason why a request is invalid. The client gets it as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The header `Content-Type` is not `application/json`.
    #[error("the Content-Type must be application/json")]
    NotJson,
    /// The body is not a JSON object. The text is the message of the JSON parser.
    #[error("the body is not a JSON object: {0}")]
    Malformed(String),
    /// A field is missing or invalid. `problem` is the rest of a sentence that starts with the name of the field.
    #[error("`{field}` {problem}")]
    Field { field: &'static str, problem: String },
}

impl BadRequest {
    /// Returns the error for one field. `problem` is the rest of a sentence that starts with the name of the field,
    /// such as "is missing".
    pub fn for_field(field: &'static str, problem: impl Into<String>) -> BadRequest {
        BadRequest::Field { field, problem: problem.into() }
    }
}

/// The fields of a request, from a JSON body or a query string.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a JSON body.
    ///
    /// # Errors
    /// Fails when the content type is not `application/json` or the body is not a JSON object.
    pub fn from_json(headers: &HeaderMap, body: &[u8]) -> Result<Fields, BadRequest> {
        if !has_json_content_type(headers) {
            return Err(BadRequest::NotJson);
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields(fields)),
            Ok(_) => Err(BadRequest::Malformed("it is another JSON value".into())),
            Err(e) => Err(BadRequest::Malformed(e.to_string())),
        }
    }

    /// Parses a query string. When a field occurs twice, the last value counts, as in a JSON body.
    pub fn from_query(query: Option<&str>) -> Fields {
        let pairs = url::form_urlencoded::parse(query.unwrap_or("").as_bytes());
        Fields(pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect())
    }

    /// Returns the text of a required field. A field that is absent, `null` or blank counts as missing.
    pub fn required_text(&self, field: &'static str) -> Result<&str, BadRequest> {
        self.optional_nonblank_text(field)?.ok_or_else(|| BadRequest::for_field(field, "is missing"))
    }

    /// Returns the text of an optional field; `None` when it is absent, `null` or blank. A text with control characters
    /// or more than 1,000 bytes is an error, and so is a value of another type.
    pub fn optional_nonblank_text(&self, field: &'static str) -> Result<Option<&str>, BadRequest> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            // PostgreSQL cannot store a NUL character, and no field needs other control characters.
            Some(Value::String(text)) if text.chars().any(char::is_control) => {
                Err(BadRequest::for_field(field, "has control characters"))
            }
            Some(Value::String(text)) if text.len() > TEXT_LENGTH_MAX => {
                Err(BadRequest::for_field(field, "is too long"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(BadRequest::for_field(field, "must be a string"))
            }
        }
    }

    /// Returns the value of a required integer field from 0 to 2^64 - 1. `1.0` and `"1"` are not integers.
    pub fn required_unsigned_integer(&self, field: &'static str) -> Result<u64, BadRequest> {
        match self.0.get(field) {
            None | Some(Value::Null) => Err(BadRequest::for_field(field, "is missing")),
            Some(value) => value.as_u64().ok_or_else(|| BadRequest::for_field(field, "must be a positive integer")),
        }
    }
}

fn has_json_content_type(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = media_type.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn parse(content_type: &'static str, body: &[u8]) -> Result<Fields, BadRequest> {
        let headers = [(CONTENT_TYPE, HeaderValue::from_static(content_type))].into_iter().collect();
        Fields::from_json(&headers, body)
    }

    #[test]
    fn only_a_json_object_is_accepted() {
        for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/json ; charset=UTF-8"]
        {
            assert!(parse(content_type, b"{}").is_ok(), "{content_type}");
        }
        for content_type in ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            assert_eq!(parse(content_type, b"{}").unwrap_err(), BadRequest::NotJson, "{content_type}");
        }
        let deep = "[".repeat(100_000);
        for body in
            [&b""[..], b"{", b"[]", b"1", b"null", b"{\"a\":1e999}", b"{\"a\":\"\xff\"}", b"{} {}", deep.as_bytes()]
        {
            assert!(matches!(parse("application/json", body), Err(BadRequest::Malformed(_))));
        }
    }

    #[test]
    fn only_integers_are_accepted_as_integers() {
        let integer = |value: &str| {
            parse("application/json", format!("{{\"n\":{value}}}").as_bytes())
                .unwrap()
                .required_unsigned_integer("n")
                .ok()
        };
        assert_eq!((integer("0"), integer("7"), integer("18446744073709551615")), (Some(0), Some(7), Some(u64::MAX)));
        for value in ["-1", "1.0", "1e2", "\"1\"", "true", "null", "[1]", "18446744073709551616", "-0"] {
            assert_eq!(integer(value), None, "{value}");
        }
    }

    #[test]
    fn texts_have_no_control_characters_and_a_blank_text_is_absent() {
        let text = |value: &str| {
            let fields = parse("application/json", format!("{{\"t\":{value}}}").as_bytes()).unwrap();
            fields.optional_nonblank_text("t").map(|text| text.map(str::to_owned)).map_err(|_| ())
        };
        assert_eq!(text("\"a b\""), Ok(Some("a b".to_owned())));
        assert_eq!((text("null"), text("\"\""), text("\"  \"")), (Ok(None), Ok(None), Ok(None)));
        for value in ["\"a\\u0000b\"", "\"a\\nb\"", "1", "{}", "[]", "true"] {
            assert_eq!(text(value), Err(()), "{value}");
        }
    }

    #[test]
    fn a_query_string_is_parsed_like_a_body() {
        let fields = Fields::from_query(Some("orderNo=CO1&email=a%40example.com&email=b%2Bc%40example.com"));
        assert_eq!(
            (fields.required_text("orderNo"), fields.required_text("email")),
            (Ok("CO1"), Ok("b+c@example.com"))
        );
        assert!(Fields::from_query(None).required_text("orderNo").is_err());
        assert!(Fields::from_query(Some("orderNo=%00")).required_text("orderNo").is_err());
    }
}
