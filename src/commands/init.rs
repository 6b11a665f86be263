//! The command `settled init`: writes a first configuration file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::PathBuf;

use crate::commands::command_error::CommandError;
use crate::commands::installation::CONFIG;
use crate::commands::output::print_line_or_exit;

/// The text of the configuration file.
const TEXT: &str = include_str!("init.toml");
/// The name of both the user and the group of the systemd unit.
const SERVICE: &str = "settled";
/// The file that lists the machine's groups.
const GROUPS: &str = "/etc/group";

/// Selects the file to write.
#[derive(clap::Args)]
pub struct Args {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

/// The users who can read the written file.
enum Readers {
    /// Only the user who ran the command.
    Owner,
    /// Root and the members of the systemd unit's group can read the file.
    ServiceGroup,
    /// Only root can read the file, because the systemd unit's group does not exist.
    RootOnly,
}

/// Writes the configuration file and prints the next steps. Fails when the file exists.
pub fn write_config_file_and_print_next_steps(args: &Args) -> Result<(), CommandError> {
    let path = args.config.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o640).open(&args.config) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(CommandError::general_error(format!(
                "{path} exists already and was not changed; name another file with --config"
            )));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(CommandError::general_error(format!(
                "{path}: {e}; create its folder first, or name another file with --config"
            )));
        }
        Err(e) => return Err(CommandError::error_with_context(path, e)),
    };
    let written = file.write_all(TEXT.as_bytes()).and_then(|()| grant_service_group_access_if_root(&file));
    let readers = written
        .and_then(|readers| file.sync_all().map(|()| readers))
        .map_err(|e| CommandError::error_with_context(&path, e))?;
    let readable = match readers {
        Readers::Owner => String::new(),
        Readers::ServiceGroup => format!(
            " The group {SERVICE} can read it. Run the commands below as the user {SERVICE}: the daemon cannot open files that \
             root creates in its data folder."
        ),
        Readers::RootOnly => format!(
            " Only root can read it. If the daemon runs as another user, such as {SERVICE}, run `chgrp {SERVICE} {path}`."
        ),
    };
    let flag = if args.config.as_os_str() == CONFIG { String::new() } else { format!(" --config {path}") };
    print_line_or_exit(format_args!(
        "Wrote {path}.{readable} Next:\n\
         1. run `settled-signer keys create SEED` on a machine you trust, and paste the output of `settled-signer keys xpubs SEED` \
         into the file;\n\
         2. enable a chain and name your node;\n\
         3. run `settled check{flag}`, which reports what is still missing;\n\
         4. run `settled migrate{flag}`, `settled admin merchant create shop{flag}`, then `settled serve{flag}`."
    ));
    Ok(())
}

/// Grants read access to the group of the systemd unit when the command runs as root. The file has no secrets: its
/// xpubs reveal addresses, but no private keys.
fn grant_service_group_access_if_root(file: &File) -> io::Result<Readers> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Readers::Owner);
    }
    match parse_group_id(&std::fs::read_to_string(GROUPS).unwrap_or_default(), SERVICE) {
        Some(group) => fchown(file, None, Some(group)).map(|()| Readers::ServiceGroup),
        None => Ok(Readers::RootOnly),
    }
}

/// Returns the id of the group with this name from the lines of `/etc/group`, such as `settled:x:998:`.
fn parse_group_id(text: &str, name: &str) -> Option<u32> {
    let ids = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)).flatten()
    });
    ids.filter_map(|id| id.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::parse_group_id;

    #[test]
    fn a_group_is_found_by_its_name() {
        let text = "root:x:0:\nsettled-ci:x:7:a,b\n# settled\nsettled:x:998:\nbad:x\n";
        assert_eq!(parse_group_id(text, "settled"), Some(998));
        assert_eq!(parse_group_id(text, "settle"), None);
        assert_eq!(parse_group_id(text, "bad"), None);
        assert_eq!(parse_group_id("", "settled"), None);
    }
}
