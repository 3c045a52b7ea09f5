//! Compares a running broker's definitions with the expected ones.

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::Identity;
use muster_protocol::routing::{EXCHANGE_COMMAND, EXCHANGE_REPLY, agent_queue, host_key, presence_key};
use serde::Serialize;

use crate::definitions::{Binding, Definitions, Parameter, Permission, Policy, TopicPermission, User};
use crate::permissions::{Operation, permissions_for};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Works and is safe, but differs from what would be generated.
    Warning,
    /// Something will not work, or somebody may do more than they should.
    Error,
}

/// One difference between the broker as it is and as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Stable machine code, such as `too-open`.
    pub code: &'static str,
    /// The user, exchange, policy, binding or setting.
    pub subject: String,
    /// What is the matter.
    pub what: String,
    /// The command or line that repairs it.
    pub remedy: String,
}

/// What repairs everything that is missing or differs: an import overwrites, and never deletes.
const IMPORT: &str = "rabbitmqctl import_definitions definitions.json";

/// Lists what is missing from `actual`, what differs, and what allows too much. Everything outside the
/// expected virtual hosts is somebody else's and left alone, except users of ours that reach there.
/// The worst findings come first. A virtual host that is missing is the only finding.
#[must_use]
pub fn check(actual: &Definitions, expected: &Definitions) -> Vec<Finding> {
    let mut check = Check {
        actual,
        expected,
        users: actual.users.iter().map(|user| user.name.as_str()).collect(),
        samples: sample_identities(expected),
        findings: Vec::new(),
    };
    for vhost in &expected.vhosts {
        if actual.vhosts.iter().all(|other| other.name != vhost.name) {
            let there: Vec<String> = actual.vhosts.iter().map(|other| format!("`{}`", other.name)).collect();
            let what = format!(
                "does not exist; there is {}",
                if there.is_empty() { "none".to_owned() } else { there.join(", ") }
            );
            let remedy = format!("if the name is right: {IMPORT}");
            check.error("missing-vhost", format!("virtual host {}", vhost.name), &what, &remedy);
        }
    }
    // Without it everything in it is missing too, and everybody in another one looks like a stranger.
    if !check.findings.is_empty() {
        return check.findings;
    }
    check.exchanges();
    check.users();
    check.permissions();
    check.topic_permissions();
    check.policies();
    check.bindings();
    check.links();
    check.parameters();
    let mut findings = check.findings;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

struct Check<'a> {
    actual: &'a Definitions,
    expected: &'a Definitions,
    /// Names of the broker's users.
    users: BTreeSet<&'a str>,
    samples: Vec<Identity>,
    findings: Vec<Finding>,
}

fn is_ours(user: &str) -> bool {
    user.starts_with("muster:")
}

fn delete_user(user: &str) -> String {
    format!("rabbitmqctl delete_user '{user}'")
}

impl Check<'_> {
    fn add(&mut self, severity: Severity, code: &'static str, subject: String, what: &str, remedy: &str) {
        self.findings.push(Finding { severity, code, subject, what: what.to_owned(), remedy: remedy.to_owned() });
    }

    fn error(&mut self, code: &'static str, subject: String, what: &str, remedy: &str) {
        self.add(Severity::Error, code, subject, what, remedy);
    }

    fn warning(&mut self, code: &'static str, subject: String, what: &str, remedy: &str) {
        self.add(Severity::Warning, code, subject, what, remedy);
    }

    fn has_user(&self, name: &str) -> bool {
        self.users.contains(name)
    }

    fn is_our_vhost(&self, name: &str) -> bool {
        self.expected.vhosts.iter().any(|vhost| vhost.name == name)
    }

    fn exchanges(&mut self) {
        for exchange in &self.expected.exchanges {
            let subject = format!("exchange {}", exchange.name);
            let found =
                self.actual.exchanges.iter().find(|other| other.name == exchange.name && other.vhost == exchange.vhost);
            match found {
                None => self.error("missing-exchange", subject, "does not exist", IMPORT),
                Some(other) if other != exchange => {
                    let what = if other.arguments == exchange.arguments {
                        "is not a durable topic exchange"
                    } else {
                        "has arguments that can send messages elsewhere"
                    };
                    let remedy = "stop agents and controllers, `rabbitmqctl eval` or the management interface to \
                                  delete it, then import";
                    self.error("wrong-exchange", subject, what, remedy);
                }
                Some(_) => {}
            }
        }
    }

    fn users(&mut self) {
        let actual: BTreeMap<&str, &User> = self.actual.users.iter().map(|user| (user.name.as_str(), user)).collect();
        for user in &self.expected.users {
            let subject = format!("user {}", user.name);
            let Some(found) = actual.get(user.name.as_str()) else {
                self.error("missing-user", subject, "does not exist, so its certificate cannot log in", IMPORT);
                continue;
            };
            self.user(user, found, &subject);
        }
        let known: BTreeSet<&str> = self.expected.users.iter().map(|user| user.name.as_str()).collect();
        for user in self.actual.users.iter().filter(|user| !known.contains(user.name.as_str())) {
            let subject = format!("user {}", user.name);
            if user.name == "guest" {
                let what = "the user every RabbitMQ begins with, with a well-known password, still exists";
                self.error("guest-user", subject, what, &delete_user("guest"));
            } else if is_ours(&user.name) {
                let what = "is not among the valid certificates: revoked, expired or never issued";
                self.error("unknown-user", subject, what, &delete_user(&user.name));
            } else if user.tags.iter().any(|tag| tag == "impersonator") {
                let what = "may send messages in any user's name";
                self.error("impersonator", subject, what, &format!("rabbitmqctl set_user_tags '{}'", user.name));
            } else if user.tags.iter().any(|tag| tag == "administrator") {
                let what = "is an administrator and can change every permission";
                let remedy = format!("keep it only if you need it: {}", delete_user(&user.name));
                self.warning("administrator", subject, what, &remedy);
            }
        }
    }

    fn user(&mut self, expected: &User, found: &User, subject: &str) {
        if !found.password_hash.is_empty() {
            let remedy = format!("rabbitmqctl clear_password '{}'", found.name);
            self.error("password", subject.to_owned(), "has a password beside its certificate", &remedy);
        }
        if !found.tags.is_empty() {
            let what = format!("has the tags {}", found.tags.join(", "));
            self.error("tags", subject.to_owned(), &what, &format!("rabbitmqctl set_user_tags '{}'", found.name));
        }
        if found.limits != expected.limits {
            let what = "has other limits on connections and channels";
            self.warning("other-limits", subject.to_owned(), what, IMPORT);
        }
    }

    fn permissions(&mut self) {
        let actual = by_user_and_vhost(&self.actual.permissions);
        let expected = by_user_and_vhost(&self.expected.permissions);
        let known: BTreeSet<&str> = self.expected.users.iter().map(|user| user.name.as_str()).collect();
        for (of, permission) in &expected {
            match actual.get(of) {
                // Said once, for the user.
                None if !self.has_user(&permission.user) => {}
                None => {
                    let subject = format!("permissions of {}", permission.user);
                    self.error("missing-permission", subject, "there are none, so nothing works", IMPORT);
                }
                Some(found) => self.permission(permission, found),
            }
        }
        for (of, found) in &actual {
            let is_known = known.contains(found.user.as_str());
            if expected.contains_key(of) || (is_ours(&found.user) && !is_known) {
                continue;
            }
            let subject = format!("permissions of {} in {}", found.user, found.vhost);
            let remedy = format!("rabbitmqctl clear_permissions -p '{}' '{}'", found.vhost, found.user);
            if self.is_our_vhost(&found.vhost) {
                self.error("foreign-access", subject, "somebody unknown may use our virtual host", &remedy);
            } else if is_ours(&found.user) {
                self.error("foreign-access", subject, "a user of ours may use another virtual host", &remedy);
            }
        }
    }

    fn permission(&mut self, expected: &Permission, found: &Permission) {
        for (access, pattern, found) in [
            ("configure", &expected.configure, &found.configure),
            ("write", &expected.write, &found.write),
            ("read", &expected.read, &found.read),
        ] {
            let subject = format!("permissions of {}: {access}", expected.user);
            self.pattern(subject, &expected.user, resource_probes, pattern, found);
        }
    }

    fn topic_permissions(&mut self) {
        let key = |permission: &TopicPermission| {
            (permission.user.clone(), permission.vhost.clone(), permission.exchange.clone())
        };
        let actual: BTreeMap<_, &TopicPermission> =
            self.actual.topic_permissions.iter().map(|permission| (key(permission), permission)).collect();
        for expected in &self.expected.topic_permissions {
            let subject = format!("topic permissions of {} on {}", expected.user, expected.exchange);
            let Some(found) = actual.get(&key(expected)) else {
                if !self.has_user(&expected.user) {
                    continue;
                }
                let what = "there is none, and then RabbitMQ allows every routing key";
                self.error("too-open", subject, what, IMPORT);
                continue;
            };
            for (access, pattern, found) in
                [("write", &expected.write, &found.write), ("read", &expected.read, &found.read)]
            {
                self.pattern(format!("{subject}: {access}"), &expected.user, key_probes, pattern, found);
            }
        }
    }

    /// Compares two expressions. Whether the actual one is too open is decided by trying names that a
    /// real fleet has and an attacker would try; the first that only the actual one matches is shown.
    fn pattern(
        &mut self,
        subject: String,
        user: &str,
        probes: fn(&[Identity]) -> Vec<String>,
        expected: &str,
        found: &str,
    ) {
        if expected == found {
            return;
        }
        let own = user.parse::<Identity>().ok();
        let identities: Vec<Identity> = own.into_iter().chain(self.samples.iter().cloned()).collect();
        let probes = probes(&identities);
        // RabbitMQ reads an empty expression as `^$`.
        let found_or_default = if found.is_empty() { "^$" } else { found };
        let (Ok(wanted), Ok(actual)) = (regex_lite::Regex::new(expected), regex_lite::Regex::new(found_or_default))
        else {
            let what = format!("is `{found}`, which cannot be judged; expected `{expected}`");
            return self.error("other-pattern", subject, &what, IMPORT);
        };
        if let Some(name) = probes.iter().find(|name| actual.is_match(name) && !wanted.is_match(name)) {
            let what = format!("allows `{}`: is `{found}`, expected `{expected}`", name.escape_debug());
            self.error("too-open", subject, &what, IMPORT);
        } else if let Some(name) = probes.iter().find(|name| !actual.is_match(name) && wanted.is_match(name)) {
            let what = format!("refuses `{}`: is `{found}`, expected `{expected}`", name.escape_debug());
            self.error("too-narrow", subject, &what, IMPORT);
        } else {
            let what = format!("is `{found}`, expected `{expected}`");
            self.warning("other-pattern", subject, &what, IMPORT);
        }
    }

    fn policies(&mut self) {
        for policy in &self.expected.policies {
            let subject = format!("policy {}", policy.name);
            let found =
                self.actual.policies.iter().find(|other| other.name == policy.name && other.vhost == policy.vhost);
            match found {
                None => {
                    let what = "does not exist, so queues of absent hosts grow without a limit";
                    self.error("missing-policy", subject, what, IMPORT);
                }
                Some(other) if other != policy => {
                    self.warning("other-policy", subject, "differs from the generated one", IMPORT);
                }
                Some(_) => {}
            }
        }
        let actual = self.actual;
        for policy in &actual.policies {
            let same = |other: &Policy| (&other.name, &other.vhost) == (&policy.name, &policy.vhost);
            if self.is_our_vhost(&policy.vhost) && !self.expected.policies.iter().any(same) {
                let remedy = format!("rabbitmqctl clear_policy -p '{}' '{}'", policy.vhost, policy.name);
                let what = "is unknown and may override or redirect";
                self.warning("foreign-policy", format!("policy {}", policy.name), what, &remedy);
            }
        }
    }

    fn bindings(&mut self) {
        let (actual, expected) = (self.actual, self.expected);
        let topics: BTreeMap<(&str, &str), &str> = expected
            .topic_permissions
            .iter()
            .map(|topic| ((topic.user.as_str(), topic.exchange.as_str()), topic.read.as_str()))
            .collect();
        for binding in &actual.bindings {
            let ours = binding.source == EXCHANGE_COMMAND || binding.source == EXCHANGE_REPLY;
            let generated = expected.bindings.iter().any(|other| is_same_binding(binding, other));
            let expected = generated || self.is_link_binding(binding) || is_expected_binding(binding, &topics);
            if ours && self.is_our_vhost(&binding.vhost) && !expected {
                let subject = format!(
                    "binding {} -> {} {} ({})",
                    binding.source, binding.destination_type, binding.destination, binding.routing_key
                );
                let what = "copies messages to where no agent or controller of ours reads them";
                let remedy = "find out who made it; delete it in the management interface or with its queue";
                self.error("foreign-binding", subject, what, remedy);
            }
        }
    }

    /// Whether federation made it for a site, within what the site's broker may bind.
    fn is_link_binding(&self, binding: &Binding) -> bool {
        let links = self.expected.permissions.iter().filter(|permission| permission.user.starts_with("muster:broker/"));
        binding.destination_type == "exchange"
            && links.into_iter().any(|permission| {
                matches(&permission.configure, &binding.destination)
                    && self.expected.topic_permissions.iter().any(|topic| {
                        topic.user == permission.user
                            && topic.exchange == binding.source
                            && matches(&topic.read, &binding.routing_key)
                    })
            })
    }

    /// Whether what a link needs is there: without it a site hears no commands, or its reports are lost.
    fn links(&mut self) {
        let (actual, expected) = (self.actual, self.expected);
        for queue in &expected.queues {
            let subject = format!("queue {}", queue.name);
            match actual.queues.iter().find(|other| (&other.name, &other.vhost) == (&queue.name, &queue.vhost)) {
                None => self.error("missing-link", subject, "does not exist, so reports reach no controller", IMPORT),
                Some(other) if !other.durable || other.auto_delete => {
                    let remedy = "delete it and import";
                    self.error("other-link", subject, "is not durable, so reports that wait in it can be lost", remedy);
                }
                Some(_) => {}
            }
        }
        for binding in &expected.bindings {
            if !actual.bindings.iter().any(|other| is_same_binding(other, binding)) {
                let subject =
                    format!("binding {} -> {} ({})", binding.source, binding.destination, binding.routing_key);
                self.error("missing-link", subject, "does not exist, so reports reach no controller", IMPORT);
            }
        }
        for parameter in &expected.parameters {
            let subject = format!("parameter {} {}", parameter.component, parameter.name);
            match actual.parameters.iter().find(|other| is_same_parameter(other, parameter)) {
                None => {
                    self.error("missing-link", subject, "does not exist, so there is no link to the centre", IMPORT)
                }
                Some(other) if other.value != parameter.value => {
                    self.warning("other-link", subject, "differs from the generated one", IMPORT);
                }
                Some(_) => {}
            }
        }
        for parameter in &expected.global_parameters {
            let same = |other: &serde_json::Value| other["name"] == parameter["name"];
            if actual.global_parameters.iter().find(|other| same(other)) != Some(parameter) {
                let subject = format!("global parameter {}", parameter["name"].as_str().unwrap_or("?"));
                let what = "differs, so the centre refuses the link's queue";
                self.error("other-link", subject, what, IMPORT);
            }
        }
    }

    fn parameters(&mut self) {
        let actual = self.actual;
        for parameter in &actual.parameters {
            let expected = self.expected.parameters.iter().any(|other| is_same_parameter(parameter, other));
            if self.is_our_vhost(&parameter.vhost) && !expected {
                let subject = format!("parameter {} {}", parameter.component, parameter.name);
                let what = "is not generated; federation and shovels copy messages to other brokers";
                let remedy = format!(
                    "rabbitmqctl clear_parameter -p '{}' '{}' '{}', unless you set it up",
                    parameter.vhost, parameter.component, parameter.name
                );
                self.warning("foreign-parameter", subject, what, &remedy);
            }
        }
    }
}

fn is_same_parameter(one: &Parameter, other: &Parameter) -> bool {
    (&one.vhost, &one.component, &one.name) == (&other.vhost, &other.component, &other.name)
}

fn is_same_binding(one: &Binding, other: &Binding) -> bool {
    let name = |of: &Binding| {
        [&of.vhost, &of.source, &of.destination, &of.destination_type, &of.routing_key].map(String::clone)
    };
    name(one) == name(other)
}

fn by_user_and_vhost(permissions: &[Permission]) -> BTreeMap<(&str, &str), &Permission> {
    permissions.iter().map(|permission| ((permission.user.as_str(), permission.vhost.as_str()), permission)).collect()
}

fn matches(expression: &str, text: &str) -> bool {
    regex_lite::Regex::new(expression).is_ok_and(|expression| expression.is_match(text))
}

/// A binding is ours if the owner of its queue was allowed to make it. A host of a site may be allowed fewer keys than
/// others; `topics` has them by user and exchange.
fn is_expected_binding(binding: &Binding, topics: &BTreeMap<(&str, &str), &str>) -> bool {
    if binding.destination_type != "queue" {
        return false;
    }
    let owner = if let Some(host) = binding.destination.strip_prefix("agent.") {
        format!("host/{host}")
    } else if let Some(route) = binding.destination.strip_prefix("reply.") {
        route.split('.').next().unwrap_or("").to_owned()
    } else {
        return false;
    };
    let operation =
        Operation::Bind { queue: &binding.destination, exchange: &binding.source, key: &binding.routing_key };
    let Ok(owner) = owner.parse::<Identity>() else { return false };
    let user = owner.to_string();
    let narrower = topics.get(&(user.as_str(), binding.source.as_str()));
    permissions_for(&owner).is_some_and(|permissions| permissions.allows(&operation))
        && narrower.is_none_or(|expression| matches(expression, &binding.routing_key))
}

/// Names that a too open resource expression would let through: every kind of object, the queues of
/// some identities, and near misses of them.
fn resource_probes(identities: &[Identity]) -> Vec<String> {
    let fixed = ["cmd", "reply", "amq.default", "amq.topic", "amq.direct", "amq.gen-x", "x", "cmdx", "xreply"];
    let queues = identities.iter().map(|identity| match identity {
        Identity::Host(host) => agent_queue(host),
        _ => format!("reply.{}.s1", identity.short()),
    });
    fixed.into_iter().map(str::to_owned).chain(queues.flat_map(near_misses)).collect()
}

/// The same for routing keys.
fn key_probes(identities: &[Identity]) -> Vec<String> {
    let fixed = ["all", "#", "*", "collective.main", "collective.*", "collective.#", "presence.#", "x", ""];
    let keys = identities.iter().flat_map(|identity| match identity {
        Identity::Host(host) => vec![host_key(host), presence_key(host), format!("user/probe.s1.{host}")],
        _ => vec![format!("{}.s1.#", identity.short()), format!("{}.*.#", identity.short())],
    });
    fixed.into_iter().map(str::to_owned).chain(keys.flat_map(near_misses)).collect()
}

/// A name, and what an expression without anchors or escapes also matches.
fn near_misses(name: String) -> [String; 5] {
    [format!("x{name}"), format!("{name}x"), format!("{name}\n"), name.replace('.', "x"), name]
}

/// Invented identities and a few expected ones of each kind: one probe stands for all names of its kind.
fn sample_identities(expected: &Definitions) -> Vec<Identity> {
    let mut by_kind: BTreeMap<&'static str, Vec<Identity>> = BTreeMap::new();
    let invented = ["host/probe.invalid", "host/probe", "user/probe", "service/probe"];
    let known = expected.users.iter().map(|user| user.name.as_str());
    for identity in invented.into_iter().chain(known).filter_map(|name| name.parse::<Identity>().ok()) {
        let kind = by_kind.entry(identity.kind()).or_default();
        if kind.len() < 4 {
            kind.push(identity);
        }
    }
    by_kind.into_values().flatten().collect()
}

#[cfg(test)]
mod tests;
