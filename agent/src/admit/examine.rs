//! Steps 10, 14 and 15 for whoever asks: a message that was delivered, or `musterd policy test`.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_pki::Signer;
use muster_plugin_api::{Plugin, Registry, Unavailable, check_options};
use muster_protocol::ddl::{Action, ArgumentError};
use muster_protocol::expr::HostScope;
use muster_protocol::{ActionName, Command, Identity, PluginName, RequestId, SealedArguments, code};
use serde_json::{Map, Value, json};

use super::{Refusal, Verified, secrets};
use crate::policy::{CANCEL, Policy, Question, Shortfall, Step, Verdict, is_secret};

/// What somebody wants done, as far as policy and description of the action look at it.
#[derive(Debug, Clone, Copy)]
pub struct Petition<'a> {
    /// Who signed, the caller first.
    pub signers: &'a [Signer],
    /// The plugin.
    pub plugin: &'a PluginName,
    /// Its action.
    pub action: &'a ActionName,
    /// The arguments as they were sent.
    pub arguments: &'a Map<String, Value>,
    /// Secret arguments, as they were sent.
    pub sealed: Option<&'a SealedArguments>,
    /// Whether it is only to be tried.
    pub noop: bool,
    /// The user it is to run as.
    pub effective_user: Option<&'a str>,
}

impl<'a> Petition<'a> {
    pub(super) fn of(verified: &'a Verified<Command>) -> Self {
        let command = &verified.message;
        Self {
            signers: &verified.signers,
            plugin: &command.plugin,
            action: &command.action,
            arguments: &command.arguments,
            sealed: command.sealed.as_ref(),
            noop: command.options.noop,
            effective_user: command.options.effective_user.as_deref(),
        }
    }
}

/// A petition that policy and description allow.
pub struct Examined<'a> {
    /// The plugin that would run it.
    pub plugin: &'a Arc<dyn Plugin>,
    /// The action's description.
    pub action: &'a Action,
    /// The policy rule that allows it.
    pub rule: String,
    /// The arguments, checked and complete.
    pub arguments: Map<String, Value>,
    /// Which of them are secrets.
    pub secrets: BTreeSet<String>,
}

impl std::fmt::Debug for Examined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Examined").field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// A petition that the policy allows. What the plugin's description says of it is not known yet.
pub(super) struct Permitted<'a> {
    found: Result<(&'a Arc<dyn Plugin>, &'a Action), Unavailable>,
    rule: String,
}

/// Asks the policy, then the plugin's description. `observe` sees each rule that was looked at; `unseal` opens
/// the sealed arguments and is called only once the policy has allowed the action.
///
/// # Errors
/// The refusal that the sender would be told.
pub fn examine<'a>(
    petition: &Petition<'_>,
    registry: &'a Registry,
    policy: &Policy,
    scope: &HostScope<'_>,
    observe: &mut dyn FnMut(&Step<'_>),
    unseal: impl FnOnce() -> Result<Map<String, Value>, Refusal>,
) -> Result<Examined<'a>, Refusal> {
    permit(petition, registry, policy, scope, observe)?.examine(petition, unseal)
}

/// Asks the policy. Its answer does not depend on the target of the command.
pub(super) fn permit<'a>(
    petition: &Petition<'_>,
    registry: &'a Registry,
    policy: &Policy,
    scope: &HostScope<'_>,
    observe: &mut dyn FnMut(&Step<'_>),
) -> Result<Permitted<'a>, Refusal> {
    let found = registry.action(petition.plugin, petition.action);
    let described = registry.get(petition.plugin).and_then(|it| it.plugin.ddl().action(petition.action));
    // The policy sees the arguments as the action would get them, defaults filled in, so that a rule
    // about an argument cannot be walked around by leaving it out.
    let question = Question {
        signers: petition.signers,
        plugin: petition.plugin.as_str(),
        action: &format!("{}.{}", petition.plugin, petition.action),
        read_only: described.map(|action| action.muster.read_only),
        arguments: &open_arguments(described, petition.arguments),
        noop: petition.noop,
        effective_user: petition.effective_user,
    };
    let verdict = policy.ask_observed(&question, scope, observe);
    let rule = answer_of(verdict, petition.signers).map_err(|mut refusal| {
        if let Err(missing) = &found {
            refusal.message = format!("{}; besides, {missing}", refusal.message);
        }
        refusal
    })?;
    Ok(Permitted { found, rule })
}

impl<'a> Permitted<'a> {
    /// Asks the plugin's description. The petition is the one that was permitted.
    pub(super) fn examine(
        self,
        petition: &Petition<'_>,
        unseal: impl FnOnce() -> Result<Map<String, Value>, Refusal>,
    ) -> Result<Examined<'a>, Refusal> {
        let (plugin, action) = self.found.map_err(|missing| Refusal::new(missing.code(), missing.to_string()))?;
        let refused = |error: ArgumentError| Refusal::new(error.code(), error.to_string());
        let arguments = secrets::join(action, petition.arguments, petition.sealed, unseal)?;
        let arguments = action.validate(&arguments).map_err(refused)?;
        check_options(action, petition.noop, petition.effective_user)
            .map_err(|failure| Refusal::new(failure.code(), failure.message))?;
        let mut secrets = secrets::names(action);
        // Of those that were given: who hands them on waits for exactly these.
        secrets.retain(|name| arguments.contains_key(name));
        Ok(Examined { plugin, action, rule: self.rule, arguments, secrets })
    }
}

/// The arguments that rules see: no secrets, and complete where what was sent fits.
fn open_arguments(described: Option<&Action>, arguments: &Map<String, Value>) -> Map<String, Value> {
    let Some(action) = described else { return arguments.clone() };
    if !action.input.iter().any(|(_, input)| is_secret(input)) {
        return action.validate(arguments).unwrap_or_else(|_| arguments.clone());
    }
    let mut open = action.clone();
    open.input.retain(|_, input| !is_secret(input));
    let mut sent = arguments.clone();
    sent.retain(|name, _| !action.input.get(name).is_some_and(is_secret));
    open.validate(&sent).unwrap_or(sent)
}

/// A request of somebody else that a cancellation or a watch is about.
#[derive(Debug, Clone, Copy)]
pub struct ForeignRequest<'a> {
    /// The request.
    pub id: RequestId,
    /// Who sent it.
    pub caller: &'a Identity,
    /// Its `plugin.action`.
    pub action: &'a str,
}

/// Asks the policy whether somebody may touch a request of somebody else. `pseudo` is one of
/// [`PSEUDO_ACTIONS`](crate::policy::PSEUDO_ACTIONS). Whoever may look (`read_only = true`) may not therefore look
/// at what others' actions print, so `read_only` is false for both. Gives the name of the rule.
///
/// # Errors
/// The refusal that the sender would be told.
pub fn examine_foreign(
    pseudo: &str,
    request: &ForeignRequest<'_>,
    signers: &[Signer],
    policy: &Policy,
    scope: &HostScope<'_>,
    observe: &mut dyn FnMut(&Step<'_>),
) -> Result<String, Refusal> {
    let arguments = Map::from_iter([
        ("request_id".to_owned(), Value::from(request.id.to_string())),
        ("action".to_owned(), Value::from(request.action)),
        ("caller".to_owned(), Value::from(request.caller.to_string())),
    ]);
    let question = Question {
        signers,
        plugin: pseudo,
        action: pseudo,
        read_only: Some(false),
        arguments: &arguments,
        noop: false,
        effective_user: None,
    };
    match policy.ask_observed(&question, scope, observe) {
        // Nobody needs a second person to stop something. What others' actions print is another matter: a rule that asks
        // for more people asks for them there, too.
        Verdict::NeedsApproval { rule, .. } if pseudo == CANCEL => Ok(rule),
        verdict => answer_of(verdict, signers),
    }
}

fn answer_of(verdict: Verdict, signers: &[Signer]) -> Result<String, Refusal> {
    match verdict {
        Verdict::Allowed { rule } => Ok(rule),
        Verdict::Denied { rule, certain: true } => Err(Refusal {
            rule: Some(rule.clone()),
            ..Refusal::new(&code::POLICY_DENIED, format!("rule `{rule}` denies it"))
        }),
        Verdict::Denied { rule, certain: false } => Err(Refusal {
            rule: Some(rule.clone()),
            ..Refusal::new(
                &code::POLICY_DENIED,
                format!("rule `{rule}` may deny it: a value that the rule needs is not there"),
            )
        }),
        Verdict::NeedsApproval { rule, missing } => Err(Refusal {
            data: json!({
                "rule": rule,
                "missing": missing,
                "signers": signers.iter().map(|signer| signer.identity.to_string()).collect::<Vec<_>>(),
            }),
            message: format!("rule `{rule}` needs {}", Shortfall::sentence(&missing)),
            rule: Some(rule),
            ..Refusal::new(&code::NEEDS_APPROVAL, "")
        }),
        Verdict::NoRule => Err(Refusal::new(&code::POLICY_DENIED, "no rule allows it")),
    }
}
