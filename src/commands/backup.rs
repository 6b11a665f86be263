//! The command `settled backup TO`. The daemon may not be able to write to the target folder, or may see another folder
//! at that path (systemd's `PrivateTmp`). So the daemon makes the copy in the data folder, and the command moves the
//! copy to the target. Without a daemon the command also makes the copy in the data folder: SQLite opens the copy by
//! its name, and in a target folder where other users can write, they could replace the copy by a link.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::{info, warn};
use uuid::Uuid;

use crate::commands::command_error::CommandError;
use crate::commands::context::Context;
use crate::commands::installation::Installation;
use crate::commands::operation::{Executor, Operation, execute_in_daemon, lock_and_open_or_choose_daemon};
use crate::commands::output::print_line_or_exit;

/// The target of a backup. The backup is consistent and complete, or the target file does not exist. The backup does
/// not contain the keys that encrypt goods (`envelope.keys` in the data folder). The operator must keep a copy of these
/// keys elsewhere, because the goods cannot be decrypted without them. During the backup the data folder needs space
/// for a second copy of the database.
#[derive(clap::Args)]
pub struct Args {
    /// The file to create; an existing file is never overwritten.
    to: PathBuf,
    #[command(flatten)]
    installation: Installation,
}

/// The operation that copies the database to a new file in the data folder. The command then moves this file to its
/// target.
#[derive(Serialize, Deserialize)]
pub struct CopyDatabase;

/// A copy of the database in the data folder. It is identified by an id and not by a path: the command, which may run
/// as root, moves and removes the file that the daemon names, and the daemon must not be able to name any other file.
#[derive(Serialize, Deserialize)]
pub struct BackupFile {
    id: Uuid,
}

const PREFIX: &str = "outgoing-backup-";
const SUFFIX: &str = ".db";
/// The file name suffix of an incomplete copy.
const PART: &str = ".part";

impl BackupFile {
    fn file_name(&self) -> String {
        format!("{PREFIX}{}{SUFFIX}", self.id)
    }

    /// Returns true when `file` is the name of a complete or incomplete copy.
    fn is_backup_file_name(file: &str) -> bool {
        let name = file.strip_suffix(PART).unwrap_or(file);
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        id.is_some_and(|id| id.parse::<Uuid>().is_ok())
    }
}

/// Copies the database to the target file, which must not exist.
pub async fn back_up_database_to_target(args: Args) -> Result<(), CommandError> {
    let config = args.installation.load_config()?;
    let target = BackupTarget::check_absent_and_create_part_file(&args.to)?;
    let copy = match lock_and_open_or_choose_daemon(&config).await? {
        Executor::ThisProcess(offline) => {
            let copy = CopyDatabase.execute(&offline.context).await;
            offline.close().await;
            copy.map_err(CommandError::general_error)?
        }
        Executor::Daemon => execute_in_daemon(&config.data.folder, &CopyDatabase).await?,
    };
    target.move_copy_to_target(&config.data.folder.join(copy.file_name()))?;
    let keys = config.data.folder.join(envelope::FILE_NAME);
    let keys = match keys.exists() {
        true => format!("{}: keep a copy of that file elsewhere", keys.display()),
        false => format!(
            "the keys that systemd passes to the daemon as {}: keep a copy of them elsewhere",
            envelope::FILE_NAME
        ),
    };
    let path = target.path.display();
    print_line_or_exit(format_args!(
        "{path} is a complete copy of the database and was verified. Goods in it can be read only with {keys}."
    ));
    Ok(())
}

impl Operation for CopyDatabase {
    const NAME: &'static str = "backup";
    type Context = Context;
    type Output = BackupFile;

    /// Copies the database. Only one copy is made at a time, because two copies could fill the disk. Leftovers of
    /// earlier backups are removed first.
    async fn execute(self, context: &Context) -> Result<BackupFile, String> {
        static RUNNING: Mutex<()> = Mutex::const_new(());
        let Ok(_running) = RUNNING.try_lock() else {
            return Err("another backup is running; repeat the command when it is done".into());
        };
        let folder = &context.config.data.folder;
        remove_leftover_backups(folder);
        let copy = BackupFile { id: Uuid::new_v4() };
        if let Err(error) = context.db.backup(&folder.join(copy.file_name())).await {
            remove_leftover_backups(folder);
            return Err(error.to_string());
        }
        Ok(copy)
    }
}

/// Removes all complete and incomplete copies that earlier backups left in the data folder. Failures are only logged.
pub fn remove_leftover_backups(folder: &Path) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return warn!("the data folder cannot be searched for leftover backups: {error}"),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(BackupFile::is_backup_file_name) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Ok(()) => info!("the leftover backup {} was removed", name.display()),
            Err(error) => warn!("the leftover backup {} cannot be removed: {error}", name.display()),
        }
    }
}

/// The target file of a backup. Until the file is complete, it has a temporary name in the same folder. When the value
/// is dropped, a file that still has the temporary name is removed.
struct BackupTarget {
    path: PathBuf,
    folder: PathBuf,
    /// The path of the incomplete file.
    part: PathBuf,
    /// The incomplete file, open and locked.
    file: File,
}

impl BackupTarget {
    /// Refuses a target that exists, and creates the incomplete file beside it. This happens before the database is
    /// copied, so that a wrong target fails immediately.
    fn check_absent_and_create_part_file(to: &Path) -> Result<BackupTarget, CommandError> {
        let path = std::path::absolute(to).map_err(|e| CommandError::error_with_context(to.display(), e))?;
        match fs::symlink_metadata(&path) {
            Ok(_) => return Err(BackupTarget::target_exists_error(&path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(CommandError::error_with_context(path.display(), error)),
        }
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut part = OsString::from(&path);
        part.push(PART);
        let part = PathBuf::from(part);
        let file = BackupTarget::create_part_file_locked_if_supported(&folder, &part)?;
        Ok(BackupTarget { path, folder, part, file })
    }

    fn create_part_file_locked_if_supported(folder: &Path, part: &Path) -> Result<File, CommandError> {
        let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(part);
        let created = match create() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                BackupTarget::remove_abandoned_part_file(part)?;
                create()
            }
            created => created,
        };
        let failed = |error| CommandError::error_with_context(format!("{} cannot be created", part.display()), error);
        let file = match created {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(BackupTarget::target_in_use_error(part));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(CommandError::general_error(format!("the folder {} does not exist", folder.display())));
            }
            Err(error) => return Err(failed(error)),
        };
        match try_lock_part_file(&file).map_err(failed)? {
            PartFileLock::Acquired | PartFileLock::Unsupported => Ok(file),
            PartFileLock::HeldByAnother => Err(BackupTarget::target_in_use_error(part)),
        }
    }

    /// Removes the incomplete file of a backup whose process has ended, which shows in the file not being locked. Fails
    /// when the file is locked, when it is not a regular file, and when the file system has no locks. The file is not
    /// reused, because it may belong to another user.
    fn remove_abandoned_part_file(part: &Path) -> Result<(), CommandError> {
        let in_the_way = || {
            CommandError::general_error(format!(
                "{} is there already, and it may not be the rest of a backup; when no backup runs, remove it",
                part.display()
            ))
        };
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let abandoned = match rustix::fs::open(part, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(()),
            Err(_) => return Err(in_the_way()),
        };
        let failed = |error: io::Error| CommandError::error_with_context(part.display(), error);
        let opened = abandoned.metadata().map_err(failed)?;
        if !opened.is_file() {
            return Err(in_the_way());
        }
        match try_lock_part_file(&abandoned).map_err(failed)? {
            PartFileLock::Acquired => {}
            PartFileLock::HeldByAnother => return Err(BackupTarget::target_in_use_error(part)),
            PartFileLock::Unsupported => return Err(in_the_way()),
        }
        // Another process may have completed and renamed its backup before this process locked the file. A third
        // process may then have created a new file with the same name.
        let named = fs::symlink_metadata(part).map_err(failed)?;
        if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
            return Err(BackupTarget::target_in_use_error(part));
        }
        fs::remove_file(part).map_err(failed)
    }

    fn target_in_use_error(part: &Path) -> CommandError {
        CommandError::general_error(format!("another backup goes to the same place: it writes {}", part.display()))
    }

    fn target_exists_error(path: &Path) -> CommandError {
        CommandError::general_error(format!("{} exists already; a backup never overwrites a file", path.display()))
    }

    /// Moves the copy from the data folder to the target. The copy is removed from the data folder even when the move
    /// fails.
    fn move_copy_to_target(&self, copy: &Path) -> Result<(), CommandError> {
        let failed = |error: io::Error| {
            CommandError::error_with_context(
                format!("{} cannot be copied to {}", copy.display(), self.part.display()),
                error,
            )
        };
        let copied = self.copy_into_part_file_and_verify(copy).map_err(failed);
        match fs::remove_file(copy) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("settled: {} cannot be removed: {error}", copy.display());
            }
            Ok(()) | Err(_) => {}
        }
        copied?;
        self.rename_without_overwriting_and_sync()
    }

    fn copy_into_part_file_and_verify(&self, copy: &Path) -> io::Result<()> {
        // The data folder may belong to another user. So a link in it is not followed, and a pipe must not block the
        // command.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::open(copy, flags, Mode::empty())?);
        let metadata = source.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let copied = io::copy(&mut source, &mut &self.file)?;
        if copied != metadata.len() {
            return Err(io::Error::other(format!("{copied} of {} bytes were read", metadata.len())));
        }
        self.file.sync_all()?;
        self.read_back_and_compare(source)
    }

    /// Reads the written file back and compares it with the source. The bytes come from the disk only if the kernel
    /// drops its cached copy of them.
    fn read_back_and_compare(&self, mut source: File) -> io::Result<()> {
        // Ask the kernel to drop its cached copy of the file. If the kernel ignores this, the source is compared with
        // the cached copy.
        let _ignored = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
        source.rewind()?;
        let (mut source, mut written) = (BufReader::new(source), BufReader::new(&self.file));
        written.rewind()?;
        loop {
            let (expected, found) = (source.fill_buf()?, written.fill_buf()?);
            let length = expected.len().min(found.len());
            if expected[..length] != found[..length] || (length == 0 && expected.len() != found.len()) {
                return Err(io::Error::other("the bytes that were read back differ from those that were written"));
            }
            if length == 0 {
                return Ok(());
            }
            source.consume(length);
            written.consume(length);
        }
    }

    /// Renames the complete file to its final name and syncs the folder, so that the name survives a crash.
    fn rename_without_overwriting_and_sync(&self) -> Result<(), CommandError> {
        let failed = |error: io::Error| {
            CommandError::error_with_context(format!("{} cannot be created", self.path.display()), error)
        };
        match rustix::fs::renameat_with(CWD, &self.part, CWD, &self.path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(BackupTarget::target_exists_error(&self.path)),
            // Some file systems do not support a rename that never replaces a file. There, look first, then rename.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if self.path.try_exists().map_err(failed)? {
                    return Err(BackupTarget::target_exists_error(&self.path));
                }
                fs::rename(&self.part, &self.path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error.into())),
        }
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// The result of trying to lock a file.
enum PartFileLock {
    Acquired,
    HeldByAnother,
    /// The file system does not support locks.
    Unsupported,
}

/// Tries to lock the file until it is closed or the process ends. Does not wait for a lock that another process holds.
fn try_lock_part_file(file: &File) -> io::Result<PartFileLock> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(PartFileLock::Acquired),
        Err(Errno::WOULDBLOCK) => Ok(PartFileLock::HeldByAnother),
        Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(PartFileLock::Unsupported),
        Err(error) => Err(error.into()),
    }
}

impl Drop for BackupTarget {
    fn drop(&mut self) {
        match fs::remove_file(&self.part) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("settled: {} cannot be removed: {error}", self.part.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}
