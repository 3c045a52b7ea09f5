//! What the cores must not do, because nobody could replay it.

use std::path::{Path, PathBuf};

/// Where the code lies that the simulation runs.
const CORES: [&str; 5] = ["agent/src", "controller/client/src", "daemon/src", "bus/src/memory", "tests/simulation/src"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines, from 1, of waits that draw at random which of their arms runs.
fn unordered(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let is_wait = |line: &str| line.contains("select! {") && !line.trim_start().starts_with("//");
    let follows = |number: usize| {
        lines[number + 1..].iter().map(|line| line.trim()).find(|line| !line.is_empty() && !line.starts_with("//"))
    };
    (0..lines.len())
        .filter(|number| is_wait(lines[*number]) && follows(*number) != Some("biased;"))
        .map(|number| number + 1)
        .collect()
}

#[test]
fn every_wait_says_which_arm_comes_first() {
    assert_eq!(unordered("tokio::select! {\n    biased;\n    a => {}\n}"), [0_usize; 0]);
    assert_eq!(unordered("tokio::select! {\n    // Why.\n    biased;\n"), [0_usize; 0]);
    assert_eq!(unordered("\nlet a = tokio::select! {\n    a => {}\n}"), [2]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    CORES.iter().for_each(|core| sources(&root.join(core), &mut files));
    assert!(files.len() > 100, "only {} files found", files.len());
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            unordered(&text).into_iter().map(|line| format!("{}:{line}", file.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "`select!` without `biased;` draws at random which arm runs:\n{}", wrong.join("\n"));
}
