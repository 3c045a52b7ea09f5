//! Calls every target with everything that is checked in: starting files, interesting inputs, and past crashes.

use std::path::Path;

use muster_fuzz::{TARGETS, store};

/// The repository's root.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn everything_checked_in_keeps_the_laws() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let inputs = store::inputs(repository(), target).unwrap();
        assert!(inputs.len() > 1, "`{}` has too little to start from", target.name);
        for input in inputs {
            if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
                broken.push(format!("{}: {}", target.name, store::line(&input)));
            }
        }
    }
    assert!(broken.is_empty(), "{} inputs break a law:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_file_of_inputs_belongs_to_a_target() {
    for folder in ["corpus", "past"] {
        for entry in std::fs::read_dir(repository().join("fuzz").join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name == "README.md" {
                continue;
            }
            let target = name.strip_suffix(".txt").filter(|name| TARGETS.iter().any(|target| target.name == *name));
            assert!(target.is_some(), "fuzz/{folder}/{name}");
        }
    }
}
