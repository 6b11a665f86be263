//! What an endpoint must say before it is believed anything.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Rejection, Reply, http::Request};

/// A question whose answer, a text, proves that an endpoint is a node of our chain.
#[derive(Debug, Clone)]
pub struct ChainCheck {
    /// As it is called in messages and in the table of missing methods.
    pub name: String,
    pub expected: String,
    pub(crate) request: Request,
    form: Form,
    /// Looks for an error where nodes do not say so by a status.
    error: fn(&Reply<'_>) -> Option<Rejection>,
}

/// Where in an answer the proof stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// The result of a JSON-RPC call.
    Result,
    /// The whole body.
    Body,
    /// The end of this field of a JSON object.
    EndOf(String),
}

impl ChainCheck {
    /// A JSON-RPC call whose result is `expected`.
    pub fn call<P: Serialize + ?Sized>(method: &str, params: &P, expected: &str) -> ChainCheck {
        let request = Request::call(method, params);
        ChainCheck::new(method, expected, request, Form::Result)
    }

    /// A path below which a GET finds nothing but `expected`.
    pub fn path(path: &str, expected: &str) -> ChainCheck {
        let request = Request { path: path.to_owned(), body: None };
        ChainCheck::new(path, expected, request, Form::Body)
    }

    /// A question whose answer is a JSON object with a text `field` that ends with `expected`.
    pub fn posted(path: &str, body: Vec<u8>, field: &str, expected: &str) -> ChainCheck {
        let request = Request { path: path.to_owned(), body: Some(body) };
        ChainCheck::new(path, expected, request, Form::EndOf(field.to_owned()))
    }

    fn new(name: &str, expected: &str, request: Request, form: Form) -> ChainCheck {
        ChainCheck { name: name.to_owned(), expected: expected.to_owned(), request, form, error: |_| None }
    }

    /// For nodes whose errors look like answers: `error` looks at each answer first and says what is wrong with it.
    pub fn with_errors(mut self, error: fn(&Reply<'_>) -> Option<Rejection>) -> ChainCheck {
        self.error = error;
        self
    }

    pub(crate) fn read(&self, reply: &Reply<'_>) -> Result<String, Rejection> {
        if let Some(bad) = (self.error)(reply) {
            return Err(bad);
        }
        match &self.form {
            Form::Result => reply.result::<&str>().map(str::to_owned),
            Form::Body => reply.text().map(str::to_owned),
            Form::EndOf(field) => {
                let mut answer: Map<String, Value> = reply.json()?;
                let Some(Value::String(text)) = answer.remove(field) else {
                    return Err(Rejection::Wrong(format!("no {field} in the answer")));
                };
                let end = text.len().checked_sub(self.expected.len()).and_then(|at| text.get(at..));
                Ok(end.map_or(text.clone(), str::to_owned))
            }
        }
    }
}
