//! One story, two databases.

/// `both! { async fn name(world: World) { … } }` makes the tests `name::sqlite` and `name::postgres`. The world may be
/// configured first: `async fn name(world: World = |config| …)`.
macro_rules! both {
    ($(async fn $name:ident($world:ident: World $(= $configure:expr)?) $body:block)+) => { $(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn story($world: crate::world::World) {
                let mut $world = $world;
                let _ = &mut $world;
                $body
            }

            async fn run(backend: settled::db::Backend) {
                #[allow(unused_mut, unused_assignments)]
                let mut configure: fn(&mut settled::config::Config) = |_| {};
                $( configure = $configure; )?
                story(crate::world::World::with(backend, configure).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run(settled::db::Backend::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run(settled::db::Backend::Postgres).await;
            }
        }
    )+ };
    // The same for other kinds of worlds, which have their own way to be configured.
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
                story(both!(@open $kind, settled::db::Backend::Sqlite $(, $plan)?)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                story(both!(@open $kind, settled::db::Backend::Postgres $(, $plan)?)).await;
            }
        }
    )+ };
    (@open $kind:ident, $backend:expr) => { $kind::start($backend).await };
    (@open $kind:ident, $backend:expr, $plan:expr) => { $kind::with($backend, $plan).await };
}
