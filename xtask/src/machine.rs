//! What the tests and the demo need of the machine, and how it gets there.
//!
//! Only Debian's packages are installed, only when they are missing, and only after saying so.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::run;

/// Where Debian and the upstream packages put RabbitMQ's start script.
const RABBITMQ_SERVER: [&str; 3] =
    ["/usr/sbin/rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/sbin/rabbitmq-server"];

/// Makes sure that a RabbitMQ server is installed.
///
/// # Errors
/// When it is not and cannot be installed.
pub(crate) fn need_rabbitmq() -> Result<()> {
    let on_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("rabbitmq-server").is_file()));
    if on_path || RABBITMQ_SERVER.iter().any(|path| Path::new(path).is_file()) {
        return Ok(());
    }
    install("RabbitMQ is not installed", &["rabbitmq-server"])
}

/// Makes sure that what the independent verifier and the foreign clients need is there: Debian's Python with two AMQP
/// clients, X.509 and JSON Schema.
///
/// # Errors
/// When it is not and cannot be installed.
pub(crate) fn need_python() -> Result<()> {
    if succeeds("/usr/bin/python3", &["-c", "import amqp, cryptography, pika, jsonschema"]) {
        return Ok(());
    }
    install(
        "Python's AMQP, X.509 and JSON Schema libraries are not installed",
        &["python3", "python3-amqp", "python3-pika", "python3-cryptography", "python3-jsonschema"],
    )
}

/// Makes sure that the OpenSSL command line is there, which the PKI is verified against.
///
/// # Errors
/// When it is not and cannot be installed.
pub(crate) fn need_openssl() -> Result<()> {
    if succeeds("openssl", &["version"]) { Ok(()) } else { install("OpenSSL is not installed", &["openssl"]) }
}

/// A program, and Debian's package that has it.
type Program = (&'static str, &'static str);

/// What the tests of the plugin `package` install into roots of their own. apt and dpkg are part of every Debian.
const PACKAGE_MANAGERS: &[Program] = &[
    ("/usr/bin/rpm", "rpm"),
    ("/usr/bin/rpmbuild", "rpm"),
    ("/usr/bin/createrepo_c", "createrepo-c"),
    ("/usr/bin/dnf", "dnf"),
    ("/usr/bin/zypper", "zypper"),
];

/// Makes sure that the tests of the plugin `package` find the package managers that Debian does not use itself.
///
/// # Errors
/// When they are not there and cannot be installed.
pub(crate) fn need_package_managers() -> Result<()> {
    need("What the tests of `package` need is not installed", PACKAGE_MANAGERS)
}

/// What the tests of the plugin `service` start in namespaces, and those of cut networks.
const SERVICE_MANAGERS: &[Program] = &[
    ("/lib/systemd/systemd", "systemd"),
    ("/usr/bin/dbus-daemon", "dbus"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/unshare", "util-linux"),
    // The tests of cut networks make namespaces of their own.
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/sbin/update-rc.d", "init-system-helpers"),
];

/// Makes sure that the tests of the plugin `service` find their service managers. OpenRC is not installed: those
/// tests take its package from apt's archive or download it.
///
/// # Errors
/// When they are not there and cannot be installed.
pub(crate) fn need_service_managers() -> Result<()> {
    need("What the tests of `service` need is not installed", SERVICE_MANAGERS)
}

/// What the tests of faults do to programs: a clock of its own for one, fewer files and processes, a small disk.
const FAULTS: &[Program] = &[
    ("/usr/bin/faketime", "faketime"),
    ("/usr/bin/findmnt", "util-linux"),
    ("/usr/bin/mount", "mount"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ("/usr/bin/nohup", "coreutils"),
    ("/usr/bin/prlimit", "util-linux"),
    ("/usr/bin/setpriv", "util-linux"),
];

/// Makes sure that the tests of faults find what they need besides RabbitMQ.
///
/// # Errors
/// When it is not there and cannot be installed.
pub(crate) fn need_faults() -> Result<()> {
    need("What the tests of faults need is not installed", FAULTS)
}

/// Makes sure that `ss` is there, which tells what a connection has carried.
///
/// # Errors
/// When it is missing and cannot be installed.
pub(crate) fn need_sockets() -> Result<()> {
    need("What tells of sockets is not installed", &[("/usr/bin/ss", "iproute2")])
}

/// What makes packages, and the fresh root that they are tried in.
const PACKAGING: &[Program] = &[
    ("/usr/bin/dh", "debhelper"),
    ("/usr/bin/dpkg-buildpackage", "dpkg-dev"),
    ("/usr/bin/help2man", "help2man"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/rpmbuild", "rpm"),
    ("/usr/bin/strip", "binutils"),
];

/// Makes sure that the tools which make packages are there.
///
/// # Errors
/// When they are not there and cannot be installed.
pub(crate) fn need_packaging() -> Result<()> {
    need("What makes packages is not installed", PACKAGING)
}

fn need(why: &str, programs: &[Program]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !Path::new(program).is_file());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { install(why, &packages) }
}

/// Makes sure that Debian's Puppet agent is there, which the plugin `puppet` is tested with. The package neither
/// enables nor starts its service.
///
/// # Errors
/// When it is not and cannot be installed.
pub(crate) fn need_puppet() -> Result<()> {
    if Path::new("/usr/bin/puppet").is_file() {
        return Ok(());
    }
    install("Puppet is not installed", &["puppet-agent"])
}

/// Makes sure that a C++ compiler is there: libFuzzer is built from source.
///
/// # Errors
/// When there is none and none can be installed.
pub(crate) fn need_cxx() -> Result<()> {
    if succeeds("c++", &["--version"]) {
        return Ok(());
    }
    install("A C++ compiler is not installed", &["g++"])
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn install(why: &str, packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !succeeds("apt-get", &["--version"]) {
        bail!("{why}, and this machine has no apt-get; install {names} with your system's package manager");
    }
    let root = run::output("id", &["-u"])?.trim() == "0";
    if !root && !succeeds("sudo", &["-n", "true"]) {
        bail!("{why}; run `sudo apt-get install {names}`, then try again");
    }
    eprintln!("==> {why}: installing Debian's {names}");
    let base: &[&str] = if root { &["env"] } else { &["sudo", "-n", "env"] };
    let apt = |what: &str, arguments: &[&str]| {
        let words = [base, &["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"], arguments].concat();
        run::step(what, words[0], &words[1..])
    };
    apt("refresh the package lists", &["update"])?;
    apt("install", &[&["install", "--no-install-recommends"], packages].concat())
}
