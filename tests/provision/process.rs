//! A server process that ends when its handle is dropped, and at the latest when the test process ends or is killed.

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

/// The maximum time until a server is ready; long enough for a machine that is busy with a build.
const START_LIMIT: Duration = Duration::from_secs(90);
/// The maximum time until all threads of a paused server have stopped.
const FREEZE_LIMIT: Duration = Duration::from_secs(20);

/// A shell script that starts a guard process and then becomes the server. The guard reads a pipe that only the test process
/// holds open; when the test process ends, the guard kills the server.
const GUARDED: &str = "exec 3<&0; { read -r _ <&3; kill -9 -$$; } >/dev/null 2>&1 & exec \"$@\" 3<&- </dev/null";

/// A running server. Dropping it kills the server and its child processes.
pub struct ServerProcess {
    child: Child,
    log: PathBuf,
    /// True after an error message named the log file. The log file is then kept when the server ends.
    keep_log: AtomicBool,
}

impl ServerProcess {
    /// Starts `command`, writes its output to `log`, and waits for an output line for which `ready` returns a value.
    ///
    /// # Errors
    ///
    /// Fails when the server ends, or prints no such line within 90 seconds.
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

        let output = child.stdout.take().expect("standard output is piped");
        let (found, wait) = mpsc::channel();
        // Read until the server ends, because a full pipe would block it.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if writeln!(file, "{line}").is_err() {
                    return;
                }
                if let Some(value) = ready(&line) {
                    // The receiver is gone after the first value.
                    let _received = found.send(value);
                }
            }
        });

        let process = ServerProcess { child, log: log.to_path_buf(), keep_log: AtomicBool::new(false) };
        match wait.recv_timeout(START_LIMIT) {
            Ok(value) => Ok((process, value)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(process.error_with_log(&format!("{name} was not ready after {START_LIMIT:?}")))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(process.error_with_log(&format!("{name} ended before it was ready")))
            }
        }
    }

    /// Returns an error with `message` and the last lines of the server's output.
    pub fn error_with_log(&self, message: &str) -> Error {
        self.keep_log.store(true, Ordering::Relaxed);
        let log = paths::read_text(&self.log).unwrap_or_default();
        Error::new(format!("{message}; the end of its output in {}:\n{}", self.log.display(), paths::last_lines(&log)))
    }

    /// Pauses the server (SIGSTOP): connections stay open and get no answer. Returns when every thread has stopped, because
    /// on a busy machine some threads go on for a while.
    pub fn freeze_process(&self) -> Result<()> {
        kill_process(self.pid(), Signal::STOP).map_err(|cause| Error::context("pausing a server", cause))?;
        let threads = PathBuf::from(format!("/proc/{}/task", self.child.id()));
        let started_at = Instant::now();
        while !are_all_stopped(&threads)
            .map_err(|cause| Error::context("reading the state of a server's threads", cause))?
        {
            if started_at.elapsed() > FREEZE_LIMIT {
                return Err(Error::new("a paused server still runs"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Continues a paused server (SIGCONT).
    pub fn thaw_process(&self) -> Result<()> {
        kill_process(self.pid(), Signal::CONT).map_err(|cause| Error::context("continuing a server", cause))
    }

    /// Waits until the server ends by itself.
    pub fn wait_for_exit(mut self) -> Result<()> {
        // `Child::wait` closes the pipe, and then the guard would kill the server.
        let _open = self.child.stdin.take();
        self.child.wait().map(drop).map_err(|cause| Error::context("waiting for a server to end", cause))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// Returns true when the state of every thread is `T` (stopped). In `stat`, the state follows the name in brackets.
fn are_all_stopped(threads: &Path) -> std::io::Result<bool> {
    for thread in fs::read_dir(threads)? {
        // A thread that ended in the meantime does not run either.
        let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
        if stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // An error means that all processes of the group have already ended.
        let _gone = kill_process_group(self.pid(), Signal::KILL);
        let _reaped = self.child.wait();
        if !thread::panicking() && !self.keep_log.load(Ordering::Relaxed) {
            // The log is needed only after a failure. An error on removal is ignored.
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
        let log = paths::create_cache_folder("logs").unwrap().join(format!("sleep-{}.log", std::process::id()));
        let (mut process, ()) = ServerProcess::start(&command, &log, |line| (line == "ready").then_some(())).unwrap();
        drop(process.child.stdin.take());
        assert_eq!(process.child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
