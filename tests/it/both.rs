//! Runs each story on both databases.

/// `both! { async fn name(world: World) { … } }` makes the tests `name::sqlite` and `name::postgres`. With
/// `async fn name(world: World = |config| …)` the world is configured first (`World::with` instead of `World::start`).
macro_rules! both {
    ($(async fn $name:ident($world:ident: $kind:ident $(= $plan:expr)?) $body:block)+) => { $(
        mod $name {
            use super::*;

            async fn story($world: $kind) {
                let mut $world = $world;
                let _ = &mut $world;
                $body
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                story(both!(@open $kind, db::Backend::Sqlite $(, $plan)?)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                story(both!(@open $kind, db::Backend::Postgres $(, $plan)?)).await;
            }
        }
    )+ };
    (@open $kind:ident, $backend:expr) => { $kind::start($backend).await };
    (@open $kind:ident, $backend:expr, $plan:expr) => { $kind::with($backend, $plan).await };
}
