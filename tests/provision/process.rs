//! A server that lives as long as its handle and never longer than the test process, however that one dies.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{Error, Result, paths};

/// How long a server may take until it says that it is ready; generous, for a machine busy with a build.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long all threads of a server may take until they stand.
const FREEZE_LIMIT: Duration = Duration::from_secs(20);

/// Replaces itself by the server, after leaving a guard behind: the guard's input is a pipe that only the test process
/// holds open, so a test process that is killed without a chance to clean up still takes its servers along.
const GUARDED: &str = "exec 3<&0; { read -r _ <&3; kill -9 -$$; } >/dev/null 2>&1 & exec \"$@\" 3<&- </dev/null";

/// A running server; dropping it kills the server and what the server started.
pub struct ServerProcess {
    child: Child,
    log: PathBuf,
    /// An error message named the log, so it stays.
    quoted: AtomicBool,
}

impl ServerProcess {
    /// Starts `command`, writes its output to `log` and waits for a line in which `ready` finds what it looks for.
    pub fn start<T: Send + 'static>(
        command: &[String],
        log: &Path,
        ready: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> Result<(ServerProcess, T)> {
        let name = &command[0];
        let mut file =
            File::create(log).map_err(|cause| Error::context(format!("creating {}", log.display()), cause))?;
        let errors = file.try_clone().map_err(|cause| Error::context("sharing a log file", cause))?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", GUARDED, "sh"])
            .args(command)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|cause| Error::context(format!("starting {name}"), cause))?;

        let output = child.stdout.take().expect("the output is piped");
        let (found, wait) = mpsc::channel();
        // Reads to the end, whether anybody waits or not: a full pipe would stop the server.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if writeln!(file, "{line}").is_err() {
                    return;
                }
                if let Some(value) = ready(&line) {
                    // Nobody waits for a second line that looks like readiness.
                    let _nobody_waits = found.send(value);
                }
            }
        });

        let process = ServerProcess { child, log: log.to_path_buf(), quoted: AtomicBool::new(false) };
        match wait.recv_timeout(START_LIMIT) {
            Ok(value) => Ok((process, value)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(process.failed(&format!("{name} was not ready after {START_LIMIT:?}")))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(process.failed(&format!("{name} ended instead of becoming ready")))
            }
        }
    }

    /// The sentence with the last lines the server wrote.
    pub fn failed(&self, sentence: &str) -> Error {
        self.quoted.store(true, Ordering::Relaxed);
        let log = paths::read(&self.log).unwrap_or_default();
        Error::new(format!("{sentence}; its last words in {}:\n{}", self.log.display(), paths::tail(&log)))
    }

    /// Stops the server where it stands: connections stay open and get no answer.
    /// Returns when every thread stands: on a busy machine some go on answering until one of them has heard of it.
    pub fn freeze(&self) -> Result<()> {
        kill_process(self.pid(), Signal::STOP).map_err(|cause| Error::context("stopping a server", cause))?;
        let threads = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        let began = Instant::now();
        while !all_stand(&threads).map_err(|cause| Error::context("looking at a server's threads", cause))? {
            if began.elapsed() > FREEZE_LIMIT {
                return Err(Error::new("a server that was stopped goes on"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn thaw(&self) -> Result<()> {
        kill_process(self.pid(), Signal::CONT).map_err(|cause| Error::context("continuing a server", cause))
    }

    /// Waits until the server ends by itself, having been told to.
    pub fn wait(mut self) -> Result<()> {
        // Waiting would close the pipe, and the guard would not let the server end by itself.
        let _open = self.child.stdin.take();
        self.child.wait().map(drop).map_err(|cause| Error::context("waiting for a server to end", cause))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// Whether the state of each thread, which follows its name in brackets, is `T`.
fn all_stand(threads: &Path) -> std::io::Result<bool> {
    for thread in fs::read_dir(threads)? {
        // One that ends meanwhile does nothing more.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        if stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails only when the whole group is gone already, which is what is wanted.
        let _gone = kill_process_group(self.pid(), Signal::KILL);
        let _reaped = self.child.wait();
        if !thread::panicking() && !self.quoted.load(Ordering::Relaxed) {
            // Logs are for the one who looks into a failed test; the others would only pile up.
            let _kept = std::fs::remove_file(&self.log);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_server_dies_with_the_pipe_of_its_test_process() {
        let command = ["/bin/sh", "-c", "echo ready; exec sleep 600"].map(String::from);
        let log = paths::folder("logs").unwrap().join(format!("sleep-{}.log", std::process::id()));
        let (mut process, ()) = ServerProcess::start(&command, &log, |line| (line == "ready").then_some(())).unwrap();
        drop(process.child.stdin.take());
        assert_eq!(process.child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
