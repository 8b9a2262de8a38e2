//! Types commands as the pages have them, and knows which it has typed.

use crate::{
    documented::commands_of_clusters,
    nodes::cluster::{Cluster, OUTSIDE, until},
};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

pub struct Typist<'c> {
    cluster: &'c Cluster,
    documented: BTreeSet<String>,
    typed: BTreeSet<String>,
}

impl<'c> Typist<'c> {
    pub fn new(cluster: &'c Cluster) -> Self {
        Self { cluster, documented: commands_of_clusters(), typed: BTreeSet::new() }
    }

    /// A command of the pages, with what the tests add to it, to be run by the caller.
    pub fn command(&mut self, documented: &str, further: &[&str]) -> Command {
        assert!(
            self.documented.contains(documented),
            "not in the pages: {documented}; they have {:#?}",
            self.documented
        );
        self.typed.insert(documented.to_owned());
        let typed = documented.replace("REGISTRY", "meridian.test");
        let words: Vec<&str> = typed.split(' ').chain(further.iter().copied()).collect();
        match words[0] {
            "hubble" => {
                let hubble = PathBuf::from(std::env::var_os("MERIDIAN_HUBBLE_CLI").unwrap());
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{}-{OUTSIDE}", self.cluster.name)).arg(hubble).args(&words[1..]);
                command
            }
            // In a controller's pod.
            "meridian" => {
                let pod =
                    ["kubectl", "--namespace=meridian", "exec", "deployment/meridian-controller", "--", "/meridian"];
                self.cluster.command(&[&pod, &words[1..]].concat())
            }
            _ => self.cluster.command(&words),
        }
    }

    /// Types it, and returns what came of it.
    pub fn output(&mut self, documented: &str, further: &[&str]) -> Output {
        self.command(documented, further).output().unwrap()
    }

    /// Types what must succeed, and returns what was printed.
    pub fn types(&mut self, documented: &str, further: &[&str]) -> String {
        let output = self.output(documented, further);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{documented}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Types what goes on until it is ended, until a line that it prints has all of these words; begins again if it
    /// ends by itself.
    pub fn prints(&mut self, documented: &str, wanted: &[&str], mut meanwhile: impl FnMut()) {
        until(&format!("{documented} prints {wanted:?}"), || {
            let mut command = self.command(documented, &[]);
            let mut running = Background(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
            let stdout = BufReader::new(running.0.stdout.take().unwrap());
            meanwhile();
            let mut lines = stdout.lines().map_while(Result::ok);
            lines.any(|line| wanted.iter().all(|word| line.contains(word))).then_some(())
        });
    }

    /// Starts a command that runs until it is ended.
    pub fn starts(&mut self, documented: &str) -> Background {
        let command = &mut self.command(documented, &[]);
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Fails if the pages have a command that was not typed.
    pub fn must_have_typed_all(&self) {
        let missing: Vec<_> = self.documented.difference(&self.typed).collect();
        assert!(missing.is_empty(), "in the pages, and not typed: {missing:#?}");
    }
}

/// A command in progress.
pub struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        // It replaces itself by the program, so that this is the program's process.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
