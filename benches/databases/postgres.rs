//! A PostgreSQL server that syncs every commit to disk. The server that tests share does not, so its commits would be too
//! fast for a benchmark.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sqlx::{Connection, PgConnection};

/// A running PostgreSQL server. Dropping it stops the server and deletes its data.
pub struct SyncingServer {
    folder: tempfile::TempDir,
    programs: PathBuf,
    url: String,
}

impl SyncingServer {
    /// Starts a server with the same programs as the server of the tests.
    pub async fn start() -> SyncingServer {
        let shared =
            tokio::task::block_in_place(provision::postgres::start_shared_cluster).unwrap_or_else(|e| panic!("{e}"));
        let mut session = PgConnection::connect(&shared).await.expect("the server of the tests answers");
        let programs = sqlx::query_scalar("select setting from pg_config where name = 'BINDIR'");
        let programs: String =
            programs.fetch_one(&mut session).await.expect("PostgreSQL reports the folder of its programs");
        let folder =
            tempfile::Builder::new().prefix("settled-bench-").tempdir().expect("the temporary folder is created");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("this process owns the folder");
        let mut server = SyncingServer { folder, programs: PathBuf::from(programs), url: String::new() };
        server.create();
        server
    }

    /// Returns the URL of a superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn create(&mut self) {
        let (data, password) = (self.folder.path().join("data"), uuid::Uuid::new_v4().simple().to_string());
        let file = self.folder.path().join("password");
        fs::write(&file, &password).expect("the file is writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("this process owns the file");
        if let Some((user, group)) = nobody_ids() {
            for path in [self.folder.path(), &file] {
                chown(path, Some(user), Some(group)).expect("root may change the owner of files");
            }
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = port.expect("the machine has a free port").port();
        let pwfile = format!("--pwfile={}", file.display());
        self.run("initdb", &["--username=bench", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", &pwfile]);
        let settings = format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = on\n\
             synchronous_commit = on\nshared_buffers = '256MB'\nmax_wal_size = '2GB'\n"
        );
        let file = data.join("postgresql.conf");
        let defaults = fs::read_to_string(&file).expect("initdb wrote it");
        fs::write(&file, defaults + &settings).expect("the file is writable");
        let log = self.folder.path().join("log");
        self.run("pg_ctl", &["start", "--wait", "--timeout=60", "--log", &log.display().to_string()]);
        self.url = format!("postgres://bench:{password}@127.0.0.1:{port}/postgres");
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).arg("--pgdata").arg(self.folder.path().join("data")).current_dir(self.folder.path());
        if let Some((user, group)) = nobody_ids() {
            command.uid(user).gid(group);
        }
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).status();
        assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{program}: {status:?}");
    }
}

impl Drop for SyncingServer {
    fn drop(&mut self) {
        self.run("pg_ctl", &["stop", "--mode=immediate"]);
    }
}

/// Returns the user id and group id of `nobody` when this process runs as root, because PostgreSQL refuses to run as root.
/// `None` for any other user.
fn nobody_ids() -> Option<(u32, u32)> {
    let accounts = rustix::process::geteuid().is_root().then(|| fs::read_to_string(Path::new("/etc/passwd")))?;
    let accounts = accounts.expect("Linux has a list of users");
    let line = accounts.lines().find(|line| line.starts_with("nobody:")).expect("Linux has a user `nobody`");
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().expect("user ids are numbers"));
    Some((numbers.next()?, numbers.next()?))
}
