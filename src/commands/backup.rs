//! `settled backup TO`. A service may see other folders under the same name, or may not write there: so the copy is made in
//! the data folder, and whoever asked takes it from there to where it is wanted. Without a daemon it is no other way, because
//! SQLite opens by name what it copies to, and where others may write a name can be anything.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::{info, warn};
use uuid::Uuid;

use crate::commands::control::{self, Answer, Command, Context, Executor};
use crate::commands::exit::CommandError;
use crate::commands::installation::Installation;
use crate::commands::out::print_line;

/// The copy is consistent and complete, or not there. The keys that encrypt goods at rest (`envelope.keys` in the data
/// folder) are not in it: keep a copy of them somewhere else, because without them the goods cannot be read. The data folder
/// needs room for a second copy meanwhile.
#[derive(clap::Args)]
pub struct Args {
    /// The file to make; an existing one is never overwritten.
    to: PathBuf,
    #[command(flatten)]
    installation: Installation,
}

/// A copy in the data folder. It is no path: root takes it and removes it, and shall not do so with whatever file a daemon
/// names.
#[derive(Serialize, Deserialize)]
pub struct Copied {
    id: Uuid,
}

const PREFIX: &str = "outgoing-backup-";
const SUFFIX: &str = ".db";
/// What the name of a file ends with that is not complete yet.
const PART: &str = ".part";

impl Copied {
    pub fn file_name(&self) -> String {
        format!("{PREFIX}{}{SUFFIX}", self.id)
    }

    /// Whether a file of the data folder is such a copy, complete or not.
    fn is_named(file: &str) -> bool {
        let name = file.strip_suffix(PART).unwrap_or(file);
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        id.is_some_and(|id| id.parse::<Uuid>().is_ok())
    }
}

pub async fn run(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load()?;
    let target = Target::reserve(&args.to)?;
    let copied = match control::executor(&config).await? {
        Executor::Ours(offline) => {
            let copied = execute(&offline.context).await;
            offline.close().await;
            copied.map_err(CommandError::failed)?
        }
        Executor::Daemon => match control::ask_daemon(&config.data.folder, &Command::Backup).await? {
            Answer::Copied(copied) => copied,
            Answer::Said(_) | Answer::Rescanned(_) | Answer::Order(_) => {
                return Err(CommandError::failed("the daemon answered something else than a copy"));
            }
        },
    };
    target.take(&config.data.folder.join(copied.file_name()))?;
    let keys = config.data.folder.join(envelope::FILE_NAME);
    let keys = match keys.exists() {
        true => format!("{}: keep a copy of that file elsewhere", keys.display()),
        false => {
            format!("the keys that the daemon is passed as {}: keep a copy of them elsewhere", envelope::FILE_NAME)
        }
    };
    let path = target.path.display();
    print_line(format_args!("{path} is a complete copy of the database. Goods in it can be read only with {keys}."));
    Ok(())
}

/// By whoever holds the data folder. One at a time: they would fill the disk together, and what an earlier one left is removed first.
pub async fn execute(context: &Context) -> Result<Copied, String> {
    static COPYING: Mutex<()> = Mutex::const_new(());
    let Ok(_only) = COPYING.try_lock() else {
        return Err("another backup is being made; ask again when it is done".into());
    };
    let folder = &context.config.data.folder;
    sweep(folder);
    let copied = Copied { id: Uuid::new_v4() };
    let made = context.db.backup(&folder.join(copied.file_name())).await;
    if let Err(error) = made {
        sweep(folder);
        return Err(error.to_string());
    }
    Ok(copied)
}

/// Removes copies that nobody took, and what is left of those that were never complete.
pub fn sweep(folder: &Path) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return warn!("old copies of the database cannot be looked for: {error}"),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(Copied::is_named) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Ok(()) => info!("{}, a copy of the database that nobody took, was removed", name.display()),
            Err(error) => warn!("{}, an old copy of the database, cannot be removed: {error}", name.display()),
        }
    }
}

/// Where the copy shall be. While it is not complete it is beside that under another name, which goes when this is dropped.
struct Target {
    path: PathBuf,
    folder: PathBuf,
    part: PathBuf,
    file: File,
}

impl Target {
    /// Before anything is copied, so that nobody waits for a copy that has no place.
    fn reserve(to: &Path) -> Result<Target, CommandError> {
        let path = std::path::absolute(to).map_err(|e| CommandError::with_context(to.display(), e))?;
        match fs::symlink_metadata(&path) {
            Ok(_) => return Err(Target::taken(&path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CommandError::with_context(path.display(), error)),
        }
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut part = OsString::from(&path);
        part.push(PART);
        let part = PathBuf::from(part);
        let file = Target::make(&folder, &part)?;
        Ok(Target { path, folder, part, file })
    }

    fn make(folder: &Path, part: &Path) -> Result<File, CommandError> {
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
        let made = match create() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Target::clear(part)?;
                create()
            }
            made => made,
        };
        let cannot = |error| CommandError::with_context(format!("{} cannot be made", part.display()), error);
        let file = match made {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(Target::in_use(part)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(CommandError::failed(format!("the folder {} does not exist", folder.display())));
            }
            Err(error) => return Err(cannot(error)),
        };
        match hold(&file).map_err(cannot)? {
            Held::Ours | Held::Unknown => Ok(file),
            Held::Another => Err(Target::in_use(part)),
        }
    }

    /// Removes what a backup left that was cut short: its process is gone, and its lock with it. It is not written to, because
    /// it may be another user's.
    fn clear(part: &Path) -> Result<(), CommandError> {
        let in_the_way = || {
            let why = "it is no file that a backup left, or nobody can tell; when no backup runs, remove it";
            CommandError::failed(format!("{} is there already: {why}", part.display()))
        };
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let left = match rustix::fs::open(part, flags, Mode::empty()) {
            Ok(left) => File::from(left),
            Err(Errno::NOENT) => return Ok(()),
            Err(_) => return Err(in_the_way()),
        };
        let failed = |error: io::Error| CommandError::with_context(part.display(), error);
        let opened = left.metadata().map_err(failed)?;
        if !opened.is_file() {
            return Err(in_the_way());
        }
        match hold(&left).map_err(failed)? {
            Held::Ours => {}
            Held::Another => return Err(Target::in_use(part)),
            Held::Unknown => return Err(in_the_way()),
        }
        // Whoever held it may have completed it meanwhile: then it has another name, and this one is somebody else's.
        let found = fs::symlink_metadata(part).map_err(failed)?;
        if (found.dev(), found.ino()) != (opened.dev(), opened.ino()) {
            return Err(Target::in_use(part));
        }
        fs::remove_file(part).map_err(failed)
    }

    fn in_use(part: &Path) -> CommandError {
        CommandError::failed(format!("another backup goes to the same installation: it writes {}", part.display()))
    }

    fn taken(path: &Path) -> CommandError {
        CommandError::failed(format!("{} exists already; a backup never overwrites", path.display()))
    }

    /// Brings the copy here; there is nothing left of it afterwards, however this ends.
    fn take(&self, copy: &Path) -> Result<(), CommandError> {
        let failed = |error: io::Error| {
            CommandError::with_context(format!("{} cannot be copied to {}", copy.display(), self.part.display()), error)
        };
        let brought = self.bring(copy).map_err(failed);
        match fs::remove_file(copy) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("settled: {} is left behind: {error}", copy.display());
            }
            Ok(()) | Err(_) => {}
        }
        brought?;
        self.name()
    }

    fn bring(&self, copy: &Path) -> io::Result<()> {
        // The folder is another user's: no link of that user leads elsewhere, and nothing there keeps us waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut from = File::from(rustix::fs::open(copy, flags, Mode::empty())?);
        let found = from.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let brought = io::copy(&mut from, &mut &self.file)?;
        if brought != found.len() {
            return Err(io::Error::other(format!("{brought} of {} bytes were read", found.len())));
        }
        self.file.sync_all()
    }

    /// Complete from here on, and durable.
    fn name(&self) -> Result<(), CommandError> {
        let failed =
            |error: io::Error| CommandError::with_context(format!("{} cannot be made", self.path.display()), error);
        match rustix::fs::renameat_with(CWD, &self.part, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Target::taken(&self.path)),
            // Not every file system knows how to rename without replacing.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if self.path.try_exists().map_err(failed)? {
                    return Err(Target::taken(&self.path));
                }
                fs::rename(&self.part, &self.path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error.into())),
        }
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

enum Held {
    Ours,
    Another,
    /// The file system knows no locks.
    Unknown,
}

/// Until the file is closed, also by the end of the process.
fn hold(file: &File) -> io::Result<Held> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Held::Ours),
        Err(Errno::WOULDBLOCK) => Ok(Held::Another),
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Held::Unknown),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("settled: {} is left behind: {error}", self.part.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}
