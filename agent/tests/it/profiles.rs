//! What plugins watch is announced when it has changed, and only then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use muster_bus::{Bus as _, ConsumeOptions, Consumer, Link, QueueSpec};
use muster_plugin_api::{
    ActionContext, ActionFailure, ActionOk, ActionReply, ActionRequest, BoxFuture, Plugin, Profile,
};
use muster_protocol::ddl::Ddl;
use muster_protocol::routing::{EXCHANGE_REPLY, presence_binding, presence_key};
use muster_protocol::{Announcement, AnnouncementKind, Command, decode};
use serde_json::json;

use crate::kit::{NOW, PATIENCE, Setup, Stage, command, eventually, host};

/// How many things lie on the shelf. 1,000 and more make the plugin panic when it is asked.
#[derive(Default)]
struct Count {
    things: AtomicU64,
    asked: AtomicU64,
}

/// A plugin with one thing to watch.
struct Shelf {
    ddl: Ddl,
    count: Arc<Count>,
}

impl Shelf {
    fn new(count: &Arc<Count>) -> Self {
        let action = |name: &str, read_only: bool| json!({ "action": name, "muster": { "read_only": read_only } });
        let ddl = json!({
            "metadata": { "name": "shelf", "version": "1", "timeout": 30 },
            "actions": [action("put", false), action("look", true)]
        });
        Self { ddl: Ddl::parse(&ddl.to_string()).unwrap(), count: count.clone() }
    }
}

impl Plugin for Shelf {
    fn ddl(&self) -> &Ddl {
        &self.ddl
    }

    fn run(&self, request: ActionRequest, _context: ActionContext) -> BoxFuture<'_, ActionReply> {
        if request.action.as_str() == "put" {
            self.count.things.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(std::future::ready(Ok(ActionOk::data(json!({})))))
    }

    fn profiles(&self, _context: ActionContext) -> BoxFuture<'_, Result<Vec<Profile>, ActionFailure>> {
        self.count.asked.fetch_add(1, Ordering::SeqCst);
        let things = self.count.things.load(Ordering::SeqCst);
        Box::pin(async move {
            assert!(things < 1000, "the shelf broke");
            let full = Profile { name: "things", digest: things.to_string(), data: json!({ "count": things }) };
            let fixed = Profile { name: "fixed", digest: "same".to_owned(), data: json!({}) };
            Ok(vec![full, fixed])
        })
    }
}

/// Somebody who keeps an inventory.
struct Listener {
    consumer: Consumer,
    _link: Arc<dyn Link>,
}

impl Listener {
    async fn new(stage: &Stage) -> Self {
        let inventory = "muster:service/inventory".parse().unwrap();
        let link = stage.broker.bus(&inventory).connect().await.unwrap();
        let queue = "reply.service/inventory.s1";
        link.declare_queue(QueueSpec::durable(queue)).await.unwrap();
        link.bind(queue, EXCHANGE_REPLY, &presence_binding()).await.unwrap();
        let options = ConsumeOptions { prefetch: 10, exclusive: false };
        Self { consumer: link.consume(queue, options).await.unwrap(), _link: link }
    }

    /// The next profile, verified: its name and digest.
    async fn profile(&mut self, stage: &Stage) -> (String, String) {
        loop {
            let delivery = tokio::time::timeout(PATIENCE, self.consumer.next()).await.expect("it comes").unwrap();
            delivery.ack().await.unwrap();
            assert_eq!(delivery.routing_key, presence_key(&host()));
            let signatures = muster_protocol::envelope::parse_signatures(&delivery.signatures).unwrap();
            let signers = stage.site.trust.verify(&delivery.content_type, &delivery.body, &signatures, NOW).unwrap();
            assert_eq!(signers[0].identity, *stage.site.web1.identity());
            let announcement: Announcement = decode(&delivery.body).unwrap();
            if announcement.kind == AnnouncementKind::Profile {
                assert!(announcement.inventory.is_none());
                let profile = announcement.profile.unwrap();
                assert_eq!(profile.plugin.as_str(), "shelf");
                return (profile.name, profile.digest);
            }
        }
    }
}

fn things(number: u64) -> (String, String) {
    ("things".to_owned(), number.to_string())
}

fn of_shelf(stage: &Stage, action: &str) -> Command {
    Command { plugin: "shelf".parse().unwrap(), ..command(&stage.site.lea, action, json!({})) }
}

fn setup(count: &Arc<Count>) -> Setup {
    Setup { plugin: Some(Arc::new(Shelf::new(count))), ..Setup::default() }
}

#[tokio::test]
async fn a_profile_is_announced_at_first_and_after_each_change_but_not_by_a_restart() {
    let stage = Stage::new();
    let count = Arc::new(Count::default());
    let mut listener = Listener::new(&stage).await;
    let agent = stage.start(setup(&count)).await;
    assert_eq!(listener.profile(&stage).await, things(0));
    assert_eq!(listener.profile(&stage).await, ("fixed".to_owned(), "same".to_owned()));

    let mut controller = stage.controller(&stage.site.lea).await;
    for number in 1..=3 {
        let put = of_shelf(&stage, "put");
        controller.send(&put, &stage.site.lea).await;
        controller.finished(put.id).await;
        // The other profile is not announced again: the next one is always this one.
        assert_eq!(listener.profile(&stage).await, things(number));
    }
    // Reading, and another plugin's changes, do not even make the agent ask.
    let asked = count.asked.load(Ordering::SeqCst);
    for read in [of_shelf(&stage, "look"), command(&stage.site.lea, "change", json!({ "name": "x" }))] {
        controller.send(&read, &stage.site.lea).await;
        controller.finished(read.id).await;
    }
    let put = of_shelf(&stage, "put");
    controller.send(&put, &stage.site.lea).await;
    controller.finished(put.id).await;
    assert_eq!(listener.profile(&stage).await, things(4));
    assert_eq!(count.asked.load(Ordering::SeqCst), asked + 1);
    agent.stop().await;

    let asked = count.asked.load(Ordering::SeqCst);
    let agent = stage.start(setup(&count)).await;
    eventually("the agent asks after a restart", || match count.asked.load(Ordering::SeqCst) {
        now if now > asked => Ok(()),
        now => Err(now.to_string()),
    })
    .await;
    count.things.fetch_add(1, Ordering::SeqCst);
    agent.handle.reload().await;
    assert_eq!(listener.profile(&stage).await, things(5), "nothing was announced in between");
    agent.stop().await;
}

#[tokio::test]
async fn what_changed_without_a_connection_is_announced_with_the_next() {
    let stage = Stage::new();
    let count = Arc::new(Count::default());
    let mut listener = Listener::new(&stage).await;
    let agent = stage.start(setup(&count)).await;
    assert_eq!(listener.profile(&stage).await, things(0));
    listener.profile(&stage).await;
    stage.broker.stop();
    count.things.store(7, Ordering::SeqCst);
    agent.handle.reload().await;
    stage.broker.start();
    let mut listener = Listener::new(&stage).await;
    assert_eq!(listener.profile(&stage).await, things(7));
    agent.stop().await;
}

#[tokio::test]
async fn a_plugin_that_panics_is_asked_again_and_takes_nothing_along() {
    let stage = Stage::new();
    let count = Arc::new(Count::default());
    count.things.store(1000, Ordering::SeqCst);
    let mut listener = Listener::new(&stage).await;
    let agent = stage.start(setup(&count)).await;
    eventually("the plugin is asked", || match count.asked.load(Ordering::SeqCst) {
        0 => Err("never".to_owned()),
        _ => Ok(()),
    })
    .await;
    count.things.store(3, Ordering::SeqCst);
    agent.handle.reload().await;
    assert_eq!(listener.profile(&stage).await, things(3));
    assert_eq!(agent.stop().await.failed, None);
}
