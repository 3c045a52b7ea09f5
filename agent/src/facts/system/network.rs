//! Names, interfaces and addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use muster_protocol::HostName;
use serde_json::{Map, Value, json};
use sysinfo::{Networks, System};

/// Longest list of interfaces: container hosts have one for each container.
const INTERFACES_MAX: usize = 200;

pub(super) fn collect(host: &HostName, values: &mut Map<String, Value>, problems: &mut Vec<String>) {
    let kernel_name = match System::host_name() {
        Ok(name) => name.to_lowercase(),
        Err(error) => {
            problems.push(format!("cannot read the host name: {error}"));
            host.as_str().to_owned()
        }
    };
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let fqdn = full_name(&kernel_name, host.as_str(), &resolver);
    let (hostname, domain) = match fqdn.split_once('.') {
        Some((hostname, domain)) => (hostname.to_owned(), Some(domain.to_owned())),
        None => (fqdn.clone(), None),
    };
    let mut networking = Map::new();
    networking.insert("hostname".into(), json!(hostname));
    networking.insert("fqdn".into(), json!(fqdn));
    if let Some(domain) = &domain {
        networking.insert("domain".into(), json!(domain));
        values.insert("domain".into(), json!(domain));
    }
    values.insert("hostname".into(), json!(hostname));
    values.insert("fqdn".into(), json!(fqdn));
    match Networks::new_with_refreshed_list() {
        Ok(networks) => interfaces(&networks, &mut networking),
        Err(error) => problems.push(format!("cannot read network interfaces: {error}")),
    }
    values.insert("networking".into(), Value::Object(networking));
}

/// The fully qualified name: the kernel's if it is one, else the identity's if it begins with the
/// kernel's, else the kernel's with the resolver's domain. Nothing is asked over the network.
fn full_name(kernel_name: &str, identity: &str, resolver: &str) -> String {
    if kernel_name.contains('.') {
        return kernel_name.to_owned();
    }
    if identity.strip_prefix(kernel_name).is_some_and(|rest| rest.starts_with('.')) {
        return identity.to_owned();
    }
    let domain = resolver.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("domain" | "search")).then(|| words.next()).flatten()
    });
    match domain.map(|domain| domain.trim_matches('.')) {
        Some(domain) if !domain.is_empty() => format!("{kernel_name}.{domain}"),
        _ => kernel_name.to_owned(),
    }
}

fn interfaces(networks: &Networks, networking: &mut Map<String, Value>) {
    // Sorted, so that the same host gives the same facts twice.
    let sorted: BTreeMap<String, _> =
        networks.iter().map(|(name, data)| (name.to_string_lossy().into_owned(), data)).collect();
    let mut all = Map::new();
    for (name, data) in sorted.iter().take(INTERFACES_MAX) {
        let mut interface = Map::new();
        let mut addresses: Vec<(IpAddr, u8)> = data.ip_networks().iter().map(|net| (net.addr, net.prefix)).collect();
        addresses.sort();
        let list = |wanted: fn(&IpAddr) -> bool| -> Vec<Value> {
            let of_kind = addresses.iter().filter(|(address, _)| wanted(address));
            of_kind.map(|(address, prefix)| json!({ "address": address.to_string(), "prefix": prefix })).collect()
        };
        for (key, bindings, first) in
            [("ip", "bindings", list(IpAddr::is_ipv4)), ("ip6", "bindings6", list(IpAddr::is_ipv6))]
        {
            if let Some(address) = first.first().and_then(|binding| binding.get("address")) {
                interface.insert(key.into(), address.clone());
                interface.insert(bindings.into(), Value::Array(first));
            }
        }
        interface.insert("mac".into(), json!(data.mac_address().to_string()));
        interface.insert("mtu".into(), json!(data.mtu()));
        all.insert(name.clone(), Value::Object(interface));
    }
    let primary = default_route_interface(Path::new("/")).filter(|name| all.contains_key(name));
    let fallback =
        || all.iter().find(|(name, fields)| *name != "lo" && fields.get("ip").is_some()).map(|(n, _)| n.clone());
    if let Some(name) = primary.or_else(fallback) {
        for key in ["ip", "ip6", "mac", "mtu"] {
            if let Some(value) = all.get(&name).and_then(|interface| interface.get(key)) {
                networking.insert(key.into(), value.clone());
            }
        }
        networking.insert("primary".into(), json!(name));
    }
    networking.insert("interfaces".into(), Value::Object(all));
}

/// The interface of the default route with the smallest metric, from the kernel's routing table.
fn default_route_interface(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("proc/net/route")).ok()?;
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
            let metric: u32 = fields.get(6)?.parse().ok()?;
            is_default.then(|| (metric, fields[0].to_owned()))
        })
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::full_name;

    #[test]
    fn the_full_name_asks_nobody() {
        for (kernel, identity, resolver, expected) in [
            ("web1.example.com", "web1", "search x.example", "web1.example.com"),
            ("web1", "web1.example.com", "search x.example", "web1.example.com"),
            ("web1", "web10.example.com", "nameserver 192.0.2.1\nsearch x.example y.example\n", "web1.x.example"),
            ("web1", "db1", "domain x.example.\n", "web1.x.example"),
            ("web1", "db1", "search .\n", "web1"),
            ("web1", "db1", "", "web1"),
        ] {
            assert_eq!(full_name(kernel, identity, resolver), expected, "{kernel} {identity} {resolver}");
        }
    }
}
