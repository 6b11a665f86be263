//! The systemd unit parses and is hardened. `systemd-analyze` checks both.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The exposure that `systemd-analyze security` may report, times ten.
const EXPOSURE_MAX: &str = "15";

fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("systemd-analyze is not installed: the unit was NOT checked");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

fn says(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_unit_is_valid() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/settled.service")).unwrap();
    // The test machine need not have the binary installed.
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
    if let Some(output) = analyze(&["verify", "--man=no", copy.to_str().unwrap()]) {
        assert!(output.status.success(), "{}", says(&output));
    }
}

#[test]
fn the_unit_is_hardened() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/settled.service");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    if let Some(output) = analyze(&["security", "--offline=true", "--no-pager", &threshold, unit.to_str().unwrap()]) {
        assert!(output.status.success(), "{}", says(&output));
    }
}
