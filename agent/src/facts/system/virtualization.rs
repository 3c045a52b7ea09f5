//! On what kind of machine this runs, judged by files that need no special rights.

use std::path::Path;

/// The word for a machine of metal.
pub(super) const PHYSICAL: &str = "physical";

/// What firmware calls itself, and the hypervisor behind it in Facter's words. First match wins.
const FIRMWARE: &[(&str, &str)] = &[
    ("KVM", "kvm"),
    ("QEMU", "kvm"),
    ("Google Compute Engine", "gce"),
    ("Amazon EC2", "kvm"),
    ("OpenStack", "openstack"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("innotek", "virtualbox"),
    ("Virtual Machine", "hyperv"),
    ("Xen", "xen"),
    ("Parallels", "parallels"),
    ("Bochs", "bochs"),
    ("BHYVE", "bhyve"),
];

pub(super) fn detect(root: &Path) -> String {
    container(root).or_else(|| hypervisor(root)).unwrap_or_else(|| PHYSICAL.to_owned())
}

fn container(root: &Path) -> Option<String> {
    // systemd writes the container manager's name here when it runs inside one.
    let named = std::fs::read_to_string(root.join("run/systemd/container")).ok().map(|text| text.trim().to_owned());
    let marked = || root.join(".dockerenv").exists().then(|| "docker".to_owned());
    let podman = || root.join("run/.containerenv").exists().then(|| "podman".to_owned());
    named.filter(|name| !name.is_empty()).or_else(marked).or_else(podman)
}

fn hypervisor(root: &Path) -> Option<String> {
    for file in ["product_name", "sys_vendor", "bios_vendor", "product_version"] {
        let text = std::fs::read_to_string(root.join("sys/class/dmi/id").join(file)).unwrap_or_default();
        if let Some((_, name)) = FIRMWARE.iter().find(|(word, _)| text.contains(word)) {
            return Some((*name).to_owned());
        }
    }
    let hypervisor = std::fs::read_to_string(root.join("sys/hypervisor/type")).unwrap_or_default();
    if !hypervisor.trim().is_empty() {
        return Some(hypervisor.trim().to_owned());
    }
    let processor = std::fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let flagged = processor
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_whitespace().any(|flag| flag == "hypervisor"));
    flagged.then(|| "unknown".to_owned())
}
