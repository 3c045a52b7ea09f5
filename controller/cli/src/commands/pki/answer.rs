//! What the verbs of `pki` answer, as plain values, and how they look.

use std::path::PathBuf;

use muster_pki::authority::{Authority, Delivered, Record, RecordState};
use muster_pki::request::Created;
use muster_pki::time_text::days_left;
use muster_pki::{Certificate, CrlInfo, PkiError};
use muster_protocol::{GroupName, Identity, Timestamp};
use serde::Serialize;

use crate::output::number::counted;
use crate::output::time::rfc3339;
use crate::output::{Column, Printer, Style, Table, Text};

/// Schema of every document of `muster pki`.
pub(super) const SCHEMA: &str = "muster.pki/v1";
/// From how many days before its end a certificate is marked.
pub(super) const WARNING_DAYS: i64 = 30;
/// From how many days before its end the authority is marked: everything it issued has to be replaced by then.
const AUTHORITY_WARNING_DAYS: i64 = 365;
/// From how many days before it goes stale the revocation list is marked.
const CRL_WARNING_DAYS: i64 = 7;

/// A certificate.
#[derive(Debug, Serialize)]
pub(super) struct CertificateView {
    identity: Option<Identity>,
    groups: Vec<GroupName>,
    serial: String,
    fingerprint: String,
    key_fingerprint: Option<String>,
    not_before: String,
    not_after: String,
    days_left: i64,
    /// `valid`, `expired`, `revoked`, or `not_yet_valid`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dns_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ip_addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pem: Option<String>,
}

impl CertificateView {
    pub(super) fn of_record(record: &Record, now: Timestamp) -> Self {
        Self {
            identity: Some(record.identity.clone()),
            groups: record.groups.iter().cloned().collect(),
            serial: record.serial.clone(),
            fingerprint: record.fingerprint.clone(),
            key_fingerprint: Some(record.key_fingerprint.clone()),
            not_before: rfc3339(record.not_before),
            not_after: rfc3339(record.not_after),
            days_left: record.days_left(now),
            state: record.state(now).as_str(),
            revoked_at: record.revoked.map(|(at, _)| rfc3339(at)),
            reason: record.revoked.map(|(_, reason)| reason.as_str()),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            issuer: None,
            note: None,
            pem: None,
        }
    }

    /// A certificate from a file: what it says, which nobody has checked.
    pub(super) fn of_file(certificate: &Certificate, now: Timestamp) -> Self {
        let identity = certificate.identity();
        let state = match () {
            () if now > certificate.not_after().plus_ms(999) => RecordState::Expired.as_str(),
            () if now < certificate.not_before() => "not_yet_valid",
            () => RecordState::Valid.as_str(),
        };
        let note = match &identity {
            Err(error) if !certificate.is_authority() => Some(error.to_string()),
            _ => None,
        };
        let view = Self {
            identity: identity.ok(),
            groups: certificate.groups().unwrap_or_default().into_iter().collect(),
            serial: certificate.serial(),
            fingerprint: certificate.fingerprint().to_owned(),
            key_fingerprint: certificate.public_key().map(muster_pki::PublicKey::fingerprint),
            not_before: rfc3339(certificate.not_before()),
            not_after: rfc3339(certificate.not_after()),
            days_left: days_left(certificate.not_after(), now),
            state,
            revoked_at: None,
            reason: None,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            issuer: None,
            note,
            pem: None,
        };
        view.with_names(certificate)
    }

    /// Adds what only the certificate itself knows.
    pub(super) fn with_names(mut self, certificate: &Certificate) -> Self {
        self.dns_names = certificate.dns_names().to_vec();
        self.ip_addresses = certificate.ip_addresses().iter().map(ToString::to_string).collect();
        self.issuer = Some(certificate.issuer().to_owned());
        self
    }

    /// Adds the certificate itself.
    pub(super) fn with_pem(mut self, certificate: &Certificate) -> Self {
        self.pem = Some(certificate.to_pem());
        self
    }

    fn name(&self) -> String {
        self.identity.as_ref().map_or("none".to_owned(), Identity::short)
    }

    fn groups(&self) -> String {
        self.groups.iter().map(GroupName::as_str).collect::<Vec<_>>().join(", ")
    }

    fn ends_soon(&self) -> bool {
        self.state == RecordState::Valid.as_str() && self.days_left < WARNING_DAYS
    }

    fn expires(&self) -> Text {
        let day = Text::from(date(&self.not_after));
        match self.state {
            _ if self.ends_soon() => day.push(Style::Warning, format!(" ({}, renew)", days(self.days_left))),
            "valid" => day.dim(format!(" ({})", days(self.days_left))),
            _ => day,
        }
    }

    fn state(&self, printer: &Printer) -> Text {
        match self.state {
            "valid" if self.ends_soon() => Text::styled(Style::Warning, format!("{} valid", printer.glyph("!", "!"))),
            "valid" => Text::styled(Style::Good, format!("{} valid", printer.glyph("✓", "+"))),
            state => Text::styled(Style::Bad, format!("{} {}", printer.glyph("✗", "x"), state.replace('_', " "))),
        }
    }

    fn lines(&self, printer: &Printer) -> Vec<(&'static str, Text)> {
        let mut lines = vec![("identity", Text::new().strong(self.name()))];
        let mut add = |label, text: String| {
            if !text.is_empty() {
                lines.push((label, Text::from(text)));
            }
        };
        add("groups", self.groups());
        add("dns names", self.dns_names.join(", "));
        add("addresses", self.ip_addresses.join(", "));
        add("issuer", self.issuer.clone().unwrap_or_default());
        add("serial", self.serial.clone());
        add("valid from", self.not_before.clone());
        lines.push(("expires", self.expires()));
        lines.push(("state", self.state(printer)));
        let mut add = |label, text: Option<String>| lines.extend(text.map(|text| (label, Text::from(text))));
        add("revoked", self.revoked_at.as_ref().map(|at| format!("{at}, {}", self.reason.unwrap_or_default())));
        add("fingerprint", Some(self.fingerprint.clone()));
        add("key", self.key_fingerprint.clone());
        add("note", self.note.clone());
        lines
    }
}

/// The table of `list`.
pub(super) fn table(certificates: &[CertificateView], printer: &Printer) -> Table {
    let mut table = Table::new([
        Column::new("identity").text(),
        Column::new("groups").text(),
        Column::new("serial"),
        Column::new("expires"),
        Column::new("state"),
        Column::new("fingerprint").wide(),
    ]);
    let for_programs = printer.format().is_for_programs();
    for certificate in certificates {
        let short = certificate.serial.get(..8).unwrap_or(&certificate.serial);
        let [serial, expires, state] = match for_programs {
            true => [
                Text::from(certificate.serial.as_str()),
                Text::from(certificate.not_after.as_str()),
                Text::from(certificate.state),
            ],
            false => [Text::from(short), certificate.expires(), certificate.state(printer)],
        };
        let fingerprint = Text::from(certificate.fingerprint.as_str());
        table.row([certificate.name().into(), certificate.groups().into(), serial, expires, state, fingerprint]);
    }
    table
}

/// A revocation list.
#[derive(Debug, Serialize)]
pub(super) struct CrlView {
    issuer: String,
    number: u64,
    this_update: String,
    next_update: String,
    days_left: i64,
    stale: bool,
    revoked: usize,
}

impl CrlView {
    pub(super) fn new(info: &CrlInfo, now: Timestamp) -> Self {
        Self {
            issuer: info.issuer.clone(),
            number: info.number,
            this_update: rfc3339(info.this_update),
            next_update: rfc3339(info.next_update),
            days_left: info.days_left(now),
            stale: info.is_stale(now),
            revoked: info.revoked,
        }
    }

    fn line(&self) -> Text {
        let revoked = counted(self.revoked, "certificate", "certificates");
        let text = Text::from(format!("number {}, {revoked}, next due {}", self.number, date(&self.next_update)));
        if self.stale {
            text.push(Style::Warning, " (overdue)")
        } else {
            text.dim(format!(" ({})", days(self.days_left)))
        }
    }
}

/// The authority.
#[derive(Debug, Serialize)]
pub(super) struct AuthorityView {
    directory: PathBuf,
    subject: String,
    serial: String,
    fingerprint: String,
    not_before: String,
    not_after: String,
    days_left: i64,
    certificates: usize,
    crl: CrlView,
}

impl AuthorityView {
    pub(super) fn new(authority: &Authority, now: Timestamp) -> Result<Self, PkiError> {
        let certificate = authority.certificate();
        Ok(Self {
            directory: authority.directory().to_owned(),
            subject: certificate.subject().to_owned(),
            serial: certificate.serial(),
            fingerprint: certificate.fingerprint().to_owned(),
            not_before: rfc3339(certificate.not_before()),
            not_after: rfc3339(certificate.not_after()),
            days_left: days_left(certificate.not_after(), now),
            certificates: authority.list().len(),
            crl: CrlView::new(&authority.crl()?.1, now),
        })
    }

    /// What somebody has to do soon.
    pub(super) fn warnings(&self) -> Vec<String> {
        let at = super::at(&self.directory);
        let mut warnings = Vec::new();
        if self.days_left < 0 {
            warnings.push(format!("the authority expired on {}: nobody accepts what it signed", date(&self.not_after)));
        } else if self.days_left < AUTHORITY_WARNING_DAYS {
            warnings.push(format!("the authority ends in {}: plan its rotation", days(self.days_left)));
        }
        if self.crl.stale {
            let due = date(&self.crl.next_update);
            warnings.push(format!("the revocation list was due on {due}; sign a new one: muster pki crl{at}"));
        } else if self.crl.days_left < CRL_WARNING_DAYS {
            let left = days(self.crl.days_left);
            warnings.push(format!("the revocation list is due in {left}; sign a new one: muster pki crl{at}"));
        }
        warnings
    }

    fn lines(&self) -> Vec<(&'static str, Text)> {
        vec![
            ("authority", Text::new().strong(&self.subject)),
            ("directory", self.directory.display().to_string().into()),
            ("valid from", self.not_before.as_str().into()),
            ("expires", Text::from(date(&self.not_after)).dim(format!(" ({})", days(self.days_left)))),
            ("fingerprint", self.fingerprint.as_str().into()),
            ("issued", counted(self.certificates, "certificate", "certificates").into()),
            ("revocation", self.crl.line()),
        ]
    }
}

/// A certificate request.
#[derive(Debug, Serialize)]
pub(super) struct RequestView {
    pub(super) identity: Option<Identity>,
    pub(super) key_fingerprint: String,
}

impl RequestView {
    fn lines(&self) -> Vec<(&'static str, Text)> {
        let identity = self.identity.as_ref().map_or("none".to_owned(), Identity::short);
        vec![("asks for", Text::new().strong(identity)), ("key", self.key_fingerprint.as_str().into())]
    }
}

/// Files that were written.
#[derive(Debug, Serialize)]
pub(super) struct FilesView {
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crl: Option<PathBuf>,
}

impl FilesView {
    pub(super) fn delivered(files: Delivered) -> Self {
        let (certificate, ca, crl) = (Some(files.certificate), Some(files.ca), Some(files.crl));
        Self { certificate, request: None, key: files.key, ca, crl }
    }

    pub(super) fn requested(created: Created) -> Self {
        Self { certificate: None, request: Some(created.request), key: Some(created.key), ca: None, crl: None }
    }

    fn lines(&self) -> Vec<(&'static str, Text)> {
        let all = [&self.certificate, &self.request, &self.key, &self.ca, &self.crl];
        let paths = all.into_iter().flatten().map(|path| path.display().to_string());
        paths.enumerate().map(|(at, path)| (if at == 0 { "files" } else { "" }, path.into())).collect()
    }
}

/// One document of `muster pki`.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<AuthorityView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificates: Option<Vec<CertificateView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crl: Option<CrlView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<FilesView>,
}

impl Shown {
    fn empty(kind: &'static str) -> Self {
        Self { kind, authority: None, certificate: None, certificates: None, request: None, crl: None, files: None }
    }

    pub(super) fn authority(kind: &'static str, authority: AuthorityView) -> Self {
        Self { authority: Some(authority), ..Self::empty(kind) }
    }

    pub(super) fn issued(kind: &'static str, record: &Record, files: FilesView, now: Timestamp) -> Self {
        let certificate = CertificateView::of_record(record, now);
        Self { certificate: Some(certificate), files: Some(files), ..Self::empty(kind) }
    }

    pub(super) fn requested(request: RequestView, files: FilesView) -> Self {
        Self { request: Some(request), files: Some(files), ..Self::empty("request") }
    }

    pub(super) fn request(request: RequestView) -> Self {
        Self { request: Some(request), ..Self::empty("show") }
    }

    pub(super) fn certificate(certificate: CertificateView) -> Self {
        Self { certificate: Some(certificate), ..Self::empty("show") }
    }

    pub(super) fn revoked(certificates: Vec<CertificateView>, crl: CrlView) -> Self {
        Self { certificates: Some(certificates), crl: Some(crl), ..Self::empty("revoke") }
    }

    pub(super) fn crl(kind: &'static str, crl: CrlView, path: Option<PathBuf>) -> Self {
        let files =
            path.map(|path| FilesView { certificate: None, request: None, key: None, ca: None, crl: Some(path) });
        Self { crl: Some(crl), files, ..Self::empty(kind) }
    }

    /// Writes it as JSON or as labelled lines.
    pub(super) fn print(&self, printer: &Printer) {
        if printer.format().is_json() {
            printer.document(SCHEMA, self);
            return;
        }
        let mut lines = Vec::new();
        lines.extend(self.authority.iter().flat_map(AuthorityView::lines));
        lines.extend(self.request.iter().flat_map(RequestView::lines));
        lines.extend(self.certificate.iter().flat_map(|certificate| certificate.lines(printer)));
        for certificate in self.certificates.iter().flatten() {
            let short = certificate.serial.get(..8).unwrap_or_default();
            let reason = certificate.reason.unwrap_or_default();
            lines.push(("revoked", Text::new().strong(certificate.name()).plain(format!("  {short}  {reason}"))));
        }
        if let Some(crl) = &self.crl {
            lines.push(("issuer", crl.issuer.as_str().into()));
            lines.push(("list", crl.line()));
        }
        lines.extend(self.files.iter().flat_map(FilesView::lines));
        for (label, text) in lines {
            printer.line(Text::new().dim(label).pad_to(13).join(text));
        }
    }
}

/// The day of an RFC 3339 time.
fn date(time: &str) -> &str {
    time.get(..10).unwrap_or(time)
}

fn days(left: i64) -> String {
    match left {
        1 => "1 day".to_owned(),
        left => format!("{left} days"),
    }
}
