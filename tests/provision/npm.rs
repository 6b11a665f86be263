//! Installs the packages of a `package-lock.json` once for all test processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, Result, paths};

/// Returns the folder that contains `node_modules` for `source/package-lock.json`. The first caller installs the packages;
/// others wait for it. Install scripts of packages do not run.
pub fn install_packages(source: &str) -> Result<PathBuf> {
    let source = paths::repository_root().join(source);
    let (package, lock) =
        (paths::read_text(&source.join("package.json"))?, paths::read_text(&source.join("package-lock.json"))?);
    let name = paths::fingerprint(&[&package, &lock]);
    let npm = paths::create_cache_folder("npm")?;
    let _installing = paths::lock_exclusive(&npm.join(format!("{name}.lock")))?;

    let folder = paths::create_cache_folder(&format!("npm/{name}"))?;
    let marker = folder.join("installed");
    if marker.is_file() {
        return Ok(folder);
    }
    paths::write_atomically(&folder.join("package.json"), &package)?;
    paths::write_atomically(&folder.join("package-lock.json"), &lock)?;
    eprintln!("provision: installing the packages of {} with npm, once", source.display());
    run_npm_ci(&folder, &npm.join(format!("{name}.log")))?;
    paths::write_atomically(&marker, "")?;
    Ok(folder)
}

fn run_npm_ci(folder: &Path, log: &Path) -> Result<()> {
    let output = fs::File::create(log).map_err(|cause| Error::context(format!("creating {}", log.display()), cause))?;
    let errors = output.try_clone().map_err(|cause| Error::context("sharing a log file", cause))?;
    let status = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .map_err(|cause| Error::new(format!("cannot run npm ({cause}); install Node.js 20 or newer with npm")))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "npm could not install the packages of {} ({status}); is the npm registry reachable? The end of its output in {}:\n{}",
        folder.display(),
        log.display(),
        paths::last_lines(&paths::read_text(log)?)
    )))
}
