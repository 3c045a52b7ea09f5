//! What was measured, each number with the place where it comes from. The numbers are a file that is checked in beside the
//! documents, so that whoever doubts one can change it and look at what follows.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// The checked-in numbers.
pub const MEASURED: &str = include_str!("../../../docs/performance/growth/constants.json");

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it is.
    pub what: String,
    /// Where it was measured, or that it is assumed.
    pub from: String,
}

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The numbers that the arithmetic and the model use, by name. Units are last in the names.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Constants {
            $($(#[$doc])* pub $name: f64,)*
        }

        impl Constants {
            /// Reads the numbers.
            ///
            /// # Errors
            /// One is missing, unknown, negative or no number.
            pub fn parse(text: &str) -> Result<(Self, BTreeMap<String, Constant>)> {
                let table: BTreeMap<String, Constant> = serde_json::from_str(text).context("read the constants")?;
                let known = [$(stringify!($name)),*];
                for (name, constant) in &table {
                    ensure!(known.contains(&name.as_str()), "`{name}` is no constant; there are {}", known.join(", "));
                    ensure!(constant.value.is_finite() && constant.value >= 0.0, "`{name}` is {}", constant.value);
                }
                let value = |name: &str| table.get(name).map(|it| it.value).with_context(|| format!("`{name}` is missing"));
                Ok((Self { $($name: value(stringify!($name))?,)* }, table.clone()))
            }
        }
    };
}

constants! {
    /// Broker: processor time for one host and one command that all share, from the routed copy to the acknowledgement.
    command_us,
    /// Broker: the part of `command_us` that one process does for all hosts one after the other.
    route_us,
    /// Broker: processor time for one report of one host, from its connection to the controller's.
    report_us,
    /// Broker: the part of `report_us` that the reply queue's process and the controller's writer do one after the other.
    reply_queue_us,
    /// Broker: processor time for each KiB of a report beyond the first.
    report_kib_us,
    /// Centre: processor time for a command that leaves for a site.
    link_command_center_us,
    /// Site: processor time for a command that comes from the centre.
    link_command_site_us,
    /// Centre: processor time for a report that a site forwards, its reply queue included.
    link_report_center_us,
    /// Site: processor time for a report that it takes and forwards.
    link_report_site_us,
    /// Reports that one link forwards in a second, alone on the machine.
    link_reports_per_second,
    /// Centre: what the key of one host of a site takes.
    link_host_bytes,
    /// Keys that a link binds at the centre in a second.
    link_keys_per_second,
    /// Cluster: processor time on each of two nodes for a message that goes from one to the other.
    hop_us,
    /// Agent: processor time for one ping, verified, recorded, answered.
    agent_us,
    /// Controller: processor time for one verified reply.
    controller_us,
    /// Controller: processor time for each KiB of a report beyond the first.
    controller_kib_us,
    /// Controller: memory of a command before anybody has answered.
    controller_base_bytes,
    /// Controller: memory for each host that is asked.
    controller_host_bytes,
    /// A command's bytes on the wire.
    command_bytes,
    /// A report's bytes on the wire, without output.
    report_bytes,
    /// Broker: processor time for a host that connects: TLS, login, queue, bindings, consumer.
    connect_us,
    /// Broker: memory of a connected host: connection, channels, queue, bindings.
    host_bytes,
    /// Definitions: bytes of a host's user and permissions.
    user_bytes,
    /// Definitions: time to import a host's user.
    user_import_us,
    /// Revocation list: bytes of an entry.
    revocation_bytes,
    /// Authority: time for a certificate, its record included.
    certificate_us,
    /// Idle agent: bytes a minute on the wire, both ways.
    idle_bytes_per_minute,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_numbers_are_complete_and_say_where_they_are_from() {
        let (constants, table) = Constants::parse(MEASURED).unwrap();
        assert!(constants.route_us <= constants.command_us && constants.reply_queue_us <= constants.report_us);
        for (name, constant) in table {
            let named = [("_us", "µs"), ("_bytes", "bytes"), ("_per_second", "1/s"), ("_per_minute", "bytes/min")];
            let unit = named.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, unit)| unit);
            assert_eq!(Some(constant.unit.as_str()), unit, "{name}");
            assert!(constant.from.len() > 10 && constant.what.len() > 10, "{name}");
        }
    }

    #[test]
    fn a_wrong_table_is_refused_by_name() {
        let without = MEASURED.replacen("\"hop_us\"", "\"hops_us\"", 1);
        assert!(Constants::parse(&without).unwrap_err().to_string().contains("`hops_us` is no constant"));
        let mut table: serde_json::Value = serde_json::from_str(MEASURED).unwrap();
        table.as_object_mut().unwrap().remove("agent_us");
        assert!(Constants::parse(&table.to_string()).unwrap_err().to_string().contains("`agent_us` is missing"));
        table["agent_us"] = serde_json::json!({"value": -1, "unit": "µs", "what": "", "from": ""});
        assert!(Constants::parse(&table.to_string()).unwrap_err().to_string().contains("`agent_us` is -1"));
    }
}
