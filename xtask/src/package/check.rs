//! Installs, upgrades and removes the packages for real, in a root that is thrown away.
//!
//! The root is a fresh minimal Debian, so what a package needs and does not name is missed, and it has no RabbitMQ. RPM packages are installed
//! into a copy of it by Debian's `rpm`, without looking at dependencies, which that root's own database does not know;
//! they are compared with a list instead.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Packages, next_version, remove, text, tool};
use crate::run;

/// Path, kind and mode, and owner, of everything but documents and completions.
const EXPECTED: &[(&str, &str, &str)] = &[
    ("/etc/muster", "directory 755", "root:root"),
    ("/etc/muster/broker", "directory 750", "root:muster-broker"),
    ("/etc/muster/broker.toml", "regular file 644", "root:root"),
    ("/etc/muster/config.toml", "regular file 644", "root:root"),
    ("/etc/muster/facts.d", "directory 755", "root:root"),
    ("/etc/muster/musterd.d", "directory 755", "root:root"),
    ("/etc/muster/musterd.toml", "regular file 644", "root:root"),
    ("/etc/muster/pki", "directory 700", "root:root"),
    ("/etc/muster/plugin.d", "directory 755", "root:root"),
    ("/etc/muster/policy.toml", "regular file 644", "root:root"),
    ("/etc/muster/service", "directory 750", "root:muster"),
    ("/usr/bin/muster", "regular file 755", "root:root"),
    ("/usr/bin/musterd", "regular file 755", "root:root"),
    ("/usr/lib/muster/plugins", "directory 755", "root:root"),
    ("/usr/lib/sysusers.d/muster.conf", "regular file 644", "root:root"),
    ("/usr/lib/sysusers.d/muster-broker.conf", "regular file 644", "root:root"),
    ("/var/lib/muster", "directory 700", "root:root"),
    ("/var/lib/muster-broker", "directory 700", "muster-broker:muster-broker"),
    ("/var/lib/muster-service", "directory 750", "muster:muster"),
];

/// What the RPM packages may need of a system, by the beginning of the name.
const RPM_NEEDS: &[&str] = &[
    "/bin/sh",
    "muster = ",
    "shadow-utils",
    "config(",
    "rpmlib(",
    "rtld(",
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "ld-linux",
];

/// A root that is thrown away.
struct Root {
    path: PathBuf,
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("warning: remove `{}`: {error}", self.path.display());
        }
    }
}

impl Root {
    /// A minimal Debian of this machine's release, from this machine's package sources.
    fn debian(path: PathBuf) -> Result<Self> {
        remove(&path)?;
        let release = std::fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release names no VERSION_CODENAME; packages are checked on Debian")?;
        let root = Self { path };
        let mut arguments = vec!["--mode=root", "--variant=minbase", "--include=systemd", suite];
        let target = text(&root.path);
        arguments.push(&target);
        let sources: Vec<String> = sources().iter().map(|path| text(path)).collect();
        arguments.extend(sources.iter().map(String::as_str));
        tool("make a fresh Debian in a folder", "mmdebstrap", &arguments, |it| it)?;
        Ok(root)
    }

    fn copy(&self, path: PathBuf) -> Result<Self> {
        remove(&path)?;
        super::copy_tree(&self.path, &path)?;
        Ok(Self { path })
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// Runs a program in the root and gives whether it succeeded and all that it printed.
    fn try_run(&self, words: &[&str]) -> Result<(bool, String)> {
        let output = Command::new("chroot")
            .arg(&self.path)
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .context("start chroot")?;
        let printed = [output.stdout.as_slice(), &output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let (good, printed) = self.try_run(words)?;
        ensure!(good, "in the fresh root, `{}` failed\n{printed}", words.join(" "));
        Ok(printed)
    }

    fn dpkg(&self, action: &[&str], packages: &[PathBuf]) -> Result<String> {
        let mut words = vec!["dpkg"];
        words.extend(action);
        let mut inside = Vec::new();
        for package in packages {
            let name = format!("/{}", package.file_name().unwrap_or_default().to_string_lossy());
            std::fs::copy(package, self.inside(&name)).context("copy a package into the root")?;
            inside.push(name);
        }
        words.extend(inside.iter().map(String::as_str));
        let printed = self.run(&words)?;
        for name in &inside {
            std::fs::remove_file(self.inside(name)).context("remove a package's copy")?;
        }
        Ok(printed)
    }

    fn rpm(&self, action: &[&str], packages: &[PathBuf]) -> Result<String> {
        let root = format!("--root={}", self.path.display());
        let packages: Vec<String> = packages.iter().map(|path| text(path)).collect();
        let mut words = vec![root.as_str(), "--nodeps"];
        words.extend(action);
        words.extend(packages.iter().map(String::as_str));
        run::output("rpm", &words)
    }

    fn has(&self, path: &str) -> bool {
        std::fs::symlink_metadata(self.inside(path)).is_ok()
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let list = PathBuf::from("/etc/apt/sources.list");
    if std::fs::read_to_string(&list).is_ok_and(|text| text.lines().any(|line| line.starts_with("deb "))) {
        found.push(list);
    }
    let debian = PathBuf::from("/etc/apt/sources.list.d/debian.sources");
    if debian.is_file() {
        found.push(debian);
    }
    found
}

/// Tries both formats.
///
/// # Errors
/// The first thing that is not as it should be.
pub(super) fn check(packages: &Packages, output: &Path) -> Result<()> {
    let programs = output.join("programs");
    remove(&programs)?;
    std::fs::create_dir_all(&programs).context("make a folder for the programs")?;
    for program in ["muster", "musterd"] {
        let staged = output.join("rpm/stage").join(program).join("usr/bin").join(program);
        std::fs::copy(&staged, programs.join(program)).context("copy a program")?;
    }
    let next = next_version(&run::root(), output, &programs)?;
    let fresh = Root::debian(output.join("root"))?;
    let for_rpm = fresh.copy(output.join("root-rpm"))?;
    debian(&fresh, packages, &next).context("Debian's packages")?;
    rpm(&for_rpm, packages, &next).context("RPM packages")?;
    eprintln!("    installed, upgraded and removed: {} packages", packages.all().len());
    Ok(())
}

fn debian(root: &Root, packages: &Packages, next: &Packages) -> Result<()> {
    eprintln!("==> install, upgrade and remove Debian's packages in it");
    let printed = root.dpkg(&["--install"], &packages.debian)?;
    ensure!(printed.contains("musterd check-config && systemctl enable --now musterd"), "no next step:\n{printed}");
    let files = root.run(&["dpkg", "--verify", "muster", "musterd", "muster-broker"])?;
    ensure!(files.is_empty(), "dpkg --verify found differences:\n{files}");
    ensure!(printed.contains("systemctl enable --now muster-broker"), "no next step for the broker:\n{printed}");
    installed(root)?;
    works(root, "/lib/systemd/system")?;

    let policy = "/etc/muster/policy.toml";
    let own = "# the site's own policy\n";
    append(root, policy, own)?;
    std::fs::write(root.inside("/var/lib/muster/journal"), "evidence").context("leave a trace of an agent")?;
    root.dpkg(&["--install", "--force-confold"], &next.debian)?;
    ensure!(read(root, policy)?.ends_with(own), "an upgrade lost the site's policy");
    ensure!(root.has("/var/lib/muster/journal"), "an upgrade lost the agent's state");

    let before_removal = root.run(&["cat", "/var/lib/dpkg/info/musterd.prerm"])?;
    ensure!(before_removal.contains("stop musterd.service"), "nothing stops the agent when it is removed");
    root.run(&["dpkg", "--remove", "muster", "musterd", "muster-broker"])?;
    ensure!(!root.has("/usr/bin/musterd") && !root.has("/usr/bin/muster"), "the programs are still there");
    for unit in ["musterd", "muster-broker"] {
        ensure!(!root.has(&format!("/lib/systemd/system/{unit}.service")), "the unit of {unit} is still there");
    }
    ensure!(read(root, policy)?.ends_with(own), "removing lost the site's policy");
    ensure!(root.has("/var/lib/muster/journal"), "removing lost the agent's state");

    let printed = root.run(&["dpkg", "--purge", "muster", "musterd", "muster-broker"])?;
    ensure!(!root.has("/var/lib/muster"), "the agent's state is left after a purge");
    ensure!(!root.has(policy), "the policy is left after a purge");
    ensure!(root.has("/etc/muster/pki/host.key"), "a purge removed a key that an administrator had put there");
    ensure!(printed.contains("revoke the host's certificate"), "a purge does not say what is left:\n{printed}");
    std::fs::remove_dir_all(root.inside("/etc/muster")).context("remove what was put there by hand")?;

    root.dpkg(&["--install"], &packages.debian)?;
    installed(root).context("installed again")?;
    root.run(&["dpkg", "--purge", "muster", "musterd", "muster-broker"])?;
    for path in
        ["/etc/muster", "/var/lib/muster", "/var/lib/muster-service", "/var/lib/muster-broker", "/usr/lib/muster"]
    {
        ensure!(!root.has(path), "`{path}` is left after a purge of what nobody had touched");
    }
    Ok(())
}

fn rpm(root: &Root, packages: &Packages, next: &Packages) -> Result<()> {
    eprintln!("==> install, upgrade and remove the RPM packages in a copy of it");
    for package in &packages.rpm {
        let needs = run::output("rpm", &["--query", "--requires", "--package", &text(package)])?;
        for need in needs.lines() {
            let known = RPM_NEEDS.iter().any(|known| need.starts_with(known));
            ensure!(known, "`{}` needs `{need}`, which nobody expects", package.display());
        }
    }
    let printed = root.rpm(&["--install"], &packages.rpm)?;
    ensure!(printed.contains("musterd check-config && systemctl enable --now musterd"), "no next step:\n{printed}");
    let differences = root.rpm(&["--verify", "muster", "musterd", "muster-broker"], &[])?;
    ensure!(differences.is_empty(), "rpm --verify found differences:\n{differences}");
    ensure!(printed.contains("systemctl enable --now muster-broker"), "no next step for the broker:\n{printed}");
    installed(root)?;
    works(root, "/usr/lib/systemd/system")?;

    let policy = "/etc/muster/policy.toml";
    let own = "# the site's own policy\n";
    append(root, policy, own)?;
    std::fs::write(root.inside("/var/lib/muster/journal"), "evidence").context("leave a trace of an agent")?;
    root.rpm(&["--upgrade"], &next.rpm)?;
    ensure!(read(root, policy)?.ends_with(own), "an upgrade lost the site's policy");
    ensure!(root.has("/var/lib/muster/journal"), "an upgrade lost the agent's state");

    root.rpm(&["--erase", "muster", "musterd", "muster-broker"], &[])?;
    for path in [
        "/usr/bin/musterd",
        "/usr/bin/muster",
        "/usr/lib/systemd/system/musterd.service",
        "/usr/lib/systemd/system/muster-broker.service",
    ] {
        ensure!(!root.has(path), "`{path}` is still there");
    }
    ensure!(read(root, "/etc/muster/policy.toml.rpmsave")?.ends_with(own), "erasing lost the site's policy");
    ensure!(root.has("/var/lib/muster/journal"), "erasing lost the agent's state");
    ensure!(root.has("/etc/muster/pki/host.key"), "erasing removed a key that an administrator had put there");
    Ok(())
}

/// Owner and mode of everything, and the system user.
fn installed(root: &Root) -> Result<()> {
    let mut wrong = Vec::new();
    for (path, kind, owner) in EXPECTED {
        let (there, found) = root.try_run(&["stat", "--format=%F %a|%U:%G", path])?;
        let found = found.trim().replace("regular empty file", "regular file");
        if !there || found != format!("{kind}|{owner}") {
            wrong.push(format!("`{path}` should be {kind}|{owner} and is {found}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (name, home) in [("muster", "/var/lib/muster-service"), ("muster-broker", "/var/lib/muster-broker")] {
        let user = root.run(&["getent", "passwd", name])?;
        ensure!(user.trim().ends_with(&format!(":{home}:/usr/sbin/nologin")), "the system user is {user}");
    }
    Ok(())
}

/// The programs run, and the units are some, which nothing starts before there is a certificate.
fn works(root: &Root, units: &str) -> Result<()> {
    root.run(&["muster", "--version"])?;
    root.run(&["musterd", "--version"])?;
    for unit in ["musterd.service", "muster-broker.service"] {
        root.run(&["systemd-analyze", "verify", "--man=no", &format!("{units}/{unit}")])?;
        let (enabled, state) = root.try_run(&["systemctl", "is-enabled", unit])?;
        ensure!(!enabled && state.contains("disabled"), "{unit} is {state} before there is a certificate");
    }
    needs_nothing(root)?;
    let (good, printed) = root.try_run(&["musterd", "check-config"])?;
    ensure!(
        !good && printed.contains("/etc/muster/pki/host.pem"),
        "without a certificate check-config says:\n{printed}"
    );

    // As the first quarter of an hour of the book has it.
    let ca = "/root/ca";
    root.run(&["muster", "pki", "init", "--ca-dir", ca])?;
    root.run(&["muster", "pki", "issue", "host/web1.example.com", "--ca-dir", ca, "--out", "/root/web1"])?;
    let pki = "/etc/muster/pki";
    for (from, to) in [
        ("host-web1.example.com.pem", "host.pem"),
        ("host-web1.example.com.key", "host.key"),
        ("ca.pem", "ca.pem"),
        ("crl.pem", "crl.pem"),
    ] {
        root.run(&["cp", &format!("/root/web1/{from}"), &format!("{pki}/{to}")])?;
    }
    root.run(&["chmod", "0600", &format!("{pki}/host.key")])?;
    root.run(&["musterd", "check-config"])?;
    root.run(&["systemctl", "enable", "musterd.service"])?;
    root.run(&["systemctl", "disable", "musterd.service"]).map(drop)
}

/// On a machine that has nothing else an ordinary user gets a whole bus: `muster dev`.
fn needs_nothing(root: &Root) -> Result<()> {
    let home = "/home/newcomer";
    std::fs::create_dir_all(root.inside(home)).context("make a home")?;
    root.run(&["chown", "nobody", home])?;
    // Agents find themselves again through /proc, which a root in a folder does not have.
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", &format!("--mount-proc={}", text(&root.inside("/proc")))])
        .arg("chroot")
        .arg(&root.path)
        .args(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"])
        .args(["muster", "dev", "--check"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .context("start unshare")?;
    let printed = [output.stdout.as_slice(), &output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    ensure!(output.status.success(), "in the fresh root, `muster dev --check` failed\n{printed}");
    std::fs::remove_dir_all(root.inside(home)).context("remove a home")
}

fn append(root: &Root, path: &str, line: &str) -> Result<()> {
    let text = read(root, path)? + line;
    std::fs::write(root.inside(path), text).with_context(|| format!("write `{path}` of the root"))
}

fn read(root: &Root, path: &str) -> Result<String> {
    match std::fs::read_to_string(root.inside(path)) {
        Ok(text) => Ok(text),
        Err(error) => bail!("read `{path}` of the root: {error}"),
    }
}
