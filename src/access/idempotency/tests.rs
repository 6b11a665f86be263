use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::idempotency::{self, Call, ClaimResult, KeyExpiry, StoredAnswer};
use clock::Instant;
use db::{Db, Error};

const NOW: Instant = Instant(1_770_811_200_000);
const DAY: KeyExpiry = KeyExpiry::At(NOW.plus_seconds(86_400));

/// Executes a call and returns its answer; `None` when the key was used with another request. `done` counts the
/// executions.
async fn call_once(db: &Db, call: Call, keep: KeyExpiry, done: Arc<AtomicU32>) -> Result<Option<StoredAnswer>, Error> {
    db.write("ask", move |tx| {
        Box::pin(async move {
            match idempotency::claim_key_or_find_answer(tx, NOW, keep, &call).await? {
                ClaimResult::Same(answer) => Ok(Some(answer)),
                ClaimResult::Mismatch => Ok(None),
                ClaimResult::New(claimed) => {
                    let n = done.fetch_add(1, Ordering::SeqCst);
                    let answer = StoredAnswer { status: 201, body: format!("answer {n}") };
                    claimed.store_answer(tx, &answer).await?;
                    Ok(Some(answer))
                }
            }
        })
    })
    .await
}

db::both! {
    async fn a_repeated_call_gets_the_first_answer_and_another_body_none(db: Db) {
        let done = Arc::new(AtomicU32::new(0));
        let first = call_once(&db, Call::from_request_body("s", "k", b"a"), DAY, done.clone()).await.unwrap();
        assert_eq!(first, Some(StoredAnswer { status: 201, body: "answer 0".into() }));
        assert_eq!(call_once(&db, Call::from_request_body("s", "k", b"a"), DAY, done.clone()).await.unwrap(), first);
        assert_eq!(call_once(&db, Call::from_request_body("s", "k", b"b"), DAY, done.clone()).await.unwrap(), None);
        assert_ne!(call_once(&db, Call::from_request_body("t", "k", b"a"), DAY, done.clone()).await.unwrap(), first);
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    async fn calls_at_once_do_the_work_once(db: Db) {
        let done = Arc::new(AtomicU32::new(0));
        let calls = (0..20).map(|_| call_once(&db, Call::from_request_body("s", "k", b"a"), DAY, done.clone()));
        let answers = futures_util::future::join_all(calls).await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
        assert!(answers.into_iter().all(|answer| answer.unwrap().unwrap().body == "answer 0"));
    }

    async fn a_refused_call_leaves_no_key(db: Db) {
        let refused = db.write::<(), Error, _>("refused", |tx| Box::pin(async move {
            let claim = idempotency::claim_key_or_find_answer(tx, NOW, DAY, &Call::from_request_body("s", "k", b"a")).await?;
            assert!(matches!(claim, ClaimResult::New(_)));
            Err(Error::Unsupported("refused".into()))
        })).await;
        assert!(refused.is_err());
        let done = Arc::new(AtomicU32::new(0));
        assert!(call_once(&db, Call::from_request_body("s", "k", b"b"), DAY, done).await.unwrap().is_some());
    }

    async fn keys_are_forgotten_when_their_time_is_over_but_for_those_of_money(db: Db) {
        let done = Arc::new(AtomicU32::new(0));
        for (key, keep) in [("a", DAY), ("b", DAY), ("c", KeyExpiry::Never)] {
            call_once(&db, Call::from_request_body("s", key, b""), keep, done.clone()).await.unwrap();
        }
        let forget = |at: Instant, limit| db.write::<_, Error, _>("forget", move |tx| {
            Box::pin(idempotency::delete_expired_keys(tx, at, limit))
        });
        assert_eq!(forget(NOW, 10).await, Ok(0));
        assert_eq!(forget(NOW.plus_seconds(86_400), 1).await, Ok(1));
        assert_eq!(forget(NOW.plus_seconds(999_999), 10).await, Ok(1));
        assert_eq!(forget(NOW.plus_seconds(999_999), 10).await, Ok(0));
    }
}
