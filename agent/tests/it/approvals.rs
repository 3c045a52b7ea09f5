//! A second person's signature on a whole agent: what was sent too early is not lost, and what runs runs once.

use muster_protocol::{Options, Outcome};
use serde_json::json;

use crate::kit::{Setup, Stage, command, signed};

const TWO: &str = "[[rule]]\nname = \"two\"\neffect = \"allow\"\nwhen = 'true'\napprovals = [{ group = \"sre\" }]\n\n\
    [[rule]]\nname = \"lax\"\neffect = \"allow\"\nwhen = 'true'\n";

/// The audit lines about a request: the decision, its code and who signed.
fn decisions(stage: &Stage, id: &str) -> Vec<(String, String, usize)> {
    let lines = stage.audit();
    let about = lines.iter().map(|line| &line["details"]).filter(|details| details["request_id"] == id);
    about
        .map(|details| {
            let text = |name: &str| details[name].as_str().unwrap_or_default().to_owned();
            (text("decision"), text("code"), details["signers"].as_array().map_or(1, Vec::len))
        })
        .collect()
}

#[tokio::test]
async fn a_command_that_came_too_early_runs_once_when_it_is_approved() {
    let stage = Stage::new();
    let agent = stage.start(Setup { policy: TWO.into(), ..Setup::default() }).await;
    let (lea, max) = (&stage.site.lea, &stage.site.max);
    let sam = stage.site.authority.credentials_with_groups("user/sam", &["sre"]).unwrap();
    let mut controller = stage.controller(lea).await;
    let mut change = command(lea, "change", json!({ "name": "x" }));
    change.options = Options { progress: false, ..Options::default() };
    let id = change.id.to_string();

    // As often as anybody likes, also by whoever copies it: the id is not used up.
    for _ in 0..2 {
        controller.publish(signed(&change, &[lea])).await;
        let result = controller.finished(change.id).await.1.result.unwrap();
        assert_eq!((result.outcome, result.code.as_str()), (Outcome::Refused, "needs-approval"));
        assert_eq!(result.data["signers"], json!(["muster:user/lea"]));
        assert_eq!(result.data["missing"], json!([{ "count": 1, "groups": ["sre"] }]));
    }
    controller.publish(signed(&change, &[lea, max])).await;
    assert_eq!(controller.code(change.id).await, "needs-approval");
    controller.publish(signed(&change, &[lea, max, &sam])).await;
    assert_eq!(controller.code(change.id).await, "ok");
    // What has run has run, with fewer signatures too.
    for signers in [&[lea, max, &sam][..], &[lea, &sam], &[lea]] {
        controller.publish(signed(&change, signers)).await;
        assert_eq!(controller.code(change.id).await, "replayed");
    }
    agent.stop().await;
    let seen = decisions(&stage, &id);
    let of = |decision: &str, code: &str, signers: usize| (decision.to_owned(), code.to_owned(), signers);
    assert_eq!(
        seen,
        [
            of("refused", "needs-approval", 1),
            of("refused", "needs-approval", 1),
            of("refused", "needs-approval", 2),
            of("allowed", "", 3),
            of("succeeded", "ok", 1),
            of("refused", "replayed", 3),
            of("refused", "replayed", 2),
            of("refused", "replayed", 1),
        ]
    );
}

#[tokio::test]
async fn an_approver_who_was_revoked_in_between_makes_it_refused() {
    let stage = Stage::new();
    let agent = stage.start(Setup { policy: TWO.into(), ..Setup::default() }).await;
    let lea = &stage.site.lea;
    let sam = stage.site.authority.credentials_with_groups("user/sam", &["sre"]).unwrap();
    let mut controller = stage.controller(lea).await;
    let change = command(lea, "change", json!({ "name": "x" }));
    let approved = signed(&change, &[lea, &sam]);
    stage.site.authority.revoke(&sam).unwrap();
    stage.site.trust.install_crl(stage.site.authority.crl_pem().unwrap().as_bytes(), crate::kit::NOW).unwrap();
    controller.publish(approved).await;
    assert_eq!(controller.code(change.id).await, "revoked-certificate");
    agent.stop().await;
    assert!(decisions(&stage, &change.id.to_string()).iter().all(|(decision, ..)| decision == "refused"));
}
