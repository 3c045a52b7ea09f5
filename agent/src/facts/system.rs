//! What the kernel and the operating system say. Names follow Facter where it has one, so that
//! expressions written for it keep their meaning.

mod network;
mod release;
mod virtualization;

use std::path::Path;

use muster_protocol::HostName;
use serde_json::{Map, Value, json};
use sysinfo::{DiskRefreshKind, Disks, MemoryRefreshKind, System};

pub use release::{Release, parse_os_release};

/// Paths of facts that change by themselves; `*` stands for any name.
pub const VOLATILE: &[&str] = &[
    "memory.system.available_bytes",
    "memory.system.used_bytes",
    "memory.swap.available_bytes",
    "memory.swap.used_bytes",
    "mountpoints.*.available_bytes",
    "mountpoints.*.used_bytes",
    "system_uptime",
    "load_averages",
];

/// Longest list of mount points: container hosts have thousands that tell nobody anything.
const MOUNT_POINTS_MAX: usize = 200;

/// Asks the system. What it does not tell is left out and said in the second value.
pub(super) fn collect(host: &HostName) -> (Map<String, Value>, Vec<String>) {
    let mut facts = Facts { values: Map::new(), problems: Vec::new() };
    let hardware = System::cpu_arch();
    let release = release::read(Path::new("/"));
    match &release {
        Ok(release) => facts.set("os", release.fact(&hardware)),
        Err(why) => facts.problems.push(why.clone()),
    }
    let family = release.as_ref().map_or("", |release| release.family.as_str());
    facts.set("architecture", json!(release::architecture(&hardware, family)));
    facts.kernel();
    network::collect(host, &mut facts.values, &mut facts.problems);
    facts.processors(&hardware);
    facts.memory();
    facts.mount_points();
    facts.uptime();
    let kind = virtualization::detect(Path::new("/"));
    facts.set("virtual", json!(kind));
    facts.set("is_virtual", json!(kind != virtualization::PHYSICAL));
    // The directory exists exactly while systemd is the running init, sd_booted(3).
    facts.set("is_systemd", json!(Path::new("/run/systemd/system").is_dir()));
    (facts.values, facts.problems)
}

struct Facts {
    values: Map<String, Value>,
    problems: Vec<String>,
}

impl Facts {
    fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    fn take<T>(&mut self, what: &str, result: Result<T, sysinfo::Error>) -> Option<T> {
        result.map_err(|error| self.problems.push(format!("cannot read {what}: {error}"))).ok()
    }

    fn kernel(&mut self) {
        self.set("kernel", json!("Linux"));
        let release = System::kernel_version();
        if let Some(release) = self.take("the kernel's version", release) {
            let version = release.split('-').next().unwrap_or_default().to_owned();
            let major: Vec<&str> = version.split('.').take(2).collect();
            self.set("kernelmajversion", json!(major.join(".")));
            self.set("kernelversion", json!(version));
            self.set("kernelrelease", json!(release));
        }
    }

    fn processors(&mut self, hardware: &str) {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &'static str| {
            text.lines().filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            })
        };
        let models: Vec<String> = field("model name").collect();
        let count = field("processor").count();
        let sockets: std::collections::BTreeSet<String> = field("physical id").collect();
        self.set(
            "processors",
            json!({ "count": count, "physicalcount": sockets.len().max(1), "models": models, "isa": hardware }),
        );
    }

    fn memory(&mut self) {
        let system = System::new();
        let Some(mut system) = self.take("memory", system) else { return };
        system.refresh_memory_specifics(MemoryRefreshKind::everything());
        self.set(
            "memory",
            json!({
                "system": {
                    "total_bytes": system.total_memory(),
                    "available_bytes": system.available_memory(),
                    "used_bytes": system.used_memory(),
                },
                "swap": {
                    "total_bytes": system.total_swap(),
                    "available_bytes": system.free_swap(),
                    "used_bytes": system.used_swap(),
                },
            }),
        );
    }

    fn mount_points(&mut self) {
        // Network file systems are not in this list: one whose server is away would block the agent.
        let disks = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage());
        let Some(disks) = self.take("mount points", disks) else { return };
        let mut points = Map::new();
        for disk in disks.iter().take(MOUNT_POINTS_MAX) {
            let point = disk.mount_point().to_string_lossy().into_owned();
            let total = disk.total_space();
            let available = disk.available_space();
            points.insert(
                point,
                json!({
                    "device": disk.name().to_string_lossy(),
                    "filesystem": disk.file_system().to_string_lossy(),
                    "size_bytes": total,
                    "available_bytes": available,
                    "used_bytes": total.saturating_sub(available),
                    "read_only": disk.is_read_only(),
                }),
            );
        }
        self.set("mountpoints", Value::Object(points));
    }

    fn uptime(&mut self) {
        let uptime = System::uptime();
        if let Some(seconds) = self.take("uptime", uptime) {
            self.set(
                "system_uptime",
                json!({ "seconds": seconds, "hours": seconds / 3_600, "days": seconds / 86_400 }),
            );
        }
        let load = System::load_average();
        if let Some(load) = self.take("load averages", load) {
            self.set("load_averages", json!({ "1m": load.one, "5m": load.five, "15m": load.fifteen }));
        }
    }
}
