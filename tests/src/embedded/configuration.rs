//! The configuration file of one embedded broker, as a test wants it at the moment.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use muster_broker_config::ServerCertificate;
use muster_protocol::Identity;
use serde_json::Value;

use crate::broker::Shortage;

/// What the file says.
#[derive(Debug, Clone)]
pub(super) struct Configuration {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) vhost: String,
    pub(super) members: BTreeSet<Identity>,
    pub(super) heartbeat_s: Option<u16>,
    pub(super) certificate: ServerCertificate,
    pub(super) crl: PathBuf,
    pub(super) state: PathBuf,
    pub(super) control: PathBuf,
    pub(super) lacks: BTreeSet<&'static str>,
}

/// The limit that is set to nothing for a shortage.
pub(super) fn limit_of(shortage: Shortage) -> &'static str {
    match shortage {
        Shortage::Memory => "memory_bytes",
        Shortage::Disk => "disk_bytes",
    }
}

impl Configuration {
    pub(super) fn text(&self) -> String {
        let text = |value: &dyn std::fmt::Display| Value::from(value.to_string()).to_string();
        let list = |items: Vec<String>| format!("[{}]", items.join(", "));
        let heartbeat =
            self.heartbeat_s.map(|heartbeat_s| format!("heartbeat_s = {heartbeat_s}\n")).unwrap_or_default();
        let limits: String = self.lacks.iter().map(|limit| format!("{limit} = 0\n")).collect();
        format!(
            "listen = {listen}\nvhost = {vhost}\nmembers = {members}\nstate_dir = {state}\ncontrol = {control}\n{heartbeat}\n\
             [pki]\nca = {ca}\ncrl = {crl}\ncertificate = {certificate}\nkey = {key}\n\n[limits]\n{limits}",
            listen = list(self.listen.iter().map(|address| text(address)).collect()),
            vhost = text(&self.vhost),
            members = list(self.members.iter().map(|member| text(&member.short())).collect()),
            state = text(&self.state.display()),
            control = text(&self.control.display()),
            ca = text(&self.certificate.ca.display()),
            crl = text(&self.crl.display()),
            certificate = text(&self.certificate.certificate.display()),
            key = text(&self.certificate.key.display()),
        )
    }
}
