//! Prints the chapter "The built-in plugins" of the book from their descriptions.
#![expect(clippy::print_stdout, reason = "a generator")]

use muster_plugin_api::{builtin_ddls, reference};

fn main() {
    print!("{}", reference(builtin_ddls()));
}
