//! `settled backup`, with a daemon and without one.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use db::testing::TestDatabase;
use envelope::Envelope;
use rusqlite::Connection;
use tokio::process::{Child, Command};

use crate::commands::daemon::{on_postgres, started};
use crate::commands::program::{Running, install_migrated, run, settled};

fn list_file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts that the copy is complete and readable only by its owner.
fn assert_complete_private_copy(copy: &Path) {
    assert_eq!(std::fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o600);
    let db = Connection::open(copy).unwrap();
    let merchants: i64 = db.query_row("select count(*) from merchants", [], |row| row.get(0)).unwrap();
    assert_eq!(merchants, 1);
    let sound: String = db.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

/// Asserts that wrong targets are refused. The refusals are the same with and without a daemon.
async fn assert_wrong_targets_are_refused(config: &str, folder: &Path) {
    let taken = folder.join("taken");
    std::fs::write(&taken, "mine").unwrap();
    let refused = run(&["backup", taken.to_str().unwrap(), "--config", config]).await;
    assert!(refused.code == 1 && refused.err.contains("never overwrites"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "mine");
    let dangling = folder.join("dangling");
    std::os::unix::fs::symlink(folder.join("nowhere"), &dangling).unwrap();
    assert_eq!(run(&["backup", dangling.to_str().unwrap(), "--config", config]).await.code, 1);
    let lost = folder.join("lost/copy.db");
    let refused = run(&["backup", lost.to_str().unwrap(), "--config", config]).await;
    assert!(refused.code == 1 && refused.err.contains("lost does not exist"), "{refused:?}");
    // A file that another backup is writing is left alone.
    let (part, cut) = (folder.join("cut.db.part"), folder.join("cut.db"));
    std::fs::write(&part, "half").unwrap();
    let held = std::fs::File::open(&part).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = run(&["backup", cut.to_str().unwrap(), "--config", config]).await;
    assert!(refused.code == 1 && refused.err.contains("another backup goes to the same place"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&part).unwrap(), "half");
    drop(held);
    // Nothing is written through a symbolic link.
    std::os::unix::fs::symlink(&taken, folder.join("led.db.part")).unwrap();
    let refused = run(&["backup", folder.join("led.db").to_str().unwrap(), "--config", config]).await;
    assert!(refused.code == 1 && refused.err.contains("led.db.part is there already"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "mine");
    assert_eq!(list_file_names(folder), ["cut.db.part", "dangling", "led.db.part", "taken"]);
}

/// A backup succeeds after an earlier backup to the same target was killed.
async fn a_backup_works_after_an_interrupted_one(config: &str, folder: &Path) {
    let cut = folder.join("cut.db");
    run(&["backup", cut.to_str().unwrap(), "--config", config]).await.done();
    assert_complete_private_copy(&cut);
    assert_eq!(list_file_names(folder), ["cut.db", "dangling", "led.db.part", "taken"]);
}

#[tokio::test]
async fn a_backup_without_a_daemon_reaches_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (install_migrated(folder.path()).await, folder.path().join("data"));
    run(&["admin", "merchant", "create", "shop", "--config", &config]).await.done();
    let before = list_file_names(&data);
    let target = tempfile::tempdir().unwrap();
    assert_wrong_targets_are_refused(&config, target.path()).await;
    a_backup_works_after_an_interrupted_one(&config, target.path()).await;
    let copy = folder.path().join("copy.db");
    let said = run(&["backup", copy.to_str().unwrap(), "--config", &config]).await.done();
    assert!(said.contains("copy.db is a complete copy") && said.contains("data/envelope.keys"), "{said}");
    assert_complete_private_copy(&copy);
    assert_eq!(list_file_names(&data), before);
    assert!(!folder.path().join("copy.db.part").exists());
}

/// Runs `settled serve` with a private view of `hidden`, as PrivateTmp of the systemd unit gives it.
async fn serve_without_seeing_folder(config: &str, hidden: &Path) -> (Child, String) {
    let shell = "mount -t tmpfs none \"$1\" && shift && exec \"$@\"";
    let binary = env!("CARGO_BIN_EXE_settled");
    let apart = |more: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", shell, "sh"]).arg(hidden).args(more);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let works = apart(&["true"]).stderr(Stdio::null()).status().await.is_ok_and(|status| status.success());
    if !works {
        eprintln!("no file system can be mounted here: a daemon that sees other folders was NOT checked");
        return started(settled(&["serve", "--config", config])).await;
    }
    started(apart(&[binary, "serve", "--config", config])).await
}

/// Waits until the control socket answers, because it opens after the HTTP listener.
async fn wait_for_control_socket(config: &str) {
    while run(&["status", "--config", config]).await.code != 0 {}
}

#[tokio::test]
async fn the_command_moves_the_copy_of_a_confined_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (install_migrated(folder.path()).await, folder.path().join("data"));
    run(&["admin", "merchant", "create", "shop", "--config", &config]).await.done();
    // The data folder contains copies that an earlier daemon left, and files of other programs.
    let left = format!("outgoing-backup-{}.db", uuid::Uuid::new_v4());
    let kept = ["outgoing-backup-of-monday.db", "backup.db"];
    for name in [&left, &format!("{left}.part"), kept[0], kept[1]] {
        std::fs::File::create(data.join(name)).unwrap().write_all(b"old").unwrap();
    }
    let target = tempfile::tempdir().unwrap();
    let (mut daemon, _) = serve_without_seeing_folder(&config, target.path()).await;
    wait_for_control_socket(&config).await;
    let running = list_file_names(&data);
    assert!(kept.iter().all(|name| running.contains(&(*name).to_owned())), "{running:?}");
    assert!(!running.iter().any(|name| name.contains(&left)), "{running:?}");

    assert_wrong_targets_are_refused(&config, target.path()).await;
    assert_eq!(list_file_names(&data), running, "nothing was copied for nothing");
    a_backup_works_after_an_interrupted_one(&config, target.path()).await;
    let copy = target.path().join("copy.db");
    let said = run(&["backup", copy.to_str().unwrap(), "--config", &config]).await.done();
    assert!(said.contains("copy.db is a complete copy"), "{said}");
    assert_complete_private_copy(&copy);
    assert_eq!(std::fs::metadata(&copy).unwrap().uid(), rustix::process::geteuid().as_raw());
    assert!(!target.path().join("copy.db.part").exists());
    assert_eq!(list_file_names(&data), running, "nothing is left of the daemon's copy");

    // A copy that was not fetched is removed by the next backup.
    std::fs::write(data.join(&left), "old").unwrap();
    let copy = target.path().join("second.db");
    run(&["backup", copy.to_str().unwrap(), "--config", &config]).await.done();
    assert_eq!(list_file_names(&data), running);
    Running::terminate(&daemon);
    assert!(daemon.wait().await.unwrap().success());
    assert_complete_private_copy(&copy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_postgresql_names_its_own_tools() {
    let server = tokio::task::block_in_place(provision::postgres::start_shared_cluster).unwrap();
    let scratch = TestDatabase::create_postgres(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (on_postgres(folder.path(), &scratch), folder.path().join("data"));
    std::fs::create_dir_all(&data).unwrap();
    Envelope::load_key_file_or_create_if_none(&data).unwrap();
    let copy = folder.path().join("copy.db");
    let backup = ["backup", copy.to_str().unwrap(), "--config", &config];
    let (mut daemon, _) = started(settled(&["serve", "--config", &config])).await;
    wait_for_control_socket(&config).await;
    let refused = run(&backup).await;
    assert!(refused.code == 1 && refused.err.contains("pg_dump"), "{refused:?}");
    Running::terminate(&daemon);
    assert!(daemon.wait().await.unwrap().success());
    let refused = run(&backup).await;
    assert!(refused.code == 1 && refused.err.contains("pg_dump"), "{refused:?}");
    assert!(!list_file_names(&data).iter().any(|name| name.contains("backup")));
    assert!(!copy.exists() && !folder.path().join("copy.db.part").exists());
}

#[tokio::test]
async fn a2_the_restore_command_says_what_it_did_and_an_older_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (config, data) = (install_migrated(folder.path()).await, folder.path().join("data"));
    let refused = run(&["restore", "--config", &config]).await;
    assert!(refused.code == 1 && refused.err.contains("pass `--skip N`"), "{refused:?}");
    let said = run(&["restore", "--skip", "10", "--config", &config]).await.done();
    assert!(said.contains("epoch 2") && said.contains("data-mark/addresses"), "{said}");
    let mode = std::fs::metadata(folder.path().join("data-mark/addresses")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let checked = run(&["check", "--config", &config]).await.out;
    assert!(checked.contains("OK    address mark: the database is not older"), "{checked}");
    for name in list_file_names(&data).iter().filter(|name| name.starts_with("settled.db")) {
        std::fs::remove_file(data.join(name)).unwrap();
    }
    run(&["migrate", "--config", &config]).await.done();
    let checked = run(&["check", "--config", &config]).await.out;
    assert!(checked.contains("FAIL  address mark: the database is older than"), "{checked}");
    let refused = run(&["serve", "--config", &config]).await;
    assert!(refused.code == 1 && refused.err.contains("Run `settled restore`"), "{refused:?}");
}
