//! `cargo xtask test` and its quick half.

use anyhow::Result;

use crate::{arrows, fuzz, generate, links, machine, named_tests, package, run};

/// Everything that has to hold before a change lands. The test runner comes last, so that its
/// summary is the last thing to read.
///
/// # Errors
/// The first step that does not hold.
pub(crate) fn everything(filter: Option<&str>) -> Result<()> {
    machine::need_rabbitmq()?;
    machine::need_sockets()?;
    machine::need_openssl()?;
    machine::need_python()?;
    machine::need_package_managers()?;
    machine::need_service_managers()?;
    machine::need_puppet()?;
    machine::need_faults()?;
    machine::need_cxx()?;
    machine::need_packaging()?;
    if filter.is_none() {
        quick()?;
        fuzz::in_test()?;
    }
    // The end-to-end tests start the real programs.
    run::cargo_step("build the programs", &["build", "--workspace", "--bins"])?;
    if filter.is_none() {
        package::check_built()?;
    }
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    arguments.extend(filter);
    run::cargo_step("run all tests", &arguments)
}

/// Format, lints, arrows, licences, links, promises and generated files.
///
/// # Errors
/// The first that does not hold.
pub(crate) fn quick() -> Result<()> {
    run::cargo_step("format", &["fmt", "--all", "--check"])?;
    arrows::check_and_tell()?;
    links::check_and_tell()?;
    named_tests::check_and_tell()?;
    run::cargo_step("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    generate::generate(true)
}
