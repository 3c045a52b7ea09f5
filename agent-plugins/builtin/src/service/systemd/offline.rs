//! Services of a systemd that is installed but does not run: in a container or a chroot.
//!
//! `systemctl` then works on the files alone, so that enabling and disabling do what they do elsewhere. Nothing can be
//! started, and nobody knows what runs.

use muster_plugin_api::{ActionFailure, BoxFuture};
use muster_protocol::code;

use super::super::manager::{
    Bounds, Carried, Condition, Ending, Found, Job, Listed, LogLine, Manager, State, Traits, Verb,
};
use super::super::{ServicePaths, name};
use super::{Systemctl, show};
use crate::process::find_program;

/// What stands where a running systemd would say `active/running`.
const OFFLINE: &str = "offline";

/// A systemd that does not run.
#[derive(Debug)]
pub(in super::super) struct Offline(Systemctl);

impl Offline {
    /// `None` without `systemctl`.
    pub(in super::super) fn new(paths: &ServicePaths) -> Option<Self> {
        find_program("systemctl", &paths.programs).map(|path| Self(Systemctl(path)))
    }
}

fn found(unit: &str, enabled_state: &str) -> Found {
    Found {
        unit: unit.to_owned(),
        description: String::new(),
        state: State {
            status: Condition::Unknown,
            active: Some(OFFLINE.to_owned()),
            sub: None,
            enabled: show::enabled(enabled_state),
            enabled_state: enabled_state.to_owned(),
            pid: None,
            since_ms: None,
            result: None,
            exit_code: None,
            restarts: None,
        },
        traits: Traits {
            is_masked: enabled_state.starts_with("masked"),
            cannot_run: Some(
                "systemd is installed but does not run here, as in a container or a chroot; only enable and disable \
                 work"
                    .to_owned(),
            ),
            cannot_enable: show::cannot_enable(enabled_state),
            ..Traits::default()
        },
    }
}

impl Manager for Offline {
    fn provider(&self) -> &'static str {
        "systemd"
    }

    fn find<'a>(&'a self, name: &'a str, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Option<Found>, ActionFailure>> {
        Box::pin(async move {
            let unit = name::unit(name);
            let (program, run) = self.0.run(&["is-enabled", "--", &unit], bounds).await;
            // The exit code tells enabled from not enabled; a unit that is not there gives no word, or this one.
            let code = run.exit_code(&program)?;
            let output = run.stdout.text();
            let is_word = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            match output.trim() {
                "" | "not-found" => Ok(None),
                word if Some(word).filter(is_word).is_some() => Ok(Some(found(&unit, word))),
                _ => Err(run.failure(&program, code)),
            }
        })
    }

    fn carry_out<'a>(&'a self, verb: Verb, found: &'a Found, bounds: Bounds<'a>) -> BoxFuture<'a, Carried> {
        let _none_needed = bounds;
        let why = found.traits.cannot_run.clone().unwrap_or_default();
        let ending = Ending::Refused(ActionFailure::new(&code::NOT_ACTIVATED, why));
        Box::pin(std::future::ready(Carried { job: Job::of(verb), ending, lines: Vec::new(), memory: None }))
    }

    fn set_enabled<'a>(
        &'a self,
        enabled: bool,
        found: &'a Found,
        bounds: Bounds<'a>,
    ) -> BoxFuture<'a, Result<(), ActionFailure>> {
        Box::pin(self.0.set_enabled(enabled, &found.unit, bounds))
    }

    fn log<'a>(&'a self, _found: &'a Found, _bounds: Bounds<'a>) -> BoxFuture<'a, Vec<LogLine>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn list<'a>(&'a self, bounds: Bounds<'a>) -> BoxFuture<'a, Result<Vec<Listed>, ActionFailure>> {
        Box::pin(async move {
            let files = self.0.unit_files(bounds).await?;
            let listed = |(unit, state): (String, String)| Listed {
                status: Condition::Unknown,
                state: OFFLINE.to_owned(),
                ..show::listed_file(&unit, &state)
            };
            Ok(files.into_iter().map(listed).collect())
        })
    }
}
