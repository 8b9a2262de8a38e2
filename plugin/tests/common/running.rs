//! Running commands. A failing test ends the commands that it started.

use super::CommandOutput;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
};

/// A running command, with its output in pipes.
pub struct Running(Option<Child>);

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        Self(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// Starts a command, with its stdin in a pipe, too.
    pub fn spawn_fed(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::piped()))
    }

    /// Its standard input.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.0.as_mut().unwrap().stdin.as_mut().unwrap()
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.0.as_mut().unwrap().stdin.take());
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.as_ref().unwrap().id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// Its standard output.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.as_mut().unwrap().stdout.take().unwrap()
    }

    /// Reads stderr until a line contains `wanted`; returns the text read, and the reader.
    pub fn stderr_until(&mut self, wanted: &str) -> (String, BufReader<ChildStderr>) {
        let mut stderr = BufReader::new(self.0.as_mut().unwrap().stderr.take().unwrap());
        (until(&mut stderr, wanted), stderr)
    }

    /// Writes its output to a file from now on, so that it never blocks.
    pub fn drain_to(&mut self, file: std::fs::File) {
        let child = self.0.as_mut().unwrap();
        let mut outputs: Vec<Box<dyn std::io::Read + Send>> = Vec::new();
        outputs.extend(child.stdout.take().map(|stdout| Box::new(stdout) as _));
        outputs.extend(child.stderr.take().map(|stderr| Box::new(stderr) as _));
        for mut output in outputs {
            let mut file = file.try_clone().unwrap();
            // The thread ends with the process.
            std::thread::spawn(move || std::io::copy(&mut output, &mut file));
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.as_ref().unwrap().id() as i32), signal).unwrap();
    }

    /// Waits for its end, and returns its output.
    pub fn output(mut self) -> CommandOutput {
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

/// Reads until a line contains `wanted`; returns the text read.
pub fn until(stderr: &mut BufReader<ChildStderr>, wanted: &str) -> String {
    let (mut output, mut line) = (String::new(), String::new());
    while !line.contains(wanted) {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended before it printed {wanted}: {output}");
        output.push_str(&line);
    }
    output
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
