//! A request to the nodes of a chain, and the endpoints that the request may go to.

use serde::Serialize;

/// One HTTP request to the nodes of a chain, either a JSON-RPC call or a plain GET or POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The JSON-RPC method or the path. Logs and errors name the request by this text, and the health of an endpoint
    /// records under this text that the endpoint does not offer the method.
    pub(crate) method: String,
    /// The path below the URL of the endpoint; empty for JSON-RPC.
    pub(crate) path: String,
    /// The JSON body of a POST request; `None` for a GET request.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) target: Target,
}

/// The endpoints that a request may go to, each given by its index in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// The request goes to one endpoint after another, in the order of the configuration, until one gives an accepted
    /// reply.
    #[default]
    Any,
    /// The request goes to one endpoint after another, starting with the endpoint at this index, even if its newest
    /// block is far behind. An index above the last endpoint starts again at the first one. A caller that increments
    /// the index sends requests to all endpoints in turn.
    From(usize),
    /// The request goes to one endpoint after another until one gives an accepted reply, but to no endpoint of the same
    /// provider as the endpoint at this index. It starts with the operator's own node or, without such a node, with the
    /// endpoint after this index. A caller uses this target to verify a reply of the excluded endpoint independently.
    /// The pool waits for rate limits and cool-downs of the other endpoints.
    Excluding(usize),
    /// The request goes only to the endpoint at this index, and after a failure to no other endpoint. The chain check
    /// is not sent first, and the request is sent even if the endpoint lacks the role `read`. The pool waits for its
    /// rate limits, fails while it cools down, and records the result in its health. This target is for requests that
    /// the caller repeats until they succeed.
    Only(usize),
    /// The request goes only to the endpoint at this index, at once, even while the endpoint cools down. The result
    /// does not change its health. This target is for diagnosis by the operator.
    Probe(usize),
}

/// One call in the form of JSON-RPC 2.0.
#[derive(Serialize)]
struct Call<'a, P: ?Sized> {
    jsonrpc: &'static str,
    id: usize,
    method: &'a str,
    params: &'a P,
}

impl Request {
    /// Returns a JSON-RPC call.
    pub fn json_rpc_call<P: Serialize + ?Sized>(method: &str, params: &P) -> Request {
        Request::build_json_rpc_post(method, &Call { jsonrpc: "2.0", id: 0, method, params })
    }

    /// Returns one HTTP request with many JSON-RPC calls of one method. The ids of the calls are 0, 1, 2 and so on.
    pub(crate) fn json_rpc_batch<P: Serialize>(method: &str, params: &[P]) -> Request {
        let calls = params.iter().enumerate().map(|(id, params)| Call { jsonrpc: "2.0", id, method, params });
        Request::build_json_rpc_post(method, &calls.collect::<Vec<_>>())
    }

    /// Returns a GET request for a path below the URL of the endpoint.
    pub fn http_get(path: &str) -> Request {
        Request { method: path.to_owned(), path: path.to_owned(), body: None, target: Target::Any }
    }

    /// Returns a POST request with a JSON body to a path below the URL of the endpoint.
    pub fn http_post(path: &str, body: Vec<u8>) -> Request {
        Request { body: Some(body), ..Request::http_get(path) }
    }

    /// Returns a POST request whose body is one JSON-RPC call or a list of calls.
    fn build_json_rpc_post(method: &str, calls: &impl Serialize) -> Request {
        let body = serde_json::to_vec(calls).expect("parameters are strings, numbers and lists of them");
        Request { method: method.to_owned(), path: String::new(), body: Some(body), target: Target::Any }
    }

    /// Sets the method name of a request, which is the path by default. Use it for a path that contains parameters, so
    /// that the pool records all such paths under one method name.
    pub fn with_method(mut self, method: &str) -> Request {
        method.clone_into(&mut self.method);
        self
    }

    /// Sets the endpoints that the request may go to; [`Target::Any`] by default.
    pub fn with_target(mut self, target: Target) -> Request {
        self.target = target;
        self
    }
}
