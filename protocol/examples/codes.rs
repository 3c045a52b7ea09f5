//! Prints the chapter "Codes" of the book from the table of codes.
#![expect(clippy::print_stdout, reason = "a generator")]

use muster_protocol::code::ALL;

fn main() {
    println!("# Codes\n");
    println!("A host answers, and a command ends, with one of these codes. They are stable: none is ever renamed or");
    println!(
        "reused. `muster explain CODE` prints the same text. This page is generated from `protocol/src/code.rs`.\n"
    );
    println!("| code | outcome | meaning |\n|---|---|---|");
    for row in ALL {
        println!("| [`{0}`](#{0}) | {1} | {2} |", row.code, row.outcome().as_str(), row.summary);
    }
    for row in ALL {
        println!("\n## `{}` {{#{}}}\n\n{}", row.code, row.code, row.explanation);
    }
}
