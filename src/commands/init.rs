//! `settled init`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::commands::exit::Failure;
use crate::commands::out::say;
use crate::commands::place::CONFIG;

const TEXT: &str = include_str!("init.toml");

#[derive(clap::Args)]
pub struct Args {
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let path = args.config.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o640).open(&args.config) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::failed(format!(
                "{path} exists already and was left as it is; name another one with --config"
            )));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Failure::failed(format!(
                "{path}: {e}; make its folder first, or name another file with --config"
            )));
        }
        Err(e) => return Err(Failure::while_(path, e)),
    };
    file.write_all(TEXT.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| Failure::while_(path, e))?;
    let path = args.config.display();
    let flag = if args.config.as_os_str() == CONFIG { String::new() } else { format!(" --config {path}") };
    say(format_args!(
        "Wrote {path}. Next:\n\
         1. `settled-signer keys create SEED` on a machine you trust, and paste what `settled-signer keys xpubs SEED` prints into it;\n\
         2. enable a chain and name your node;\n\
         3. `settled check{flag}` says what is still missing;\n\
         4. `settled migrate{flag}`, `settled admin merchant create shop{flag}`, then `settled serve{flag}`."
    ));
    Ok(())
}
