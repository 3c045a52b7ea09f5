//! A running broker's effective settings, as `rabbitmqctl environment --formatter json` prints them.

use serde_json::Value;

use muster_protocol::limits::BODY_BYTES_MAX;

use crate::check::{Finding, Severity};
use crate::definitions::DefinitionsError;

/// The settings that decide who gets in and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    rabbit: Value,
    plugins: Vec<String>,
}

impl Environment {
    /// Reads the JSON of `rabbitmqctl environment --formatter json`.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn parse(text: &str) -> Result<Self, DefinitionsError> {
        let mut applications: serde_json::Map<String, Value> = serde_json::from_str(text)?;
        let rabbit = applications.remove("rabbit").unwrap_or(Value::Null);
        Ok(Self { rabbit, plugins: applications.into_iter().map(|(name, _)| name).collect() })
    }

    fn text(&self, key: &str) -> &str {
        self.rabbit[key].as_str().unwrap_or("")
    }

    fn words(&self, key: &str) -> Vec<String> {
        words(&self.rabbit[key])
    }
}

/// Every text in a value: Erlang prints `['EXTERNAL']`, `[["internal", "internal"]]` and the like.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(words).collect(),
        _ => Vec::new(),
    }
}

/// How many listeners a value holds, and which, for a message.
fn listeners(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(ToString::to_string).collect()
}

/// Holds the effective settings against what [`crate::rabbitmq_conf`] writes.
#[must_use]
pub fn check_environment(environment: &Environment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |severity, code, subject: &str, what: String, remedy: &str| {
        findings.push(Finding { severity, code, subject: subject.to_owned(), what, remedy: remedy.to_owned() });
    };
    if environment.rabbit.is_null() {
        report(
            Severity::Error,
            "no-settings",
            "rabbit",
            "the broker's application `rabbit` is not among its settings".to_owned(),
            "run the check on the broker's machine while it runs",
        );
        return findings;
    }

    let mechanisms = environment.words("auth_mechanisms");
    for mechanism in mechanisms.iter().filter(|name| *name != "EXTERNAL") {
        report(
            Severity::Error,
            "password-login",
            &format!("mechanism {mechanism}"),
            "clients may log in without a certificate of ours".to_owned(),
            "set `auth_mechanisms.1 = EXTERNAL` alone in rabbitmq.conf and restart",
        );
    }
    if !mechanisms.iter().any(|name| name == "EXTERNAL") {
        report(
            Severity::Error,
            "no-certificate-login",
            "mechanism EXTERNAL",
            "a certificate is not accepted as login, so no agent gets in".to_owned(),
            "set `auth_mechanisms.1 = EXTERNAL` and enable the plugin rabbitmq_auth_mechanism_ssl",
        );
    }
    if !environment.plugins.iter().any(|name| name == "rabbitmq_auth_mechanism_ssl") {
        report(
            Severity::Error,
            "missing-plugin",
            "rabbitmq_auth_mechanism_ssl",
            "the plugin that turns a certificate into a login is not running".to_owned(),
            "rabbitmq-plugins enable rabbitmq_auth_mechanism_ssl",
        );
    }
    for (key, expected) in [("ssl_cert_login_from", "subject_alternative_name"), ("ssl_cert_login_san_type", "uri")] {
        if environment.text(key) != expected {
            report(
                Severity::Error,
                "wrong-user-name",
                key,
                format!(
                    "is `{}`, not `{expected}`, so users are not named after their identity",
                    environment.text(key)
                ),
                &format!("set `{key} = {expected}` in rabbitmq.conf and restart"),
            );
        }
    }
    if environment.rabbit["ssl_cert_login_san_index"].as_i64().unwrap_or(0) != 0 {
        report(
            Severity::Error,
            "wrong-user-name",
            "ssl_cert_login_san_index",
            "is not 0: a group could be taken for the user".to_owned(),
            "set `ssl_cert_login_san_index = 0` in rabbitmq.conf and restart",
        );
    }

    for listener in listeners(&environment.rabbit["tcp_listeners"]) {
        report(
            Severity::Error,
            "plain-listener",
            &format!("listener {listener}"),
            "accepts AMQP without TLS".to_owned(),
            "set `listeners.tcp = none` in rabbitmq.conf and restart",
        );
    }
    if listeners(&environment.rabbit["ssl_listeners"]).is_empty() {
        report(
            Severity::Error,
            "no-tls-listener",
            "listeners.ssl",
            "nothing listens for AMQP over TLS".to_owned(),
            "set `listeners.ssl.default = 5671` and `ssl_options` in rabbitmq.conf and restart",
        );
    }
    let tls = &environment.rabbit["ssl_options"];
    if tls["verify"].as_str() != Some("verify_peer") || tls["fail_if_no_peer_cert"].as_bool() != Some(true) {
        report(
            Severity::Error,
            "unverified-client",
            "ssl_options",
            "TLS connections without a certificate of our CA are accepted".to_owned(),
            "set `ssl_options.verify = verify_peer` and `ssl_options.fail_if_no_peer_cert = true`, then restart",
        );
    }
    let versions = words(&tls["versions"]);
    if versions.is_empty() {
        report(
            Severity::Warning,
            "old-tls",
            "ssl_options.versions",
            "is not set, so TLS 1.2 is accepted too".to_owned(),
            "set `ssl_options.versions.1 = tlsv1.3` in rabbitmq.conf and restart",
        );
    }
    for version in versions.iter().filter(|version| *version != "tlsv1.3") {
        let severity = if version == "tlsv1.2" { Severity::Warning } else { Severity::Error };
        report(
            severity,
            "old-tls",
            &format!("ssl_options.versions {version}"),
            "is accepted; ours speak TLS 1.3 only".to_owned(),
            "set `ssl_options.versions.1 = tlsv1.3` alone in rabbitmq.conf and restart",
        );
    }
    let backends = environment.words("auth_backends");
    if backends.iter().any(|backend| backend != "rabbit_auth_backend_internal") {
        report(
            Severity::Warning,
            "other-backend",
            "auth_backends",
            format!("{} may grant more than the definitions that were checked", backends.join(", ")),
            "set `auth_backends.1 = internal` alone, unless the backend applies Muster's rules",
        );
    }
    if environment.rabbit["max_message_size"].as_u64().is_some_and(|bytes| bytes < BODY_BYTES_MAX as u64) {
        report(
            Severity::Error,
            "small-messages",
            "max_message_size",
            format!("is below {BODY_BYTES_MAX} bytes, the largest message of the protocol"),
            "raise `max_message_size` in rabbitmq.conf and restart",
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "rabbitmq_auth_mechanism_ssl": {},
            "rabbit": {
                "auth_mechanisms": ["EXTERNAL"],
                "auth_backends": ["rabbit_auth_backend_internal"],
                "ssl_cert_login_from": "subject_alternative_name",
                "ssl_cert_login_san_type": "uri",
                "ssl_cert_login_san_index": 0,
                "tcp_listeners": [],
                "ssl_listeners": [["127.0.0.1", 5671]],
                "ssl_options": {"verify": "verify_peer", "fail_if_no_peer_cert": true, "versions": ["tlsv1.3"]},
                "max_message_size": 2_097_152,
            },
        })
    }

    #[track_caller]
    fn check(key: &str, value: Value, expected: &[&str]) {
        let mut settings = good();
        if key == "plugin" {
            settings.as_object_mut().unwrap().remove("rabbitmq_auth_mechanism_ssl");
        } else {
            settings["rabbit"][key] = value;
        }
        let environment = Environment::parse(&settings.to_string()).unwrap();
        let codes: Vec<&str> = check_environment(&environment).iter().map(|finding| finding.code).collect();
        assert_eq!(codes, expected, "{key}");
    }

    #[test]
    fn the_generated_settings_have_no_findings() {
        check("heartbeat", json!(60), &[]);
    }

    #[test]
    fn each_open_door_is_found() {
        check("auth_mechanisms", json!(["PLAIN", "AMQPLAIN", "EXTERNAL"]), &["password-login", "password-login"]);
        check("auth_mechanisms", json!(["PLAIN"]), &["password-login", "no-certificate-login"]);
        check("plugin", Value::Null, &["missing-plugin"]);
        check("ssl_cert_login_from", json!("common_name"), &["wrong-user-name"]);
        check("ssl_cert_login_san_type", json!("dns"), &["wrong-user-name"]);
        check("ssl_cert_login_san_index", json!(1), &["wrong-user-name"]);
        check("tcp_listeners", json!([5672]), &["plain-listener"]);
        check("ssl_listeners", json!([]), &["no-tls-listener"]);
        check("ssl_options", json!({"versions": ["tlsv1.3"]}), &["unverified-client"]);
        check("ssl_options", json!({"verify": "verify_peer", "fail_if_no_peer_cert": true}), &["old-tls"]);
        check(
            "ssl_options",
            json!({"verify": "verify_peer", "fail_if_no_peer_cert": true, "versions": ["tlsv1.3", "tlsv1.2", "tlsv1"]}),
            &["old-tls", "old-tls"],
        );
        check("auth_backends", json!([["rabbit_auth_backend_http", "x"]]), &["other-backend"]);
        check("max_message_size", json!(65_536), &["small-messages"]);
    }

    #[test]
    fn settings_of_something_else_are_not_taken_for_good() {
        let environment = Environment::parse("{}").unwrap();
        assert_eq!(check_environment(&environment)[0].code, "no-settings");
        assert!(Environment::parse("[").is_err());
    }
}
