//! libFuzzer around one target of `muster-fuzz`, chosen by the variable `MUSTER_FUZZ_TARGET`.
//!
//! One program for all targets: it is linked once. With `MUSTER_FUZZ_PREPARE=DIRECTORY` it writes what libFuzzer
//! needs (starting inputs, dictionaries, the table of targets) and ends; with `MUSTER_FUZZ_KEEP=DIRECTORY` it puts the
//! files of that directory into the corpus in the repository. `cargo xtask fuzz` does both.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use muster_fuzz::{Target, store};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn begin() {
    let variable = |name| std::env::var_os(name);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if let Some(directory) = variable("MUSTER_FUZZ_PREPARE") {
        store::prepare(&repository, Path::new(&directory)).expect("the starting inputs can be written");
        std::process::exit(0);
    }
    let name = variable("MUSTER_FUZZ_TARGET").expect("MUSTER_FUZZ_TARGET names a target");
    let target = muster_fuzz::TARGETS.iter().find(|target| *name == *target.name).expect("there is such a target");
    if let Some(directory) = variable("MUSTER_FUZZ_KEEP") {
        store::keep(&repository, target, Path::new(&directory)).expect("the corpus can be written");
        std::process::exit(0);
    }
    TARGET.get_or_init(|| target);
}

libfuzzer_sys::fuzz_target!(init: begin(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.run)(input);
    }
});
