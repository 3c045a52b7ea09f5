//! The operator's files: key, certificate, CA, revocation list.

use std::os::unix::fs::PermissionsExt as _;

use muster_pki::PrivateKey;
use muster_protocol::Timestamp;

use super::{Check, Report};
use crate::context::Context;
use crate::output::number::counted;
use crate::output::time;
use crate::session::{Login, pki_failure};

/// A certificate that ends within so many days is announced.
const DAYS_LEFT_WARNING: i64 = 30;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Checks the files; `None` where nobody can log in with them.
pub(super) fn check(context: &Context, now: Timestamp, report: &mut Report<'_>) -> Option<Login> {
    let login = match Login::load(context, now) {
        Ok(login) => login,
        Err(failure) => {
            // Everything that is wrong with the key names its file.
            let path = context.key.display().to_string();
            let about_key = failure.why.iter().any(|(_, text)| text.contains(&path));
            if !about_key {
                report.add(key(context));
            }
            report.add(Check::failed(if about_key { "key" } else { "certificate" }, &failure));
            return None;
        }
    };
    report.add(key(context));
    report.add(certificate(&login, now));
    report.add(revocation(context, &login, now));
    Some(login)
}

/// That the key can be used, whatever is wrong with the rest.
fn key(context: &Context) -> Check {
    let path = &context.key;
    match PrivateKey::load(path) {
        Ok(_) => {
            let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
            Check::ok("key", format!("{}, mode {mode:04o}", path.display()))
        }
        Err(error) => Check::failed("key", &pki_failure(&error, context, "your key cannot be used")),
    }
}

fn certificate(login: &Login, now: Timestamp) -> Check {
    let credentials = &login.credentials;
    let groups: Vec<&str> = credentials.groups().iter().map(|group| group.as_str()).collect();
    let groups = if groups.is_empty() { "no group".to_owned() } else { groups.join(", ") };
    let days = credentials.not_after().since_ms(now).div_euclid(DAY_MS);
    let left = counted(usize::try_from(days).unwrap_or(0), "day", "days");
    let who = credentials.identity().short();
    let what = format!("{who} ({groups}), {left} left, until {}", time::rfc3339(credentials.not_after()));
    match days < DAYS_LEFT_WARNING {
        true => Check::warning("certificate", what, format!("muster pki issue {who} --renew --out DIR")),
        false => Check::ok("certificate", what),
    }
}

fn revocation(context: &Context, login: &Login, now: Timestamp) -> Check {
    let lists = login.trust.crl_info();
    let Some(list) = lists.first() else {
        let what = "no revocation list: a stolen certificate would still be believed here";
        let remedy = format!(
            "add `crl = \"FILE\"` to context `{}` (`muster pki crl --out FILE` writes one, where the CA is)",
            context.name
        );
        return Check::warning("revocation", what, remedy);
    };
    let revoked = counted(list.revoked, "certificate", "certificates");
    let what = format!("list number {}, made {}, revokes {revoked}", list.number, time::ago(list.this_update, now));
    match list.is_stale(now) {
        true => {
            let what = format!("{what}; a newer one was due {}", time::ago(list.next_update, now));
            Check::warning("revocation", what, "muster pki crl --out FILE, where the CA is, and copy the list to `crl`")
        }
        false => Check::ok("revocation", what),
    }
}
