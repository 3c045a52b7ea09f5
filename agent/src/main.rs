//! `musterd`, the agent on every host. Everything but the start is in the library.

mod commands;
mod complaint;
mod input;
mod notify;
mod start;

use std::process::ExitCode;

fn main() -> ExitCode {
    muster_daemon::deepen_stacks();
    muster_daemon::return_large_blocks();
    muster_daemon::share_heaps();
    commands::run()
}
