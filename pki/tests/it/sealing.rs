//! Secret arguments open for the hosts they were sealed to, in the command they were sealed for, and nowhere else.

use muster_pki::sealing::{SealingError, SealingKey, SealingPublicKey, seal};
use muster_protocol::{
    ActionName, HostName, Identity, PluginName, RequestId, SealedArguments, SealingContext, Timestamp,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

struct Scene {
    hosts: Vec<(HostName, SealingKey)>,
    request_id: RequestId,
    caller: Identity,
    plugin: PluginName,
    action: ActionName,
}

impl Scene {
    fn new() -> Self {
        let host = |name: &str| (name.parse().unwrap(), SealingKey::generate().unwrap());
        Self {
            hosts: ["web1.example.com", "web2.example.com"].into_iter().map(host).collect(),
            request_id: RequestId::from_parts(Timestamp(1_774_569_600_000), [1; 10]),
            caller: "muster:user/lea".parse().unwrap(),
            plugin: "script".parse().unwrap(),
            action: "run".parse().unwrap(),
        }
    }

    fn context(&self) -> SealingContext<'_> {
        SealingContext { request_id: self.request_id, caller: &self.caller, plugin: &self.plugin, action: &self.action }
    }

    fn seal(&self, values: &Map<String, Value>) -> SealedArguments {
        seal(values, &self.context(), self.hosts.iter().map(|(host, key)| (host, key.public()))).unwrap()
    }

    fn open(&self, index: usize, sealed: &SealedArguments) -> Result<Map<String, Value>, SealingError> {
        let (host, key) = &self.hosts[index];
        key.open(sealed, host, &self.context())
    }
}

fn values() -> Map<String, Value> {
    let values = json!({ "secret_input": "correct horse", "token": { "deep": [1, "ä"] } });
    values.as_object().unwrap().clone()
}

#[test]
fn every_recipient_opens_it_and_nothing_of_it_is_to_be_seen() {
    let scene = Scene::new();
    let sealed = scene.seal(&values());
    for index in 0..2 {
        assert_eq!(scene.open(index, &sealed).unwrap(), values());
    }
    let text = serde_json::to_string(&sealed).unwrap();
    assert!(text.contains("secret_input") && !text.contains("correct horse"), "{text}");
    assert_ne!(scene.seal(&values()), sealed, "each command has a key of its own");
}

#[test]
fn another_command_another_host_or_another_key_does_not_open_it() {
    let scene = Scene::new();
    let sealed = scene.seal(&values());
    let (host, key) = &scene.hosts[0];
    let check = |context: SealingContext<'_>| {
        assert_eq!(key.open(&sealed, host, &context).unwrap_err(), SealingError::DoesNotOpen);
    };
    let (id, caller) = (RequestId::from_parts(Timestamp(0), [2; 10]), "muster:user/mallory".parse().unwrap());
    let (plugin, action) = ("shell".parse().unwrap(), "echo".parse().unwrap());
    check(SealingContext { request_id: id, ..scene.context() });
    check(SealingContext { caller: &caller, ..scene.context() });
    check(SealingContext { plugin: &plugin, ..scene.context() });
    check(SealingContext { action: &action, ..scene.context() });

    let stranger: HostName = "db1.example.com".parse().unwrap();
    let error = key.open(&sealed, &stranger, &scene.context()).unwrap_err();
    assert_eq!(error, SealingError::NotARecipient { host: stranger });
    let error = SealingKey::generate().unwrap().open(&sealed, host, &scene.context()).unwrap_err();
    assert!(matches!(error, SealingError::OtherKey { .. }), "{error}");
    assert_eq!(error.code().code, "cannot-unseal");

    // The entry of one host under the name of another.
    let mut moved = sealed.clone();
    let other = moved.recipients[&scene.hosts[1].0].sealed.clone();
    moved.recipients.get_mut(host).unwrap().sealed = other;
    assert_eq!(scene.open(0, &moved).unwrap_err(), SealingError::DoesNotOpen);
    // A label that promises something else.
    let mut renamed = sealed;
    renamed.names = ["secret_input".to_owned()].into();
    assert!(matches!(scene.open(0, &renamed).unwrap_err(), SealingError::WrongContents { .. }));
}

#[test]
fn the_text_of_a_public_key_reads_back_and_nothing_else_does() {
    let key = SealingKey::generate().unwrap();
    let text = key.public().to_string();
    assert_eq!(&text.parse::<SealingPublicKey>().unwrap(), key.public());
    assert_eq!(key.public().id().len(), 16);
    for wrong in ["", "x25519:", "x25519:AAAA", "ed25519:AAAA", &text[1..], &format!("{text}A"), "x25519:\u{1b}[2J"] {
        let error = wrong.parse::<SealingPublicKey>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever single byte of a command's sealed part is changed, it does not open to anything.
    #[test]
    fn a_changed_byte_never_opens(position in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        let scene = Scene::new();
        let mut sealed = scene.seal(&values());
        let (host, _) = &scene.hosts[0];
        let recipient = sealed.recipients.get_mut(host).unwrap();
        let boxes = [&mut recipient.sealed, &mut sealed.values];
        let mut parts: Vec<(usize, usize, Vec<u8>)> = Vec::new();
        for (index, sealed) in boxes.iter().enumerate() {
            let (encapsulated, ciphertext) = sealed.decoded().unwrap();
            parts.push((index, 0, encapsulated));
            parts.push((index, 1, ciphertext));
        }
        let total: usize = parts.iter().map(|(_, _, bytes)| bytes.len()).sum();
        let mut at = position.index(total);
        let mut changed = None;
        for (index, which, bytes) in &mut parts {
            if at < bytes.len() {
                bytes[at] ^= flip;
                changed = Some((*index, *which));
                break;
            }
            at -= bytes.len();
        }
        let (index, _) = changed.unwrap();
        let encapsulated = parts.iter().find(|(i, which, _)| *i == index && *which == 0).unwrap().2.clone();
        let ciphertext = parts.iter().find(|(i, which, _)| *i == index && *which == 1).unwrap().2.clone();
        let [key_box, values_box] = boxes;
        let target = if index == 0 { key_box } else { values_box };
        *target = muster_protocol::SealedBox::encode(&encapsulated, &ciphertext);
        // X25519 ignores the top bit of the encapsulated point, so the same point has two spellings; HPKE
        // binds the key schedule to the spelling, so even that one does not open.
        prop_assert_eq!(scene.open(0, &sealed).unwrap_err(), SealingError::DoesNotOpen);
    }
}
