//! `meridian top` on a terminal: tmux drives it on the traffic of a demo that stands still, and its screens have the
//! numbers of the wire, of the report and of the advice. All of it runs in a network namespace of its own.

use crate::{CommandOutput, Scratch, machine::alone, meridian, run, running::Running};
use meridian::{netlab::namespace::Namespace, units};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a screen may take to show something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tmux server with one session, in which `meridian top` runs below a shell.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Starts `top` with these flags; after its end, the shell prints its exit code and stays.
    fn start(network: &Namespace, scratch: &Scratch, flags: &str, [width, height]: [&str; 2]) -> Self {
        // The server of an earlier one may still be about to end.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("tmux-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { socket: scratch.as_ref().join(name) };
        let top = format!("{} top {flags}; echo ended with $?; exec sleep 1000", env!("CARGO_BIN_EXE_meridian"));
        let size = ["-x", width, "-y", height];
        let mut command = terminal.command(&["new-session", "-d"]);
        command.args(size).args(["sh", "-c", &top]);
        let output: CommandOutput = network.run(|| command.output().unwrap()).unwrap().into();
        assert_eq!(output.code, Some(0), "{output:?}");
        terminal
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(&self.socket).args(args).env("TERM", "xterm-256color");
        command
    }

    fn ask(&self, args: &[&str]) -> String {
        let output: CommandOutput = self.command(args).output().unwrap().into();
        assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        output.stdout
    }

    fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// The screen, once it holds a text.
    fn screen(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.ask(&["capture-pane", "-p"]);
            if screen.contains(text) {
                return screen;
            }
            assert!(start.elapsed() < PATIENCE, "no `{text}` in:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }

    /// The process of `top`: the shell's child.
    fn top(&self) -> Pid {
        let shell = self.ask(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap())
    }

    /// Whether the terminal is as a shell expects it: the normal screen, a cursor, echo and lines.
    fn is_restored(&self) -> bool {
        let state = self.ask(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{pane_tty}"]);
        let tty = state.trim().strip_prefix("0 1 ").map(str::to_owned);
        let stty = |tty: String| Command::new("stty").args(["-a", "-F", &tty]).output().unwrap();
        let modes = |tty: String| String::from_utf8(stty(tty).stdout).unwrap();
        tty.map(modes).is_some_and(|modes| [" icanon", " echo "].iter().all(|mode| modes.contains(mode)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It is gone if its session has ended.
        let _ = self.command(&["kill-server"]).output();
    }
}

/// A demo in a network namespace, whose traffic has ended.
struct Still {
    demo: Running,
    result: Value,
}

impl Still {
    fn start(network: &Namespace, duration: &str) -> Self {
        let args = ["demo", "--serve", "--still", "--duration", duration, "--output", "json"];
        let mut demo = network.run(|| Running::spawn(&mut meridian(&args))).unwrap();
        let mut line = String::new();
        BufReader::new(demo.stdout()).read_line(&mut line).unwrap();
        Self { demo, result: serde_json::from_str(&line).unwrap() }
    }

    /// Bytes on the wire by pair of zones.
    fn wire(&self) -> BTreeMap<(&str, &str), u64> {
        let mut sums = BTreeMap::new();
        for cell in self.result["sent"].as_array().unwrap() {
            let zone = |key: &str| cell[key].as_str().unwrap();
            *sums.entry((zone("source_zone"), zone("destination_zone"))).or_default() +=
                cell["bytes"].as_u64().unwrap();
        }
        sums
    }

    fn end(self) {
        self.demo.signal(Signal::SIGINT);
        assert_eq!(self.demo.output().code, Some(0));
    }
}

fn network() -> Namespace {
    let network = Namespace::new("top").unwrap();
    let up = network.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap()).unwrap();
    assert!(up.success());
    network
}

/// The JSON answer of a command in the namespace.
fn json(network: &Namespace, args: &[&str]) -> Value {
    let args = [args, &["--server", "127.0.0.1:9980", "--output", "json"]].concat();
    let output: CommandOutput = network.run(|| meridian(&args).output().unwrap()).unwrap().into();
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// The numbers of a matrix, by the names of its head and of its lines.
fn matrix(screen: &str) -> BTreeMap<(String, String), String> {
    let mut lines = screen.lines().skip_while(|line| !line.contains("FROM \\ TO"));
    let zones: Vec<&str> = lines.next().unwrap().split_whitespace().skip(3).collect();
    let mut cells = BTreeMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, numbers) = line.trim_start().split_once(' ').unwrap();
        let numbers = numbers.replace(" B", "_B").replace(" kB", "_kB").replace(" MB", "_MB").replace(" GB", "_GB");
        for (zone, number) in zones.iter().zip(numbers.split_whitespace()).filter(|(_, number)| *number != "·") {
            cells.insert((name.to_owned(), (*zone).to_owned()), number.replace('_', " "));
        }
    }
    cells
}

#[test]
fn its_screens_have_the_numbers_of_the_wire_the_report_and_the_advice() {
    let _alone = alone();
    let (network, scratch) = (network(), Scratch::new("top"));
    let still = Still::start(&network, "4s");
    assert_eq!(still.result["exact"], true);
    let terminal = Terminal::start(&network, &scratch, "--server 127.0.0.1:4245 --interval 1s", ["80", "24"]);
    terminal.screen("live");

    terminal.press(&["u"]);
    let screen = terminal.screen("bytes counted so far");
    let shown = matrix(&screen);
    let human = |(pair, bytes): (&(&str, &str), &u64)| ((pair.0.to_owned(), pair.1.to_owned()), units::human(*bytes));
    assert_eq!(shown, still.wire().iter().map(human).collect(), "{screen}");
    assert!(shown.len() >= 8, "{screen}");

    // The demo's zones and regions have one price: 0.02 dollars for 10⁹ bytes.
    terminal.press(&["u"]);
    let screen = terminal.screen("dollars for these bytes");
    let crossing: u64 =
        still.wire().iter().filter(|((from, to), _)| from != to && *to != "unknown").map(|(_, bytes)| bytes).sum();
    let cost: f64 = crossing as f64 * 2e-11;
    // Cents, or two digits of less.
    let places = if cost >= 0.01 { 2 } else { (1.0 - cost.log10().floor()) as usize };
    // The prices may still be on their way.
    let screen = match screen.contains("no prices") {
        true => panic!("{screen}"),
        false => terminal.screen(&format!("across zones and regions: ${cost:.places$}")),
    };
    assert!(screen.contains("unpriced"), "{screen}");

    // A pair, to the byte.
    let report = json(&network, &["report", "--by", "workload-pair", "--locality", "all"]);
    let rows = report["rows"].as_array().unwrap();
    let key = |row: &Value, key: &str| row["key"][key].as_str().unwrap_or_default().to_owned();
    let is_it =
        |row: &&Value| key(row, "source_workload") == "orders-db" && key(row, "destination_workload") == "collector";
    let bytes = rows.iter().find(is_it).unwrap()["bytes"].as_u64().unwrap();
    terminal.press(&["2", "/"]);
    terminal.press(&["-l", "orders-db collector eu-2a"]);
    terminal.press(&["Enter"]);
    terminal.screen("1 of 2");
    // From the database, which sends more than it gets.
    terminal.press(&["Enter"]);
    let screen = terminal.screen("Pair of pods");
    assert!(screen.contains(&format!("({} B)", units::grouped(bytes))), "{bytes}: {screen}");
    assert!(screen.contains("StatefulSet orders-db, zone eu-1b, region eu-1"), "{screen}");

    // A workload: what it sends and receives across zones.
    let crosses = |row: &&Value| key(row, "locality").starts_with("cross-");
    let sum = |end: &str| -> u64 {
        let of = rows.iter().filter(crosses).filter(|row| key(row, end) == "orders-db");
        of.map(|row| row["bytes"].as_u64().unwrap()).sum()
    };
    let (sent, received) = (sum("source_workload"), sum("destination_workload"));
    terminal.press(&["Escape"]);
    terminal.press(&["3", "u", "u", "u"]);
    let screen = terminal.screen("bytes counted so far");
    let line = screen.lines().find(|line| line.contains("shop/orders-db")).unwrap();
    for number in [sent, received, sent + received].map(units::human) {
        assert!(line.contains(&number), "{number}: {screen}");
    }

    // The findings, in the advice's order.
    terminal.press(&["4"]);
    terminal.screen("Press a for findings");
    terminal.press(&["a"]);
    let advice = json(&network, &["advise", "--min-data", "0s", "--floor", "0"]);
    let subjects: Vec<&str> =
        advice["findings"].as_array().unwrap().iter().map(|one| one["subject"].as_str().unwrap()).collect();
    assert!(subjects.len() >= 2, "{advice}");
    terminal.screen(subjects[0]);
    terminal.ask(&["resize-window", "-x", "160", "-y", "50"]);
    // The longest is cut on a narrow screen. A capture may be of a screen that is drawn in part.
    let screens: Vec<String> = subjects.iter().map(|subject| terminal.screen(subject)).collect();
    let screen = screens.last().unwrap();
    let places: Vec<_> = subjects.iter().map(|subject| screen.find(subject)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{screen}");
    terminal.press(&["Enter"]);
    terminal.screen(advice["findings"][0]["evidence"][0].as_str().unwrap());
    drop(terminal);
    still.end();
}

#[test]
fn an_absent_server_is_named_and_found_again_and_the_terminal_is_restored() {
    let _alone = alone();
    let (network, scratch) = (network(), Scratch::new("top-away"));
    let flags = "--server 127.0.0.1:4245 --interval 1s";
    let terminal = Terminal::start(&network, &scratch, flags, ["100", "30"]);
    let screen = terminal.screen("AWAY");
    assert!(screen.contains("No counters: 127.0.0.1:4245 is away") && screen.contains("trying again"), "{screen}");
    let still = Still::start(&network, "1s");
    terminal.screen(" live ");
    terminal.press(&["p"]);
    terminal.screen("PAUSED");
    terminal.press(&["p", "?"]);
    terminal.screen("Ctrl-C");
    terminal.press(&["x"]);
    still.end();
    let screen = terminal.screen("AWAY");
    assert!(screen.contains("FROM \\ TO") && screen.contains("the numbers are of"), "{screen}");
    assert!(!terminal.is_restored());
    terminal.press(&["q"]);
    terminal.screen("ended with 0");
    assert!(terminal.is_restored());
    drop(terminal);

    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let terminal = Terminal::start(&network, &scratch, flags, ["100", "30"]);
        terminal.screen("AWAY");
        kill(terminal.top(), signal).unwrap();
        terminal.screen("ended with 0");
        assert!(terminal.is_restored(), "{signal}");
    }

    // As text, it is no screen, and does not wait.
    let terminal = Terminal::start(&network, &scratch, "--server 127.0.0.1:4245 --plain", ["100", "30"]);
    let screen = terminal.screen("ended with 1");
    assert!(screen.contains("no server answers") && !screen.contains("AWAY"), "{screen}");
    let text = run(&["top", "--server", "127.0.0.1:1"]);
    assert_eq!(text.code, Some(1));
    assert!(!text.stdout.contains('\u{1b}') && !text.stderr.contains('\u{1b}'), "{text:?}");
}
