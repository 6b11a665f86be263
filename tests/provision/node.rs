//! Runs the Node.js scripts in `tests/oracles` and `tests/linters`. The scripts call unchanged third-party packages, whose
//! results the tests compare with those of settled.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::{Error, Result, npm, paths};

/// The oldest supported major version of Node.js.
const MAJOR_VERSION_MIN: u32 = 20;

/// The folder of the scripts whose packages are wallets, nodes and libraries of chains.
const ORACLES: &str = "tests/oracles";
/// The folder of the scripts whose packages judge documents.
const LINTERS: &str = "tests/linters";

/// Runs `tests/oracles/{script}.mjs` with `input` on standard input and returns the JSON that it prints.
pub async fn run_node_script(script: &str, input: Value) -> Result<Value> {
    let script = script.to_owned();
    run_on_blocking_thread(move || run_node_script_blocking(&script, &input)).await
}

/// Runs `tests/linters/{script}.mjs` with `input` on standard input and returns the JSON that it prints.
pub async fn run_linter(script: &str, input: Value) -> Result<Value> {
    let script = script.to_owned();
    run_on_blocking_thread(move || run_script_of_folder(LINTERS, &script, &input)).await
}

/// Does the same as [`run_node_script`], for callers without an async runtime.
pub fn run_node_script_blocking(script: &str, input: &Value) -> Result<Value> {
    run_script_of_folder(ORACLES, script, input)
}

fn run_script_of_folder(folder: &str, script: &str, input: &Value) -> Result<Value> {
    let node = find_node()?;
    let file = stage_script(folder, script)?;
    let mut child = Command::new(node)
        .arg(&file)
        .current_dir(file.parent().expect("the path of a file has a parent"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| Error::context("starting node", cause))?;
    let mut pipe = child.stdin.take().expect("standard input is piped");
    let text = input.to_string();
    // Write on another thread, so that this process and the script do not block each other with full pipes. If the
    // script ends without reading its input, the write fails; the error is ignored, because the exit status of the
    // script is more useful.
    let writer = thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().map_err(|cause| Error::context("waiting for node", cause))?;
    writer.join().expect("writing to a pipe does not panic");

    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!(
            "{folder}/{script}.mjs failed ({}):\n{}",
            output.status,
            paths::last_lines(&stderr)
        )));
    }
    serde_json::from_str(&stdout)
        .map_err(|cause| Error::new(format!("{folder}/{script}.mjs printed invalid JSON ({cause}): {stdout}")))
}

/// Runs blocking work on another thread, so that the other tasks of a test continue.
pub(crate) async fn run_on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|cause| Error::context("running a blocking task", cause))?
}

/// Returns the Node.js named by the environment variable NODE or found on PATH. Fails when it is missing or too old.
fn find_node() -> Result<PathBuf> {
    let missing =
        format!("Node.js {MAJOR_VERSION_MIN} or newer is needed for the tests; install it or name it in NODE");
    let path = paths::find_program("NODE", "node")?.ok_or_else(|| Error::new(missing.as_str()))?;
    let output =
        Command::new(&path).arg("--version").output().map_err(|cause| Error::context(missing.as_str(), cause))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major =
        version.strip_prefix('v').and_then(|text| text.split('.').next()).and_then(|text| text.parse::<u32>().ok());
    match major {
        Some(major) if major >= MAJOR_VERSION_MIN => Ok(path),
        Some(_) | None => Err(Error::new(format!("{missing} ({} is {version:?})", path.display()))),
    }
}

/// Copies the script into the folder with the installed packages, because an ES module searches its imports in the folders
/// above itself. Returns the path of the copy.
fn stage_script(folder: &str, script: &str) -> Result<PathBuf> {
    let installed = npm::install_packages(folder)?;
    let root = paths::repository_root();
    for source in [format!("{ORACLES}/oracle.mjs"), format!("{folder}/{script}.mjs")] {
        let content = paths::read_text(&root.join(&source))?;
        let copy = installed.join(source.rsplit('/').next().unwrap_or(&source));
        if std::fs::read_to_string(&copy).ok().as_deref() != Some(content.as_str()) {
            paths::write_atomically(&copy, &content)?;
        }
    }
    Ok(installed.join(format!("{script}.mjs")))
}
