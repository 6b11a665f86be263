//! Runs the Python scripts in `tests/oracles`: thin wrappers around unchanged third-party packages, in a virtual environment
//! with the versions of `requirements.txt`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::{Error, Result, node::run_on_blocking_thread, paths};

/// Runs `tests/oracles/{script}.py` with `input` on standard input and returns the JSON that it prints.
pub async fn run_python_script(script: &str, input: Value) -> Result<Value> {
    let script = script.to_owned();
    run_on_blocking_thread(move || run_python_script_blocking(&script, &input)).await
}

fn run_python_script_blocking(script: &str, input: &Value) -> Result<Value> {
    let python = install_environment()?.join("bin/python");
    let file = paths::repository_root().join(format!("tests/oracles/{script}.py"));
    let mut child = Command::new(python)
        // `-I` is isolated mode: Python ignores packages of the user and the folder of the script.
        .arg("-I")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| Error::context("starting python", cause))?;
    let mut pipe = child.stdin.take().expect("standard input is piped");
    let text = input.to_string();
    let writer = thread::spawn(move || drop(pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().map_err(|cause| Error::context("waiting for python", cause))?;
    writer.join().expect("writing to a pipe does not panic");
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = paths::last_lines(&stderr);
        return Err(Error::new(format!("tests/oracles/{script}.py failed ({}):\n{stderr}", output.status)));
    }
    serde_json::from_str(&stdout)
        .map_err(|cause| Error::new(format!("tests/oracles/{script}.py printed invalid JSON ({cause}): {stdout}")))
}

/// Returns the folder of the virtual environment. The first caller creates it; others wait for it.
fn install_environment() -> Result<PathBuf> {
    let requirements = paths::repository_root().join("tests/oracles/requirements.txt");
    let name = paths::fingerprint(&[&paths::read_text(&requirements)?]);
    let all = paths::create_cache_folder("python")?;
    let _installing = paths::lock_exclusive(&all.join(format!("{name}.lock")))?;
    let folder = all.join(&name);
    let marker = folder.join("installed");
    if marker.is_file() {
        return Ok(folder);
    }
    eprintln!("provision: installing the packages of {} with pip, once", requirements.display());
    let log = all.join(format!("{name}.log"));
    let missing = "Python 3.10 or newer with venv is needed for the tests; install it or name it in PYTHON";
    let python = paths::find_program("PYTHON", "python3")?.ok_or_else(|| Error::new(missing))?;
    run_logged(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder), &log)?;
    let install = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "-r"];
    run_logged(Command::new(folder.join("bin/python")).args(install).arg(&requirements), &log)?;
    paths::write_atomically(&marker, "")?;
    Ok(folder)
}

/// Runs a command and writes its output to `log`.
fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let output = fs::File::create(log).map_err(|cause| Error::context(format!("creating {}", log.display()), cause))?;
    let errors = output.try_clone().map_err(|cause| Error::context("sharing a log file", cause))?;
    let status = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    let status = status.map_err(|cause| Error::context("running python", cause))?;
    if status.success() {
        return Ok(());
    }
    let output = paths::read_text(log)?;
    let output = paths::last_lines(&output);
    Err(Error::new(format!(
        "the packages of tests/oracles/requirements.txt could not be installed ({status}); is PyPI reachable? The end of \
         its output in {}:\n{output}",
        log.display()
    )))
}
