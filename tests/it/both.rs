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
}
