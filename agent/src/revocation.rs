//! The revocation lists in force: from the file of the configuration, over the bus, kept for the next start.
//!
//! # Invariants
//!
//! - A list that was in force stays in force, over reloads and restarts: numbers only go up.
//! - Its number is remembered in a file of its own ([`files::REVOCATION_NUMBERS`]). An agent that finds none of that
//!   number when it starts, because somebody removed or replaced the file with the list, does not start: without the
//!   list it would obey whoever is revoked, and nobody would notice.
//! - The number is written after the list is, so that a crash in between leaves a list and an older number, which is
//!   in order.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;

use muster_pki::{PkiError, Trust};

use crate::audit::Event;
use crate::core::{Core, chain, report_error};
use crate::state::{StateError, files};

/// Numbers of lists by the fingerprint of their authority's certificate.
type Numbers = BTreeMap<String, u64>;

/// What a list that was in force and is not there any more means.
const LOST: &str = "it was in force here, and without it somebody who is revoked would be obeyed: put the authority's \
                    newest list at `pki.crl`";

/// The numbers that are remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Remembered {
    Nothing,
    Damaged,
    Numbers(Numbers),
}

/// Says what is missing: a list of an authority that is trusted, and that was in force with that number. `now` has
/// every authority that is trusted, and the number of its list, if there is one.
fn missing(remembered: &Remembered, now: &BTreeMap<String, Option<u64>>) -> Option<String> {
    match remembered {
        Remembered::Nothing => None,
        // What was remembered is not known. A list for everybody is as much as can be asked for.
        Remembered::Damaged => now
            .values()
            .any(Option::is_none)
            .then(|| "it is damaged, and an authority has no revocation list; put its newest one at `pki.crl`, or remove this file if there never was one".to_owned()),
        Remembered::Numbers(numbers) => numbers.iter().find_map(|(authority, number)| {
            let found = now.get(authority)?;
            let found = match found {
                Some(found) if found >= number => return None,
                Some(found) => format!("there is only number {found}"),
                None => "there is none".to_owned(),
            };
            Some(format!("revocation list number {number} is gone, {found}; {LOST}"))
        }),
    }
}

impl Core {
    /// Puts the lists that came over the bus back into force. One that is older than the file's stays out.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged: without it somebody might be obeyed whose certificate is revoked.
    pub(crate) fn restore_revocation_lists(&self) -> Result<(), StateError> {
        let path = self.state.file(files::REVOCATION_LIST);
        let read = self.state.read(files::REVOCATION_LIST);
        let text = read.map_err(|source| StateError::Io { action: "read", path: path.clone(), source })?;
        let text = text.unwrap_or_default();
        self.install_kept(&self.materials().trust, &String::from_utf8_lossy(&text)).map_err(|error| {
            let why = format!(
                "{}; it holds who was revoked: put the authority's newest list at `pki.crl`, then remove this file",
                chain(&error)
            );
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, why);
            StateError::Io { action: "use the kept revocation list", path, source }
        })?;
        let path = self.state.file(files::REVOCATION_NUMBERS);
        let failed =
            |source| StateError::Io { action: "go by the revocation lists remembered in", path: path.clone(), source };
        let remembered = self.remembered_numbers().map_err(failed)?;
        if let Some(why) = missing(&remembered, &self.materials().trust.crl_numbers()) {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        if remembered == Remembered::Damaged {
            tracing::warn!("The file that remembers revocation lists was damaged; it is written anew");
        }
        self.remember_numbers();
        Ok(())
    }

    fn remembered_numbers(&self) -> io::Result<Remembered> {
        Ok(match self.state.read(files::REVOCATION_NUMBERS)? {
            None => Remembered::Nothing,
            Some(bytes) => serde_json::from_slice(&bytes).map_or(Remembered::Damaged, Remembered::Numbers),
        })
    }

    /// Remembers the numbers of the lists in force, where they are not yet. Those of authorities that are trusted no
    /// more are forgotten. What cannot be written now is tried again with the lists.
    pub(crate) fn remember_numbers(&self) {
        let in_force = self.materials().trust.crl_numbers().into_iter();
        let numbers: Numbers = in_force.filter_map(|(authority, number)| Some((authority, number?))).collect();
        match self.remembered_numbers() {
            Ok(Remembered::Numbers(before)) if before == numbers => return,
            Ok(Remembered::Nothing) if numbers.is_empty() => return,
            _ => {}
        }
        let bytes = serde_json::to_vec(&numbers).unwrap_or_default();
        if let Err(error) = self.state.write(files::REVOCATION_NUMBERS, &bytes) {
            self.revocations_unkept.store(true, Ordering::SeqCst);
            report_error("Could not remember the number of a revocation list", &error);
        }
    }

    /// Puts lists into force that were in force before. One that is older than what is there stays out.
    ///
    /// # Errors
    /// When one of them is no list, after the others are in force.
    pub(crate) fn install_kept(&self, trust: &Trust, text: &str) -> Result<(), PkiError> {
        let mut damaged = Ok(());
        for list in text.split_inclusive("-----END X509 CRL-----") {
            if list.trim().is_empty() {
                continue;
            }
            match trust.install_crl(list.as_bytes(), self.now()) {
                Ok(_) => {}
                // An older one than in the file, or of an authority that is trusted no more.
                Err(error @ (PkiError::CrlRollback { .. } | PkiError::ForeignCrl { .. })) => {
                    tracing::info!(error = chain(&error), "A kept revocation list is not used");
                }
                Err(error) => damaged = Err(error),
            }
        }
        damaged
    }

    /// Writes the lists in force down for the next start, where that did not work before.
    pub(crate) fn keep_revocation_lists(&self) {
        if !self.revocations_unkept.swap(false, Ordering::SeqCst) {
            return;
        }
        let text = self.materials().trust.crl_pem();
        if let Err(error) = self.state.write(files::REVOCATION_LIST, text.as_bytes()) {
            self.revocations_unkept.store(true, Ordering::SeqCst);
            return report_error("Could not keep the new revocation list for the next start", &error);
        }
        self.remember_numbers();
    }

    /// Takes a revocation list from the bus. Its own signature says whether it is the CA's.
    pub(crate) fn install_revocation_list(&self, bytes: &[u8]) {
        let trust = self.materials().trust;
        match trust.install_crl(bytes, self.now()) {
            Ok(status) if status.changed => {
                let message = format!("number {}, {} certificates revoked", status.info.number, status.info.revoked);
                tracing::info!(
                    number = status.info.number,
                    revoked = status.info.revoked,
                    "New revocation list in force"
                );
                self.note(Event::new("revocation_list", "allowed").with_message(message));
                self.certificate_doubted.notify_one();
                self.revocations_unkept.store(true, Ordering::SeqCst);
                self.keep_revocation_lists();
            }
            Ok(_) => tracing::debug!("The revocation list is in force already"),
            Err(error) => {
                let message = chain(&error);
                tracing::warn!(error = message, "Refused a revocation list");
                self.note_unverified(Event::new("revocation_list", "refused").with_message(message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_in_force_is_missed() {
        let now = |lists: &[(&str, Option<u64>)]| lists.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect();
        let numbers = |lists: &[(&str, u64)]| {
            Remembered::Numbers(lists.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect())
        };
        let check = |remembered: &Remembered, found: &[(&str, Option<u64>)], expected: Option<&str>| {
            let said = missing(remembered, &now(found));
            match expected {
                None => assert_eq!(said, None, "{found:?}"),
                Some(words) => assert!(said.as_ref().is_some_and(|it| it.contains(words)), "{found:?}: {said:?}"),
            }
        };
        check(&Remembered::Nothing, &[("a", None)], None);
        check(&numbers(&[("a", 7)]), &[("a", Some(7))], None);
        check(&numbers(&[("a", 7)]), &[("a", Some(8)), ("b", None)], None);
        check(&numbers(&[("a", 7)]), &[("a", Some(6))], Some("number 7 is gone, there is only number 6"));
        check(&numbers(&[("a", 7)]), &[("a", None)], Some("number 7 is gone, there is none"));
        // Another authority, also of the same name, begins with its own numbers.
        check(&numbers(&[("a", 7)]), &[("b", None)], None);
        check(&Remembered::Damaged, &[("a", Some(1))], None);
        check(&Remembered::Damaged, &[("a", Some(1)), ("b", None)], Some("it is damaged"));
    }
}
