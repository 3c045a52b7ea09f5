//! `muster`: ask, find and run on many hosts. All of it lives in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_daemon::deepen_stacks();
    muster_cli::main(std::env::args_os())
}
