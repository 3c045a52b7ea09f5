//! Debian and RPM packages of `muster` and `musterd`, and of the embedded broker's service.
//!
//! ```text
//! cargo build ─► stage/{musterd,muster,muster-broker}/... ─► dpkg-buildpackage ─► *.deb ─┐
//!   dist/, docs     (one tree per package)                └► rpmbuild ──────────► *.rpm ─┴► SHA256SUMS
//! ```
//!
//! Both formats are made from the same staged trees by the distributions' own tools, from the rules in `dist/debian`
//! and `dist/rpm`. Same sources, same toolchain, same bytes: paths are mapped away and times are the commit's.

mod build;
mod check;
mod stage;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{machine, run};
pub(crate) use build::shipped_agent;
use stage::Format;

/// How many packages each format has.
const PACKAGES: usize = 3;

/// What is asked for on the command line.
#[derive(Debug)]
struct Options {
    profile: String,
    check: bool,
}

impl Options {
    fn read(words: &[&str]) -> Result<Self> {
        let mut options = Self { profile: build::DIST.to_owned(), check: false };
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            match *word {
                "--check" => options.check = true,
                "--profile" => {
                    options.profile = (*rest.next().context("`--profile` needs a name, such as `dist`")?).to_owned();
                }
                other => bail!("`{other}` is unknown; usage: cargo xtask package [--profile dist|dev] [--check]"),
            }
        }
        Ok(options)
    }
}

/// `cargo xtask package [--profile dist|dev] [--check]`.
///
/// # Errors
/// When a tool is missing, a step fails, or with `--check` a package does not do what it should.
pub(crate) fn package(words: &[&str]) -> Result<()> {
    let options = Options::read(words)?;
    machine::need_packaging()?;
    let output = run::root().join("target/package");
    let packages = make(&run::root(), &output, &options.profile)?;
    for path in packages.all() {
        eprintln!("    {}", path.display());
    }
    if options.check { check::check(&packages, &output) } else { Ok(()) }
}

/// Only the check, with programs that are built already; part of `cargo xtask test`.
///
/// # Errors
/// As [`package`].
pub(crate) fn check_built() -> Result<()> {
    package(&["--profile", "dev", "--check"])
}

/// `cargo xtask reproducible`: builds the committed state twice, in folders with other names, and compares.
///
/// # Errors
/// When a build fails, or the two differ.
pub(crate) fn reproducible() -> Result<()> {
    machine::need_packaging()?;
    let base = run::root().join("target/reproducible");
    remove(&base)?;
    let mut sums = Vec::new();
    for name in ["one", "another-folder"] {
        let clone = base.join(name);
        run::step("clone the committed state", "git", &["clone", "-q", "--no-hardlinks", ".", &text(&clone)])?;
        let packages = make(&clone, &clone.join("target/package"), build::DIST)?;
        sums.push(checksums(&packages.all())?);
    }
    let (one, other) = (&sums[0], &sums[1]);
    eprint!("{one}");
    if one != other {
        bail!("the two builds differ; the other one has\n{other}");
    }
    eprintln!("    both builds are the same, byte for byte");
    Ok(())
}

/// The packages of one version, and of the next one for trying an upgrade.
#[derive(Debug)]
pub(crate) struct Packages {
    debian: Vec<PathBuf>,
    rpm: Vec<PathBuf>,
}

impl Packages {
    fn all(&self) -> Vec<PathBuf> {
        self.debian.iter().chain(&self.rpm).cloned().collect()
    }
}

/// What packages are made from.
#[derive(Debug)]
struct Recipe {
    /// The repository.
    root: PathBuf,
    /// The folder with the two programs.
    programs: PathBuf,
    version: String,
    /// The time of the commit, in seconds since 1970.
    epoch: String,
    /// Whether they are only tried, so that they need not be small.
    to_try: bool,
}

fn make(root: &Path, output: &Path, profile: &str) -> Result<Packages> {
    let recipe = Recipe {
        root: root.to_owned(),
        programs: build::build(root, output, profile)?,
        version: stage::version(root)?,
        epoch: commit_time(root)?,
        to_try: profile == "dev",
    };
    let packages = recipe.make(output)?;
    let sums = checksums(&packages.all())?;
    std::fs::write(output.join("SHA256SUMS"), sums).context("write SHA256SUMS")?;
    Ok(packages)
}

impl Recipe {
    fn make(&self, output: &Path) -> Result<Packages> {
        Ok(Packages { debian: self.debian(output)?, rpm: self.rpm(output)? })
    }

    fn debian(&self, output: &Path) -> Result<Vec<PathBuf>> {
        let folder = output.join("debian");
        remove(&folder)?;
        let source = folder.join("muster");
        stage::stage(self, &source.join("stage"), Format::Debian)?;
        copy_tree(&self.root.join("dist/debian"), &source.join("debian"))?;
        for package in ["muster", "muster-broker"] {
            let (from, to) = (format!("dist/sysusers/{package}.conf"), format!("debian/{package}.sysusers"));
            std::fs::copy(self.root.join(from), source.join(to)).context("copy the description of a system user")?;
        }
        std::fs::write(source.join("debian/changelog"), stage::debian_changelog(&self.version, &self.epoch)?)
            .context("write debian/changelog")?;
        let compression = if self.to_try { "gzip" } else { "xz" };
        let arguments = ["--build=binary", "--no-sign", "--no-check-builddeps"];
        tool("make Debian's packages", "dpkg-buildpackage", &arguments, |it| {
            it.current_dir(&source).env("SOURCE_DATE_EPOCH", &self.epoch).env("MUSTER_COMPRESSION", compression)
        })?;
        found(&folder, "deb", PACKAGES)
    }

    fn rpm(&self, output: &Path) -> Result<Vec<PathBuf>> {
        let folder = output.join("rpm");
        remove(&folder)?;
        let stage = folder.join("stage");
        stage::stage(self, &stage, Format::Rpm)?;
        let define = |name: &str, value: &str| format!("{name} {value}");
        let defines = [
            define("stage", &text(&stage)),
            define("muster_version", &self.version),
            define("muster_payload", if self.to_try { "w1.gzdio" } else { "w9.xzdio" }),
            define("_topdir", &text(&folder.join("build"))),
            define("_rpmdir", &text(&folder)),
            define("_rpmfilename", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"),
        ];
        let mut arguments = vec!["-bb", "--quiet"];
        for define in &defines {
            arguments.extend(["--define", define.as_str()]);
        }
        let spec = text(&self.root.join("dist/rpm/muster.spec"));
        arguments.push(&spec);
        tool("make RPM packages", "rpmbuild", &arguments, |it| it.env("SOURCE_DATE_EPOCH", &self.epoch))?;
        found(&folder, "rpm", PACKAGES)
    }
}

/// Packages of the version after this one, for trying an upgrade.
fn next_version(root: &Path, output: &Path, programs: &Path) -> Result<Packages> {
    let recipe = Recipe {
        root: root.to_owned(),
        programs: programs.to_owned(),
        version: format!("{}.1", stage::version(root)?),
        epoch: commit_time(root)?,
        to_try: true,
    };
    recipe.make(&output.join("next"))
}

/// The time of the commit, in seconds: what SOURCE_DATE_EPOCH of reproducible-builds.org wants.
fn commit_time(root: &Path) -> Result<String> {
    let root = text(root);
    let time = run::output("git", &["-C", &root, "log", "-1", "--format=%ct"])
        .context("find the time of the commit; packages are made from a git repository")?;
    Ok(time.trim().to_owned())
}

fn checksums(paths: &[PathBuf]) -> Result<String> {
    let mut sums = String::new();
    for path in paths {
        let line = run::output("sha256sum", &[&text(path)])?;
        let sum = line.split(' ').next().unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        sums.push_str(&format!("{sum}  {name}\n"));
    }
    Ok(sums)
}

fn found(folder: &Path, ending: &str, count: usize) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list `{}`", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == ending) {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.len() != count {
        bail!("`{}` has {} .{ending} files where {count} were expected", folder.display(), paths.len());
    }
    Ok(paths)
}

/// Runs a tool that talks much: what it says is shown only if it fails.
fn tool(what: &str, program: &str, arguments: &[&str], with: impl Fn(&mut Command) -> &mut Command) -> Result<()> {
    eprintln!("==> {what}");
    let mut command = Command::new(program);
    command.args(arguments);
    let output = with(&mut command).output().with_context(|| format!("{what}: start `{program}`"))?;
    if !output.status.success() {
        bail!(
            "{what}: `{program}` ended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    run::output("cp", &["-a", "--", &text(from), &text(to)]).map(drop)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.with_context(|| format!("remove `{}`", path.display()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
