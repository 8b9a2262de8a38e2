//! The stock hubble command with Cilium's own observer and with `meridian replay`, over the same flows: the output
//! must be the same.

use crate::{
    compatibility::{self, Case},
    ports::free_address,
    programs::program,
    recorded::flows,
};
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

const FLOWS: usize = 300;
/// 2^n - 1, larger than the number of flows.
const CAPACITY: &str = "511";

/// A server that is stopped at the end of the test.
pub struct Server {
    child: Child,
    pub at: String,
    log: Arc<Mutex<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server and waits for the line that reports that it serves.
pub fn serve(mut command: Command, at: String, ready: &'static str) -> Server {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let outputs: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    let server = Server { child, at, log: Arc::default() };
    let (found, is_ready) = mpsc::channel();
    for output in outputs {
        let (found, log) = (found.clone(), Arc::clone(&server.log));
        // Reads to the end, so that the server never blocks on its output.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains(ready) {
                    found.send(()).unwrap_or_default();
                }
                *log.lock().unwrap() += &(line + "\n");
            }
        });
    }
    drop(found);
    is_ready.recv().expect("it does not serve");
    server
}

impl Server {
    /// The output so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The server's standard input.
    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }

    /// Interrupts the server, as Ctrl-C does, and returns its exit code.
    pub fn interrupt(mut self) -> Option<i32> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), nix::sys::signal::SIGINT).unwrap();
        self.child.wait().unwrap().code()
    }
}

/// The stock command.
pub fn command(hubble: &Path, at: &str, home: &Path, line: &str) -> Command {
    let mut command = Command::new(hubble);
    command.args(line.split(' ')).args(["--server", at]);
    command.env_clear().envs([("HOME", home.as_os_str()), ("TZ", "UTC".as_ref())]);
    command
}

/// Exit code and output, without the server's address.
fn run(hubble: &Path, server: &Server, home: &Path, line: &str) -> String {
    let output = command(hubble, &server.at, home, line).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&server.at, "SERVER");
    format!("exit {:?}\n{}{}", output.status.code(), text(&output.stderr), text(&output.stdout))
}

/// The first line in which two outputs differ.
fn difference(theirs: &str, ours: &str) -> String {
    let lines = theirs.lines().zip(ours.lines()).find(|(theirs, ours)| theirs != ours);
    let (theirs, ours) = lines.unwrap_or_else(|| {
        let longer = |text: &str| text.lines().count();
        if longer(theirs) > longer(ours) { ("more lines", "fewer") } else { ("fewer lines", "more") }
    });
    format!("  Cilium's: {theirs}\n  ours:     {ours}\n")
}

#[test]
#[ignore = "needs the programs of conformance/hubble: scripts/test.sh hubble"]
fn the_stock_command_prints_the_same_of_our_server_as_of_ciliums() {
    let (hubble, observer) = (program("MERIDIAN_HUBBLE_CLI"), program("MERIDIAN_HUBBLE_OBSERVER"));
    let folder = std::env::temp_dir().join(format!("meridian-hubble-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("flows.json");
    std::fs::write(&file, flows(11, FLOWS)).unwrap();

    let (at, mut command) = (free_address(), Command::new(observer));
    command.args([file.as_os_str(), at.as_ref(), CAPACITY.as_ref()]);
    let theirs = serve(command, at, "listening");
    let (at, mut command) = (free_address(), Command::new(env!("CARGO_BIN_EXE_meridian")));
    let args: [OsString; 6] =
        ["replay".into(), file.into(), "--listen".into(), at.clone().into(), "--capacity".into(), CAPACITY.into()];
    command.args(args);
    let ours = serve(command, at, "loaded");

    let all = run(&hubble, &theirs, &folder, "observe --all -o jsonpb");
    assert_eq!((all.lines().count(), all.starts_with("exit Some(0)")), (1 + FLOWS, true), "{all}");
    let cases = compatibility::cases();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(Case { line, differs }) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (theirs, ours) = (run(&hubble, &theirs, &folder, line), run(&hubble, &ours, &folder, line));
            let mut wrong = wrong.lock().unwrap();
            match differs {
                None if theirs != ours => wrong.push(format!("hubble {line}\n{}", difference(&theirs, &ours))),
                Some(_) if theirs == ours => wrong.push(format!("hubble {line}\n  differs no more: {ours}\n")),
                _ => {}
            }
        }
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    std::fs::remove_dir_all(&folder).unwrap();
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.concat());
    let help = Command::new(&hubble).args(["observe", "--help"]).output().unwrap();
    compatibility::page_is_true(&cases, &String::from_utf8(help.stdout).unwrap());
}
