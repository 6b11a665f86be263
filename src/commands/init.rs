//! `settled init`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::PathBuf;

use crate::commands::exit::CommandError;
use crate::commands::installation::CONFIG;
use crate::commands::out::print_line;

const TEXT: &str = include_str!("init.toml");
/// User and group of the unit.
const SERVICE: &str = "settled";
/// The groups of the machine.
const GROUPS: &str = "/etc/group";

#[derive(clap::Args)]
pub struct Args {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

/// Who can read the file.
enum Readers {
    /// Its owner, who runs the daemon as well.
    Owner,
    /// Root, and the group of the unit.
    Service,
    /// Root alone, because there is no such group.
    Root,
}

pub fn run(args: &Args) -> Result<(), CommandError> {
    let path = args.config.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o640).open(&args.config) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(CommandError::failed(format!(
                "{path} exists already and was left as it is; name another one with --config"
            )));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(CommandError::failed(format!(
                "{path}: {e}; make its folder first, or name another file with --config"
            )));
        }
        Err(e) => return Err(CommandError::with_context(path, e)),
    };
    let written = file.write_all(TEXT.as_bytes()).and_then(|()| share(&file));
    let readers = written
        .and_then(|readers| file.sync_all().map(|()| readers))
        .map_err(|e| CommandError::with_context(&path, e))?;
    let readable = match readers {
        Readers::Owner => String::new(),
        Readers::Service => format!(
            " The group {SERVICE} can read it. Run what is named below as that user: what root makes in its data folder, the \
             daemon cannot open."
        ),
        Readers::Root => format!(
            " Only root can read it: when the daemon runs as another user, such as {SERVICE}, run `chgrp {SERVICE} {path}`."
        ),
    };
    let flag = if args.config.as_os_str() == CONFIG { String::new() } else { format!(" --config {path}") };
    print_line(format_args!(
        "Wrote {path}.{readable} Next:\n\
         1. `settled-signer keys create SEED` on a machine you trust, and paste what `settled-signer keys xpubs SEED` prints into it;\n\
         2. enable a chain and name your node;\n\
         3. `settled check{flag}` says what is still missing;\n\
         4. `settled migrate{flag}`, `settled admin merchant create shop{flag}`, then `settled serve{flag}`."
    ));
    Ok(())
}

/// The unit does not run as root. No secret stands in the file, only keys that show addresses: its group may read it.
fn share(file: &File) -> io::Result<Readers> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Readers::Owner);
    }
    match group(&std::fs::read_to_string(GROUPS).unwrap_or_default(), SERVICE) {
        Some(group) => fchown(file, None, Some(group)).map(|()| Readers::Service),
        None => Ok(Readers::Root),
    }
}

/// Its number, of lines such as `settled:x:998:`.
fn group(text: &str, name: &str) -> Option<u32> {
    let numbers = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)).flatten()
    });
    numbers.filter_map(|number| number.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::group;

    #[test]
    fn a_group_is_found_by_its_name() {
        let text = "root:x:0:\nsettled-ci:x:7:a,b\n# settled\nsettled:x:998:\nbad:x\n";
        assert_eq!(group(text, "settled"), Some(998));
        assert_eq!(group(text, "settle"), None);
        assert_eq!(group(text, "bad"), None);
        assert_eq!(group("", "settled"), None);
    }
}
