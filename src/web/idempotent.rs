//! Executes the database transaction of a call, and repeats it after a conflict with a concurrent transaction. A call
//! with an idempotency key is executed once: when the client repeats the call, it gets the stored response of the first
//! one.
//!
//! All surfaces use this executor.

use std::fmt;

use axum::http::{HeaderMap, StatusCode};
use futures_util::future::BoxFuture;

use access::idempotency::{self, Call, ClaimResult, KEY_LENGTH_MAX, KeyExpiry, StoredAnswer};
use clock::{Clock, Instant};
use db::{Db, Tx};
use ids::Shop;

/// The request header that carries an idempotency key.
const HEADER: &str = "idempotency-key";
/// Maximum number of attempts to run a database transaction that conflicts with concurrent ones. The caller gets the
/// error of the last attempt.
const ATTEMPTS_MAX: u32 = 4;

/// The time for which an idempotency key and its response are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// The key never expires. This value is used for calls that move money.
    Forever,
    /// The key expires this many seconds after the first call.
    Seconds(i64),
}

/// The scope within which an idempotency key is unique. The same key in another scope belongs to another call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The surface that received the call, such as `checkout`.
    pub surface: &'a str,
    /// The merchant and mode whose objects the call changes.
    pub shop: Shop,
    /// The name of the operation, such as `orders`.
    pub operation: &'a str,
    /// The caller, such as `user/5`.
    pub owner: &'a str,
}

/// An idempotency key with its scope, the fingerprint of its request, and the time for which it is stored.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    call: Call,
    retention: Retention,
}

/// The response of a call, as it is stored with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// The HTTP status of the response.
    pub status: StatusCode,
    /// The body of the response, as JSON text.
    pub body: String,
}

/// The response to a call, and the value of the transaction that executed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome<T> {
    /// The response for the client.
    pub response: StoredResponse,
    /// The value that the transaction returned beside the response; `None` when nothing was executed, because the
    /// response of an earlier call with the same key was stored.
    pub executed: Option<T>,
}

/// The error for a header `Idempotency-Key` whose value is not 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {KEY_LENGTH_MAX} visible ASCII characters")]
pub struct InvalidKey;

/// The error type of an operation that [`execute_once_per_key_with_retries`] executes. The executor creates the error for a reused
/// key, and recognises errors of the database.
pub trait OperationError: From<db::Error> {
    /// Returns the error for a key that was used with another request before.
    fn key_reused_error() -> Self;

    /// Returns the database error that caused this error; `None` for all other errors.
    fn database_error(&self) -> Option<&db::Error>;
}

impl IdempotencyKey {
    /// Parses the key in the request's headers; `None` when the client sent no key. `request` is a serialisation of the
    /// request: a call with the same key and another `request` is refused.
    ///
    /// # Errors
    /// Fails when the header is not 1 to 255 visible ASCII characters.
    pub fn from_headers(
        headers: &HeaderMap,
        scope: &Scope<'_>,
        request: &[u8],
        retention: Retention,
    ) -> Result<Option<IdempotencyKey>, InvalidKey> {
        let Some(header) = headers.get(HEADER) else { return Ok(None) };
        let key = header.to_str().ok().filter(|key| (1..=KEY_LENGTH_MAX).contains(&key.len())).ok_or(InvalidKey)?;
        Ok(Some(IdempotencyKey { call: Call::from_request_body(scope.to_string(), key, request), retention }))
    }
}

/// Formats the scope as the database stores it, such as `checkout/1/live/orders/user/5`.
impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scope { surface, shop, operation, owner } = self;
        write!(f, "{surface}/{}/{}/{operation}/{owner}", shop.merchant, shop.mode.as_str())
    }
}

/// Executes a call: once per idempotency key, and always when the call has no key. `prepare` runs before each attempt
/// and does the work that must not be done inside a database transaction. `transact` runs inside the transaction, and
/// returns the response and a value for the caller. `name` is the name of the transaction in logs.
///
/// # Errors
/// Returns the error of the operation. A failed call stores no key, so the client may repeat it with the same key.
pub async fn execute_once_per_key_with_retries<P, T, E, Preparing>(
    db: &Db,
    clock: &Clock,
    name: &'static str,
    key: Option<IdempotencyKey>,
    prepare: impl Fn(Instant) -> Preparing,
    transact: impl for<'t> FnOnce(&'t mut Tx, Instant, P) -> BoxFuture<'t, Result<(StoredResponse, T), E>>
    + Clone
    + Send
    + 'static,
) -> Result<CallOutcome<T>, E>
where
    Preparing: Future<Output = Result<P, E>>,
    P: Send + 'static,
    T: Send + 'static,
    E: OperationError + Send + 'static,
{
    let mut attempt = 1;
    loop {
        let now = clock.now();
        let prepared = prepare(now).await?;
        let (key, transact) = (key.clone(), transact.clone());
        let outcome = db.write(name, move |tx| {
            Box::pin(async move {
                let Some(key) = key else {
                    let (response, value) = transact(tx, now, prepared).await?;
                    return Ok(CallOutcome { response, executed: Some(value) });
                };
                match idempotency::claim_key_or_find_answer(tx, now, key.retention.expires_at(now), &key.call).await? {
                    ClaimResult::Same(stored) => {
                        Ok(CallOutcome { response: StoredResponse::from_stored(stored)?, executed: None })
                    }
                    ClaimResult::Mismatch => Err(E::key_reused_error()),
                    ClaimResult::New(claimed) => {
                        let (response, value) = transact(tx, now, prepared).await?;
                        claimed.store_answer(tx, &response.to_stored()).await?;
                        Ok(CallOutcome { response, executed: Some(value) })
                    }
                }
            })
        });
        match outcome.await {
            Err(error) if is_database_conflict(&error) && attempt < ATTEMPTS_MAX => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn is_database_conflict<E: OperationError>(error: &E) -> bool {
    matches!(error.database_error(), Some(db::Error::Conflict(_)))
}

impl Retention {
    fn expires_at(self, now: Instant) -> KeyExpiry {
        match self {
            Retention::Forever => KeyExpiry::Never,
            Retention::Seconds(seconds) => KeyExpiry::At(now.plus_seconds(seconds)),
        }
    }
}

impl StoredResponse {
    fn from_stored(stored: StoredAnswer) -> Result<StoredResponse, db::Error> {
        let status = StatusCode::from_u16(stored.status)
            .map_err(|_| db::Error::Statement(format!("the stored status {} is not an HTTP status", stored.status)))?;
        Ok(StoredResponse { status, body: stored.body })
    }

    fn to_stored(&self) -> StoredAnswer {
        StoredAnswer { status: self.status.as_u16(), body: self.body.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use ids::{MerchantId, Mode};

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Error {
        KeyReused,
        Db(db::Error),
    }

    impl From<db::Error> for Error {
        fn from(error: db::Error) -> Error {
            Error::Db(error)
        }
    }

    impl OperationError for Error {
        fn key_reused_error() -> Error {
            Error::KeyReused
        }

        fn database_error(&self) -> Option<&db::Error> {
            match self {
                Error::Db(error) => Some(error),
                Error::KeyReused => None,
            }
        }
    }

    fn new_key(owner: &str, request: &[u8]) -> Option<IdempotencyKey> {
        let headers = [(HEADER.parse().unwrap(), "key-1".parse().unwrap())].into_iter().collect();
        let shop = Shop { merchant: MerchantId(1), mode: Mode::Live };
        let scope = Scope { surface: "checkout", shop, operation: "orders", owner };
        IdempotencyKey::from_headers(&headers, &scope, request, Retention::Forever).unwrap()
    }

    /// Executes a call whose first `conflicts` attempts fail with a conflict. `executions` counts the attempts.
    async fn execute_call(
        db: &Db,
        key: Option<IdempotencyKey>,
        conflicts: u32,
        executions: &Arc<AtomicU32>,
    ) -> Result<CallOutcome<u32>, Error> {
        let executions = executions.clone();
        let clock = Clock::manual(Instant(0));
        execute_once_per_key_with_retries(
            db,
            &clock,
            "call",
            key,
            async |_| Ok(7),
            move |_, _, number: u32| {
                Box::pin(async move {
                    let n = executions.fetch_add(1, Ordering::SeqCst) + 1;
                    if n <= conflicts {
                        return Err(db::Error::Conflict("with a concurrent transaction".into()).into());
                    }
                    Ok((StoredResponse { status: StatusCode::CREATED, body: format!("response {n}") }, number))
                })
            },
        )
        .await
    }

    fn stored_response(text: &str) -> StoredResponse {
        StoredResponse { status: StatusCode::CREATED, body: text.into() }
    }

    db::both! {
        async fn a_repeated_call_gets_the_stored_response(db: Db) {
            let executions = Arc::default();
            let first = execute_call(&db, new_key("a", b"1"), 0, &executions).await;
            assert_eq!(first, Ok(CallOutcome { response: stored_response("response 1"), executed: Some(7) }));
            let second = execute_call(&db, new_key("a", b"1"), 0, &executions).await;
            assert_eq!(second, Ok(CallOutcome { response: stored_response("response 1"), executed: None }));
            assert_eq!(execute_call(&db, new_key("a", b"2"), 0, &executions).await, Err(Error::KeyReused));
            let other_owner = execute_call(&db, new_key("b", b"2"), 0, &executions).await.unwrap();
            assert_eq!(other_owner.response, stored_response("response 2"));
            let without_key = execute_call(&db, None, 0, &executions).await.unwrap();
            assert_eq!(without_key.response, stored_response("response 3"));
        }

        async fn a_conflict_is_retried_a_bounded_number_of_times(db: Db) {
            let executions = Arc::default();
            let outcome = execute_call(&db, new_key("a", b"1"), ATTEMPTS_MAX - 1, &executions).await.unwrap();
            assert_eq!((outcome.response, outcome.executed), (stored_response("response 4"), Some(7)));
            let executions = Arc::default();
            let rejected = execute_call(&db, None, ATTEMPTS_MAX, &executions).await;
            assert!(matches!(rejected, Err(Error::Db(db::Error::Conflict(_)))), "{rejected:?}");
            assert_eq!(executions.load(Ordering::SeqCst), ATTEMPTS_MAX);
        }
    }

    #[test]
    fn a_key_is_visible_ascii_of_bounded_length() {
        let shop = Shop { merchant: MerchantId(1), mode: Mode::Live };
        let scope = Scope { surface: "checkout", shop, operation: "orders", owner: "user/5" };
        assert_eq!(scope.to_string(), "checkout/1/live/orders/user/5");
        let parse = |key: &[u8]| {
            let value = axum::http::HeaderValue::from_bytes(key).unwrap();
            let headers = [(HEADER.parse().unwrap(), value)].into_iter().collect();
            IdempotencyKey::from_headers(&headers, &scope, b"", Retention::Seconds(1)).map(|key| key.is_some())
        };
        assert_eq!(parse(b"k"), Ok(true));
        assert_eq!(parse(&[b'k'; KEY_LENGTH_MAX]), Ok(true));
        for key in [&b""[..], "é".as_bytes(), &[b'k'; KEY_LENGTH_MAX + 1]] {
            assert_eq!(parse(key), Err(InvalidKey), "{key:?}");
        }
        assert!(IdempotencyKey::from_headers(&HeaderMap::new(), &scope, b"", Retention::Forever).unwrap().is_none());
    }
}
