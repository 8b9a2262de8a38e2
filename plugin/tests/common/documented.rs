//! The commands that the pages tell a person to type.

use std::{collections::BTreeSet, fs, path::Path};

/// Pages whose commands need a cluster.
const OF_CLUSTERS: [&str; 3] = ["README.md", "docs/install.md", "docs/kubernetes.md"];
/// Programs that need one.
const PROGRAMS: [&str; 2] = ["kubectl ", "helm "];

/// A page of the repository.
pub fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// Lines of the page's blocks of commands, without what is said of them.
pub fn commands_in(page: &str) -> BTreeSet<String> {
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

/// Commands between back quotes in a page's text.
fn quoted_in(page: &str) -> impl Iterator<Item = String> {
    let text: Vec<&str> = page.split("```").step_by(2).collect();
    let text = text.join("");
    let quoted: Vec<String> = text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    // A program's name with less is no command.
    quoted.into_iter().filter(|quoted| quoted.split(' ').count() > 2)
}

/// Commands of the pages that need a cluster.
pub fn commands_of_clusters() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in OF_CLUSTERS {
        let page = page(name);
        let blocks = commands_in(&page);
        // Elsewhere they are typed on a node, or for the demo.
        let in_a_pod = |command: &&String| {
            name == "docs/kubernetes.md"
                && ["meridian zones ", "meridian top "].iter().any(|it| command.starts_with(it))
                || name == "docs/install.md" && command.starts_with("hubble ")
        };
        all.extend(blocks.iter().filter(in_a_pod).cloned());
        let needs_one = |command: &String| PROGRAMS.iter().any(|program| command.starts_with(program));
        all.extend(blocks.into_iter().chain(quoted_in(&page)).filter(needs_one));
    }
    all
}
