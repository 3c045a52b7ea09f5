//! The trees that the packages are made of: which file goes where, and how it may be read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Recipe, remove, text, tool};
use crate::run;

/// The two families of packages, which put some things in other places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Debian,
    Rpm,
}

/// A directory of a package, and its mode. Its owner is root, if the packages' scripts do not say otherwise.
type Directory = (&'static str, u32);

const MUSTERD_DIRECTORIES: &[Directory] = &[
    ("etc/muster", 0o755),
    ("etc/muster/facts.d", 0o755),
    ("etc/muster/musterd.d", 0o755),
    ("etc/muster/pki", 0o700),
    ("etc/muster/plugin.d", 0o755),
    ("usr/lib/muster/plugins", 0o755),
    ("var/lib/muster", 0o700),
];

const MUSTER_DIRECTORIES: &[Directory] =
    &[("etc/muster", 0o755), ("etc/muster/service", 0o750), ("var/lib/muster-service", 0o750)];

const BROKER_DIRECTORIES: &[Directory] =
    &[("etc/muster", 0o755), ("etc/muster/broker", 0o750), ("var/lib/muster-broker", 0o700)];

/// The version of the workspace.
pub(super) fn version(root: &Path) -> Result<String> {
    let manifest = read(&root.join("Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = \"")).and_then(|it| it.split('"').next());
    Ok(line.context("find the version in Cargo.toml")?.to_owned())
}

/// The only entry of Debian's changelog. What changed is in ours.
pub(super) fn debian_changelog(version: &str, epoch: &str) -> Result<String> {
    let date = run::output("date", &["--utc", "--rfc-email", &format!("--date=@{epoch}")])?;
    let maintainer = "The Muster project <packages@muster.invalid>";
    Ok(format!(
        "muster ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {maintainer}  {}\n",
        date.trim()
    ))
}

/// Makes `folder/musterd`, `folder/muster` and `folder/muster-broker`, as they will lie on a host.
pub(super) fn stage(recipe: &Recipe, folder: &Path, format: Format) -> Result<()> {
    let Recipe { root, programs, epoch, .. } = recipe;
    remove(folder)?;
    let (musterd, muster, broker) = (folder.join("musterd"), folder.join("muster"), folder.join("muster-broker"));
    for (tree, directories) in
        [(&musterd, MUSTERD_DIRECTORIES), (&muster, MUSTER_DIRECTORIES), (&broker, BROKER_DIRECTORIES)]
    {
        for (name, mode) in directories {
            let path = tree.join(name);
            std::fs::create_dir_all(&path).with_context(|| format!("make `{}`", path.display()))?;
            set_mode(&path, *mode)?;
        }
    }
    let (units, zsh) = match format {
        Format::Debian => ("lib/systemd/system", "usr/share/zsh/vendor-completions"),
        Format::Rpm => ("usr/lib/systemd/system", "usr/share/zsh/site-functions"),
    };
    let dist = root.join("dist");
    program(&programs.join("musterd"), &musterd.join("usr/bin/musterd"))?;
    program(&programs.join("muster"), &muster.join("usr/bin/muster"))?;
    for (from, tree, to) in [
        ("etc/musterd.toml", &musterd, "etc/muster/musterd.toml".to_owned()),
        ("etc/policy.toml", &musterd, "etc/muster/policy.toml".to_owned()),
        ("systemd/musterd.service", &musterd, format!("{units}/musterd.service")),
        ("etc/broker.toml", &broker, "etc/muster/broker.toml".to_owned()),
        ("systemd/muster-broker.service", &broker, format!("{units}/muster-broker.service")),
        ("etc/config.toml", &muster, "etc/muster/config.toml".to_owned()),
        ("completions/muster.bash", &muster, "usr/share/bash-completion/completions/muster".to_owned()),
        ("completions/muster.fish", &muster, "usr/share/fish/vendor_completions.d/muster.fish".to_owned()),
        ("completions/_muster", &muster, format!("{zsh}/_muster")),
    ] {
        file(&dist.join(from), &tree.join(to))?;
    }
    if format == Format::Rpm {
        // debhelper puts Debian's in place.
        for (name, tree) in [("muster.conf", &muster), ("muster-broker.conf", &broker)] {
            file(&dist.join("sysusers").join(name), &tree.join("usr/lib/sysusers.d").join(name))?;
        }
    }
    for (tree, name) in [(&musterd, "musterd"), (&muster, "muster"), (&broker, "muster-broker")] {
        // debhelper would take a file called CHANGELOG for the one of Debian.
        for (document, called) in
            [("CHANGELOG.md", "NEWS.md"), ("LICENSE-APACHE", "LICENSE-APACHE"), ("LICENSE-MIT", "LICENSE-MIT")]
        {
            file(&root.join(document), &tree.join("usr/share/doc").join(name).join(called))?;
        }
    }
    manual(&musterd, "musterd", 8, "agent that runs signed commands and proves what happened", epoch)?;
    manual(&muster, "muster", 1, "runs signed commands on many hosts", epoch)
}

/// A page of the manual, from what the program says of itself.
fn manual(tree: &Path, name: &str, section: u8, about: &str, epoch: &str) -> Result<()> {
    let path = tree.join(format!("usr/share/man/man{section}/{name}.{section}"));
    make_parent(&path)?;
    let (program, output) = (tree.join("usr/bin").join(name), format!("--output={}", path.display()));
    let (section, about) = (format!("--section={section}"), format!("--name={about}"));
    let arguments = ["--no-info", &section, &about, &output, &text(&program)];
    tool(&format!("write the manual page of {name}"), "help2man", &arguments, |it| {
        it.env("SOURCE_DATE_EPOCH", epoch).env("LC_ALL", "C.UTF-8").env("COLUMNS", "80")
    })?;
    set_mode(&path, 0o644)?;
    run::output("gzip", &["-9", "--no-name", &text(&path)]).map(drop)
}

/// A program, without what only a debugger reads.
fn program(from: &Path, to: &Path) -> Result<()> {
    file(from, to)?;
    run::output("strip", &["--remove-section=.comment", &text(to)])?;
    set_mode(to, 0o755)
}

fn file(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    std::fs::copy(from, to).with_context(|| format!("copy `{}` to `{}`", from.display(), to.display()))?;
    set_mode(to, 0o644)
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).with_context(|| format!("make `{}`", parent.display()))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of `{}`", path.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}
