//! `settled serve` under a service manager.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use db::testing::TestDatabase;
use db::{Db, Row};
use envelope::Envelope;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use url::Url;

use crate::commands::program::{Running, run, settled};

#[tokio::test]
async fn the_daemon_notifies_systemd_and_answers_the_control_socket() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settled.toml");
    let (config, data) = (file.to_str().unwrap(), folder.path().join("data"));
    run(&["init", "--config", config]).await.done();
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("/var/lib/settled", data.to_str().unwrap()).replace("127.0.0.1:8080", "127.0.0.1:0");
    std::fs::write(&file, text).unwrap();
    run(&["migrate", "--config", config]).await.done();
    run(&["admin", "merchant", "create", "shop", "--config", config]).await.done();

    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut serve = settled(&["serve", "--config", config]);
    serve.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "900000");
    let mut running = serve.spawn().unwrap();
    let hear = || {
        let mut bytes = [0; 512];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let ready = hear();
    assert!(ready.contains("READY=1"), "{ready}");
    assert!(hear().contains("WATCHDOG=1"));

    let status = run(&["status", "--config", config]).await.done();
    let base = format!("http://{}", status.split("listens on ").nth(1).unwrap().split(' ').next().unwrap());
    run(&["admin", "product", "put", "box", "--price", "0.50", "--config", config]).await.done();
    let products: serde_json::Value = reqwest::get(format!("{base}/api/products")).await.unwrap().json().await.unwrap();
    assert_eq!(products["products"][0]["slug"], "box");
    let copy = folder.path().join("copy.db");
    run(&["backup", copy.to_str().unwrap(), "--config", config]).await.done();
    assert!(copy.is_file());
    assert_eq!(run(&["serve", "--config", config]).await.code, 4, "one daemon for a folder");

    let pid = rustix::process::Pid::from_raw(i32::try_from(running.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    run(&["status", "--config", config]).await.done();

    Running::terminate(&running);
    assert!(running.wait().await.unwrap().success());
    let mut heard = hear();
    while !heard.contains("STOPPING=1") {
        heard = hear();
    }
}

/// Returns an installation on PostgreSQL with a data folder of its own, as on a second machine.
pub fn on_postgres(folder: &Path, scratch: &TestDatabase) -> String {
    let mut url = Url::parse(&scratch.config().url).unwrap();
    let password = folder.join("password");
    std::fs::write(&password, url.password().unwrap_or_default()).unwrap();
    url.set_password(None).unwrap();
    let file = folder.join("settled.toml");
    let (data, password) = (folder.join("data"), password.display());
    let data = data.display();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[data]\nfolder = \"{data}\"\n\
         [database]\nurl = \"{url}\"\npassword_file = \"{password}\"\n[rates]\nmode = \"fixed\"\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Returns an installation with a data folder of its own that uses the SQLite database in `database`.
fn on_sqlite(folder: &Path, database: &Path) -> String {
    let file = folder.join("settled.toml");
    let (data, database) = (folder.join("data"), database.display());
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[data]\nfolder = \"{}\"\n\
         [database]\nurl = \"sqlite:{database}\"\n[rates]\nmode = \"fixed\"\n",
        data.display()
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn serving(config: &str) -> (Child, String) {
    started(settled(&["serve", "--config", config])).await
}

/// Starts a daemon process and returns it with its log up to the time when it was ready.
pub async fn started(mut command: Command) -> (Child, String) {
    let mut daemon = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while !said.contains("settled listens on") {
        said = lines.next_line().await.unwrap().expect("it runs on");
    }
    // The pipe is read to its end, because a full pipe would block the daemon.
    let rest = async move { while let Ok(Some(_)) = lines.next_line().await {} };
    tasks::Tasks::default().spawn("reader", rest);
    (daemon, said)
}

async fn rows(db: &Db, sql: &'static str) -> Vec<Row> {
    db.write("look", move |tx| Box::pin(async move { tx.rows(sql, Vec::new()).await })).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_waits_until_the_first_one_has_stopped() {
    let server = tokio::task::block_in_place(provision::postgres::start_shared_cluster).unwrap();
    let scratch = TestDatabase::create_postgres(&server).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = [on_postgres(folders[0].path(), &scratch), on_postgres(folders[1].path(), &scratch)];
    // Both installations have the same envelope keys.
    let [data, copy] = folders.each_ref().map(|folder| folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    std::fs::create_dir_all(&copy).unwrap();
    Envelope::load_key_file_or_create_if_none(&data).unwrap();
    std::fs::copy(data.join("envelope.keys"), copy.join("envelope.keys")).unwrap();

    let (mut daemon, _) = serving(&first).await;
    let refused = run(&["serve", "--config", &second]).await;
    let holder = format!("process {} on ", daemon.id().unwrap());
    assert!(refused.code == 4 && refused.err.contains(&holder) && refused.err.contains("stop that one"), "{refused:?}");
    assert_eq!(run(&["migrate", "--config", &second]).await.code, 4, "no schema is changed under a daemon");
    run(&["admin", "merchant", "create", "shop", "--config", &second]).await.done();
    run(&["audit", "--config", &second]).await.done();
    assert!(run(&["check", "--config", &second]).await.done().contains("OK    database"));

    // Another session waits for the instance lock and gets it as soon as the first session ends: the first daemon stops
    // by itself.
    let db = Db::open(&scratch.config()).await.unwrap();
    let lock = "select count(*) as n from (select pg_advisory_lock(7364, 1)) as taken";
    let (taken, ()) = tokio::join!(rows(&db, lock), async {
        let queue =
            "select pid from pg_locks where locktype = 'advisory' and classid = 7364 and objid = 1 and not granted";
        while rows(&db, queue).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let end = "select pg_terminate_backend(pid) as ended from pg_stat_activity
                   where application_name like 'settled: process%' and datname = current_database()";
        assert!(!rows(&db, end).await.is_empty());
    });
    assert_eq!(taken.len(), 1);
    let ended = daemon.wait().await.unwrap();
    assert_eq!(ended.code(), Some(4), "{ended}");
    db.close().await;

    let (next, _) = serving(&second).await;
    assert_eq!(run(&["serve", "--config", &first]).await.code, 4);

    drop(next);
    let (mut last, _) = serving(&first).await;
    Running::terminate(&last);
    assert!(last.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_the_sqlite_database_of_a_running_one() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let database = folders[0].path().join("data/settled.db");
    let [first, second] = folders.each_ref().map(|folder| on_sqlite(folder.path(), &database));
    let (mut daemon, _) = serving(&first).await;
    let holder = format!("process {} on ", daemon.id().unwrap());
    for command in ["serve", "migrate"] {
        let refused = run(&[command, "--config", &second]).await;
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.err.contains(&holder) && refused.err.contains("stop that one"), "{refused:?}");
    }

    Running::terminate(&daemon);
    assert!(daemon.wait().await.unwrap().success());
    let [data, copy] = folders.each_ref().map(|folder| folder.path().join("data"));
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::copy(data.join("envelope.keys"), copy.join("envelope.keys")).unwrap();
    let (mut next, _) = serving(&second).await;
    assert_eq!(run(&["serve", "--config", &first]).await.code, 4);
    Running::terminate(&next);
    assert!(next.wait().await.unwrap().success());
}
