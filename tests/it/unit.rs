//! The systemd unit is valid and hardened. Both are checked by systemd's own tool, `systemd-analyze`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The maximum exposure score that `systemd-analyze security` may report for the unit, times ten.
const EXPOSURE_MAX: &str = "15";
/// The environment variable that skips these tests on a machine where `systemd-analyze` cannot be installed.
const SKIP: &str = "SETTLED_SKIP_SYSTEMD_ANALYZE";

/// Runs `systemd-analyze` and returns its output; `None` when it is not installed and the tests are to be skipped.
///
/// # Panics
/// Panics when `systemd-analyze` is not installed and the tests are not to be skipped.
fn run_systemd_analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && std::env::var_os(SKIP).is_some() => {
            eprintln!(
                "SKIPPED: systemd-analyze is not installed and {SKIP} is set, so the systemd unit was NOT checked"
            );
            None
        }
        Err(error) => {
            panic!("systemd-analyze: {error}; install the package `systemd`, or set {SKIP}=1 to skip this test")
        }
    }
}

fn collect_output(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_unit_is_valid() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/settled.service")).unwrap();
    // The daemon's binary is not installed where the tests run.
    let unit: String = unit
        .lines()
        .map(
            |line| {
                if line.starts_with("ExecStart=") { "ExecStart=/bin/true\n".to_owned() } else { format!("{line}\n") }
            },
        )
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("settled.service");
    fs::write(&copy, unit).unwrap();
    if let Some(output) = run_systemd_analyze(&["verify", "--man=no", copy.to_str().unwrap()]) {
        assert!(output.status.success(), "{}", collect_output(&output));
    }
}

#[test]
fn the_unit_restarts_the_daemon_after_every_end() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/settled.service")).unwrap();
    for line in
        ["Restart=always", "RestartSec=5s", "RestartSteps=5", "RestartMaxDelaySec=60s", "StartLimitIntervalSec=0"]
    {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn the_unit_is_hardened() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/settled.service");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    if let Some(output) =
        run_systemd_analyze(&["security", "--offline=true", "--no-pager", &threshold, unit.to_str().unwrap()])
    {
        assert!(output.status.success(), "{}", collect_output(&output));
    }
}
