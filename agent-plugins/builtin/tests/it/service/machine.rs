//! Machines for tests: process 1, mounts and processes of their own, over the programs of this host.
//!
//! They need root and the right to make namespaces. When the test ends, process 1 is killed and everything in the
//! machine ends with it.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use muster_plugins::{Service, ServicePaths};
use tempfile::TempDir;

use super::nowhere;
use crate::support::script;

/// What the machine of a systemd does before systemd starts: private mounts, few units, and a host that is read-only.
const SYSTEMD: &str = r#"
set -e
mount --make-rprivate /
mount -t proc proc /proc
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd "$1"
cp /lib/systemd/system/systemd-journald.service /lib/systemd/system/systemd-journald.socket \
   /lib/systemd/system/dbus.service /lib/systemd/system/dbus.socket .
mount -t tmpfs tmpfs /lib/systemd/system
cp *.service *.socket /lib/systemd/system
for target in sysinit basic multi-user shutdown timers; do
  printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$target" > "/lib/systemd/system/$target.target"
done
printf '[Unit]\nRequires=basic.target systemd-journald.service dbus.socket\n\
After=basic.target systemd-journald.service dbus.socket\n' > /lib/systemd/system/default.target
for generators in /lib/systemd/system-generators /etc/systemd/system-generators; do
  if [ -d "$generators" ]; then mount -t tmpfs tmpfs "$generators"; fi
done
mkdir -p /etc/systemd/system
mount -t tmpfs tmpfs /etc/systemd/system
mount -t tmpfs tmpfs /var/log
mkdir -p /var/log/dev/shm
for node in null zero full random urandom tty; do
  touch "/var/log/dev/$node"
  mount --bind "/dev/$node" "/var/log/dev/$node"
done
mount --rbind /var/log/dev /dev
mount -t tmpfs tmpfs /run
mount -o remount,bind,ro /
cd /
exec env -i container=muster-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --log-target=journal --show-status=0
"#;

/// The machine of OpenRC: this host with the package on top, an empty directory of scripts, and OpenRC's own boot.
/// Process 1 is a shell that buries the dead.
const OPENRC: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
cd "$1"
mkdir upper work merged
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" merged
for package in "$2"/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C merged; done
rm -rf merged/etc/runlevels
mount -t proc proc merged/proc
mount -t tmpfs tmpfs merged/run
mount -t tmpfs tmpfs merged/etc/init.d
mkdir -p merged/dev merged/etc/runlevels/sysinit merged/etc/runlevels/boot merged/etc/runlevels/default
mount --rbind /dev merged/dev
mkdir -p merged/run/openrc
chroot merged /sbin/openrc --quiet sysinit < /dev/null
chroot merged /sbin/openrc --quiet boot < /dev/null
chroot merged /sbin/openrc --quiet default < /dev/null
touch merged/run/ready
while :; do sleep 1; done
"#;

/// How long a machine may take to come up. It takes a tenth of a second where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Machine {
    leader: Child,
    init: u32,
    cgroup: Option<PathBuf>,
    /// Its root directory, seen from here.
    pub(super) root: PathBuf,
    pub(super) directory: TempDir,
}

impl Machine {
    /// A machine whose process 1 is systemd.
    pub(super) fn systemd() -> Self {
        for program in ["/lib/systemd/systemd", "/usr/bin/dbus-daemon", "/usr/bin/nsenter", "/usr/bin/unshare"] {
            assert!(
                Path::new(program).exists(),
                "`{program}` is missing; these tests need: apt-get install systemd dbus util-linux"
            );
        }
        let directory = tempfile::tempdir().unwrap();
        let units = directory.path().join("units");
        fs::create_dir(&units).unwrap();
        let mut machine = Self::start(directory, SYSTEMD, &[&units], "cgroup");
        machine.until("the system bus", |machine| machine.root.join("run/dbus/system_bus_socket").exists());
        let is_up = |machine: &Self| {
            matches!(machine.output(&["systemctl", "is-system-running"]).trim(), "running" | "degraded")
        };
        machine.until("systemd", is_up);
        machine
    }

    /// A machine that OpenRC has booted, from Debian's package, which is not installed on the host.
    pub(super) fn openrc() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let packages = directory.path().join("packages");
        let top = directory.path().join("top");
        fs::create_dir(&packages).unwrap();
        fs::create_dir(&top).unwrap();
        openrc_packages(&packages);
        let mut machine = Self::start(directory, OPENRC, &[&top, &packages], "none");
        let merged = machine.root.join(top.strip_prefix("/").unwrap()).join("merged");
        machine.until("OpenRC", |_| merged.join("run/ready").exists());
        machine.root = merged;
        machine
    }

    fn start(directory: TempDir, inner: &str, arguments: &[&Path], cgroup: &str) -> Self {
        // The kernel kills the leader with the thread of the test, and the machine with the leader.
        let outer = r#"
set -e
if [ "$2" = cgroup ]; then
  groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  if [ -n "$groups" ] && mkdir "$groups/muster-test-$$"; then echo $$ > "$groups/muster-test-$$/cgroup.procs"; fi
fi
inner=$1; shift 2
exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --uts --ipc --cgroup sh -c "$inner" sh "$@"
"#;
        let log = directory.path().join("log");
        let leader = Command::new("/bin/sh")
            .args(["-c", outer, "sh", inner, cgroup])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(fs::File::options().append(true).open(&log).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let cgroup =
            (cgroup == "cgroup").then(|| groups().map(|groups| groups.join(format!("muster-test-{}", leader.id()))));
        let mut machine = Self { leader, init: 0, cgroup: cgroup.flatten(), root: PathBuf::new(), directory };
        machine.until("process 1", |machine| child_of(machine.leader.id()).is_some());
        machine.init = child_of(machine.leader.id()).unwrap();
        machine.root = PathBuf::from(format!("/proc/{}/root", machine.init));
        machine
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let ended = self.leader.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let mut log = String::new();
                fs::File::open(self.directory.path().join("log")).unwrap().read_to_string(&mut log).unwrap();
                panic!(
                    "the machine did not come up ({what}; ended: {ended:?}). It needs root, the right to make \
                     namespaces and mounts, cgroup v2 and overlayfs. It said:\n{log}"
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a program in the machine.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--"]).args(words);
        command
    }

    /// What a program in the machine writes.
    pub(super) fn output(&self, words: &[&str]) -> String {
        let output = self.command(words).stderr(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes unit files and makes systemd read them.
    pub(super) fn units(&self, units: &[(&str, &str)]) {
        for (name, text) in units {
            fs::write(self.root.join("etc/systemd/system").join(name), text).unwrap();
        }
        assert!(self.command(&["systemctl", "daemon-reload"]).status().unwrap().success());
    }

    /// The plugin on this machine: its programs are those of the machine.
    pub(super) fn paths(&self) -> ServicePaths {
        let bin = self.directory.path().join("bin");
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            for program in ["systemctl", "journalctl"] {
                let text = format!(
                    "#!/bin/sh\nexec nsenter --target {} --mount --pid -- /usr/bin/{program} \"$@\"\n",
                    self.init
                );
                script(&bin.join(program), &text);
            }
            let merged = self.root.to_str().unwrap().split_once("/root").unwrap().1.to_owned();
            for program in ["rc-service", "rc-update"] {
                let text = format!(
                    "#!/bin/sh\nexec nsenter --target {} --mount --pid -- chroot '{merged}' /sbin/{program} \"$@\"\n",
                    self.init
                );
                script(&bin.join(program), &text);
            }
        }
        ServicePaths {
            programs: vec![bin],
            systemd_runtime: self.root.join("run/systemd/system"),
            system_bus: self.root.join("run/dbus/system_bus_socket"),
            openrc_runtime: self.root.join("run/openrc"),
            openrc_runlevels: self.root.join("etc/runlevels"),
            init_scripts: self.root.join("etc/init.d"),
            pid_files: self.root.join("run"),
            processes: self.root.join("proc"),
            ..nowhere(self.directory.path())
        }
    }

    pub(super) fn plugin(&self) -> Service {
        Service::new(self.paths())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Killing process 1 of its namespace is the end of all its processes; unshare passes that on.
        let _gone = self.leader.kill();
        let _over = self.leader.wait();
        let Some(cgroup) = &self.cgroup else { return };
        let deadline = Instant::now() + Duration::from_secs(10);
        while cgroup.exists() && Instant::now() < deadline {
            remove_groups(cgroup);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A group is removed as a directory, without its files, when nobody is in it any more.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _later = fs::remove_dir(group);
}

fn groups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1]))
}

/// The process that the leader, once it is `unshare`, has started.
fn child_of(parent: u32) -> Option<u32> {
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    if name.trim() != "unshare" {
        return None;
    }
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent_of = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parent_of == Some(parent)
    })
}

/// Debian's packages of OpenRC: from apt's archive if they are there, otherwise downloaded.
fn openrc_packages(into: &Path) {
    const PACKAGES: [&str; 3] = ["openrc", "librc1", "libeinfo1"];
    let archive = Path::new("/var/cache/apt/archives");
    let stored = |package: &str| {
        let entries = fs::read_dir(archive).into_iter().flatten().flatten();
        let prefix = format!("{package}_");
        entries.map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&prefix) && name.ends_with(".deb")
        })
    };
    let found: Vec<_> = PACKAGES.iter().filter_map(|package| stored(package)).collect();
    if found.len() == PACKAGES.len() {
        for path in found {
            fs::copy(&path, into.join(path.file_name().unwrap())).unwrap();
        }
        return;
    }
    let downloaded = Command::new("apt-get").arg("download").args(PACKAGES).current_dir(into).output();
    assert!(
        downloaded.as_ref().is_ok_and(|output| output.status.success()),
        "the packages {PACKAGES:?} are neither in {} nor could they be downloaded; these tests need: \
         apt-get install --download-only openrc. {downloaded:?}",
        archive.display()
    );
}
