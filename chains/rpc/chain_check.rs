//! The check that an endpoint is a node of the configured chain.

use serde_json::{Map, Value};

use crate::{Rejection, Reply, Request};

/// A request with a known result, which identifies the chain. The pool sends this request to each endpoint once, and
/// uses the endpoint only if the result is the expected text.
#[derive(Debug, Clone)]
pub struct ChainCheck {
    pub(crate) request: Request,
    pub(crate) expected: String,
    location: Location,
    find_error: fn(&Reply<'_>) -> Option<Rejection>,
}

/// The place of the expected text in a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    /// The result of a JSON-RPC call.
    Result,
    /// The whole body.
    Body,
    /// The last characters of the text in this field of a JSON object.
    EndOfField(String),
}

impl ChainCheck {
    /// Returns a check that expects this text as the result of a JSON-RPC call.
    pub fn expect_result(request: Request, expected: &str) -> ChainCheck {
        ChainCheck::new(request, Location::Result, expected)
    }

    /// Returns a check that expects this text, and nothing else, as the body of the reply.
    pub fn expect_body(request: Request, expected: &str) -> ChainCheck {
        ChainCheck::new(request, Location::Body, expected)
    }

    /// Returns a check that expects a JSON object whose `field` is a text that ends with `expected`.
    pub fn expect_field_ending(request: Request, field: &str, expected: &str) -> ChainCheck {
        ChainCheck::new(request, Location::EndOfField(field.to_owned()), expected)
    }

    fn new(request: Request, location: Location, expected: &str) -> ChainCheck {
        ChainCheck { request, expected: expected.to_owned(), location, find_error: |_| None }
    }

    /// Sets a function that finds the error in a reply, for nodes that report errors with status 200 and without a
    /// JSON-RPC error object.
    pub fn with_error_finder(mut self, find_error: fn(&Reply<'_>) -> Option<Rejection>) -> ChainCheck {
        self.find_error = find_error;
        self
    }

    /// Returns the part of a reply that must equal the expected text.
    pub(crate) fn extract_checked_text(&self, reply: &Reply<'_>) -> Result<String, Rejection> {
        if let Some(rejection) = (self.find_error)(reply) {
            return Err(rejection);
        }
        match &self.location {
            Location::Result => reply.parse_result::<&str>().map(str::to_owned),
            Location::Body => reply.parse_text().map(str::to_owned),
            Location::EndOfField(field) => {
                let mut object: Map<String, Value> = reply.parse_json()?;
                let Some(Value::String(text)) = object.remove(field) else {
                    return Err(Rejection::Invalid(format!("the reply has no field `{field}`")));
                };
                let end = text.len().checked_sub(self.expected.len()).and_then(|start| text.get(start..));
                Ok(end.map_or(text.clone(), str::to_owned))
            }
        }
    }
}
