//! Runs the programs in `tests/oracles`: thin scripts around unchanged third-party packages, which judge what settled made.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::{Error, Result, npm, paths};

const OLDEST: u32 = 20;

/// Runs `tests/oracles/{script}.mjs` with `input` and gives what it answers.
pub async fn run_script(script: &str, input: Value) -> Result<Value> {
    let script = script.to_owned();
    run_blocking(move || run_script_blocking(&script, &input)).await
}

/// The same for callers outside a runtime.
pub fn run_script_blocking(script: &str, input: &Value) -> Result<Value> {
    let node = node()?;
    let file = staged(script)?;
    let mut child = Command::new(node)
        .arg(&file)
        .current_dir(file.parent().expect("a file has a folder"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| Error::context("starting node", cause))?;
    let mut pipe = child.stdin.take().expect("the input is piped");
    let text = input.to_string();
    // On a thread of its own, so that neither side waits for the other with a full pipe. A script that ends without
    // reading breaks the pipe; its exit status tells more than that error.
    let writer = thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().map_err(|cause| Error::context("waiting for node", cause))?;
    writer.join().expect("writing to a pipe does not panic");

    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!(
            "tests/oracles/{script}.mjs failed ({}):\n{}",
            output.status,
            paths::tail(&complaint)
        )));
    }
    serde_json::from_str(&said)
        .map_err(|cause| Error::new(format!("tests/oracles/{script}.mjs answered no JSON ({cause}): {said}")))
}

/// Runs something slow without holding up the other tasks of a test.
pub(crate) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|cause| Error::context("providing a part", cause))?
}

/// The node of the variable NODE or of PATH, new enough.
fn node() -> Result<PathBuf> {
    let missing = format!("Node.js {OLDEST} or newer is needed for the tests; install it or name it in NODE");
    let path = paths::program("NODE", "node")?.ok_or_else(|| Error::new(missing.as_str()))?;
    let output =
        Command::new(&path).arg("--version").output().map_err(|cause| Error::context(missing.as_str(), cause))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major =
        version.strip_prefix('v').and_then(|text| text.split('.').next()).and_then(|text| text.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST => Ok(path),
        Some(_) | None => Err(Error::new(format!("{missing} ({} is {version:?})", path.display()))),
    }
}

/// The script beside the installed packages: an ES module looks for its imports in the folders above itself.
fn staged(script: &str) -> Result<PathBuf> {
    let installed = npm::install("tests/oracles")?;
    let sources = paths::repository().join("tests/oracles");
    for file in ["oracle.mjs", &format!("{script}.mjs")] {
        let content = paths::read(&sources.join(file))?;
        let copy = installed.join(file);
        if std::fs::read_to_string(&copy).ok().as_deref() != Some(content.as_str()) {
            paths::write(&copy, &content)?;
        }
    }
    Ok(installed.join(format!("{script}.mjs")))
}
