//! What each kind of identity may do: as `muster-broker-config` has it for RabbitMQ, in RabbitMQ's words.

use amq_protocol::protocol::{BasicProperties, basic, exchange, queue};
use muster_broker_config::{Operation, permissions_for};

use super::client::{IntoClass, World, bind, consume, declare, method_frame, peer, published};

const IDENTITIES: [&str; 4] = ["host/web1.example.com", "host/web2.example.com", "user/lea", "service/cron"];

/// Bytes that ask for an operation on channel 1.
fn bytes(operation: &Operation<'_>) -> Vec<u8> {
    let method = match *operation {
        Operation::DeclareQueue { queue } => declare(queue).into_class(),
        Operation::DeleteQueue { queue } => {
            queue::Delete { queue: queue.into(), ..queue::Delete::default() }.into_class()
        }
        Operation::PurgeQueue { queue } => queue::Purge { queue: queue.into(), nowait: false }.into_class(),
        Operation::Consume { queue } => consume(queue, "c").into_class(),
        Operation::Bind { queue, exchange, key } => bind(queue, exchange, key).into_class(),
        Operation::BindExchange { destination, source, key } => exchange::Bind {
            destination: destination.into(),
            source: source.into(),
            routing_key: key.into(),
            ..exchange::Bind::default()
        }
        .into_class(),
        Operation::DeclareExchange { exchange } => {
            exchange::Declare { exchange: exchange.into(), kind: "topic".into(), ..exchange::Declare::default() }
                .into_class()
        }
        Operation::DeleteExchange { exchange } => {
            exchange::Delete { exchange: exchange.into(), ..exchange::Delete::default() }.into_class()
        }
        Operation::Publish { exchange, key } => {
            return published(1, exchange, key, &BasicProperties::default(), b"x");
        }
        Operation::DeclareQueueDeadLettering { .. } => unreachable!("no such argument is taken"),
    };
    method_frame(1, method)
}

fn operations() -> Vec<Operation<'static>> {
    let queues = [
        "agent.web1.example.com",
        "agent.web2.example.com",
        "agent.web1.example.comx",
        "reply.user/lea.s1",
        "reply.user/lea.",
        "reply.user/max.s1",
        "reply.service/cron.s1",
        "other",
    ];
    let exchanges = ["cmd", "reply", "", "amq.topic", "amq.fanout", "other"];
    let keys = [
        "all",
        "host.web1.example.com",
        "host.web2.example.com",
        "collective.main",
        "collective.#",
        "#",
        "user/lea.s1.#",
        "user/lea.s1.web1.example.com",
        "user/lea.s1.web2.example.com",
        "user/max.s1.#",
        "presence.web1.example.com",
        "presence.#",
        "agent.web2.example.com",
    ];
    let mut all = Vec::new();
    for queue in queues {
        all.extend([
            Operation::DeclareQueue { queue },
            Operation::DeleteQueue { queue },
            Operation::PurgeQueue { queue },
            Operation::Consume { queue },
        ]);
        for exchange in exchanges {
            all.extend(keys.map(|key| Operation::Bind { queue, exchange, key }));
        }
    }
    for exchange in exchanges {
        all.extend([Operation::DeclareExchange { exchange }, Operation::DeleteExchange { exchange }]);
        all.extend(keys.map(|key| Operation::Publish { exchange, key }));
        for source in exchanges {
            all.extend(keys.map(|key| Operation::BindExchange { destination: exchange, source, key }));
        }
    }
    all
}

#[test]
fn a_session_lets_through_what_the_description_lets_through() {
    let mut counts = (0, 0);
    for identity in IDENTITIES {
        let permissions = permissions_for(&identity.parse().unwrap()).unwrap();
        let mut world = World::new();
        for operation in operations() {
            let mut client = world.open(peer(identity));
            client.write(&mut world, &bytes(&operation));
            let refused = client.refused(&mut world);
            let denied = refused.as_ref().filter(|refused| refused.text.contains(" refused for user '"));
            let allowed = permissions.allows(&operation);
            // AMQP's own exchanges are refused to everybody, for another reason.
            let reserved = matches!(
                operation,
                Operation::Bind { exchange: "", .. }
                    | Operation::BindExchange { destination: "", .. }
                    | Operation::BindExchange { source: "", .. }
                    | Operation::DeclareExchange { exchange: "" }
                    | Operation::DeleteExchange { exchange: "" | "amq.topic" | "amq.fanout" }
            );
            if reserved {
                assert_eq!(refused.map(|refused| refused.code), Some(403), "{identity} {operation:?}");
            } else {
                assert_eq!(denied.is_none(), allowed, "{identity} {operation:?}: {refused:?}");
                assert!(denied.is_none_or(|refused| refused.code == 403 && refused.channel == 1));
                if allowed { counts.0 += 1 } else { counts.1 += 1 }
            }
            let now_ms = world.now_ms;
            client.session.lost(&mut world, now_ms);
        }
    }
    assert!(counts.0 > 40 && counts.1 > 3_000, "both kinds were tried: {counts:?}");
}

#[test]
fn refusals_are_in_rabbitmqs_words() {
    let web1 = "host/web1.example.com";
    for (identity, operation, text) in [
        (
            web1,
            Operation::DeclareQueue { queue: "agent.web2.example.com" },
            "access to queue 'agent.web2.example.com' in vhost 'muster' refused for user 'muster:host/web1.example.com'",
        ),
        (
            web1,
            Operation::Publish { exchange: "cmd", key: "all" },
            "access to exchange 'cmd' in vhost 'muster' refused for user 'muster:host/web1.example.com'",
        ),
        (
            web1,
            Operation::Publish { exchange: "", key: "agent.web2.example.com" },
            "access to exchange 'amq.default' in vhost 'muster' refused for user 'muster:host/web1.example.com'",
        ),
        (
            web1,
            Operation::Publish { exchange: "reply", key: "user/lea.s1.web2.example.com" },
            "access to topic 'user/lea.s1.web2.example.com' in exchange 'reply' in vhost 'muster' refused for user \
             'muster:host/web1.example.com'",
        ),
        (
            web1,
            Operation::Bind { queue: "agent.web1.example.com", exchange: "cmd", key: "#" },
            "access to topic '#' in exchange 'cmd' in vhost 'muster' refused for user 'muster:host/web1.example.com'",
        ),
        (
            "user/lea",
            Operation::Consume { queue: "reply.user/max.s1" },
            "access to queue 'reply.user/max.s1' in vhost 'muster' refused for user 'muster:user/lea'",
        ),
    ] {
        let mut world = World::new();
        let mut client = world.open(peer(identity));
        client.write(&mut world, &bytes(&operation));
        let refused = client.refused(&mut world).unwrap();
        assert_eq!(refused.text, format!("ACCESS_REFUSED - {text}"));
    }
}

/// Where one was allowed to publish says nothing about elsewhere.
#[test]
fn each_publish_is_checked() {
    let mut world = World::new();
    let mut client = world.open(peer("host/web1.example.com"));
    let good = ("reply", "user/lea.s1.web1.example.com");
    for (exchange, key) in [good, good, ("reply", "presence.web1.example.com"), good] {
        client.publish(&mut world, 1, exchange, key, b"x");
        assert_eq!(client.refused(&mut world), None);
    }
    for (exchange, key) in [("cmd", good.1), ("reply", "user/lea.s1.web2.example.com"), ("", good.1), ("reply", "")] {
        let mut client = world.open(peer("host/web1.example.com"));
        client.publish(&mut world, 1, good.0, good.1, b"x");
        assert_eq!(client.refused(&mut world), None);
        client.publish(&mut world, 1, exchange, key, b"x");
        assert_eq!(client.refused(&mut world).map(|refused| refused.code), Some(403), "{exchange} {key}");
        let now_ms = world.now_ms;
        client.session.lost(&mut world, now_ms);
    }
}

/// RabbitMQ asks nothing for these, and the last declared queue may be another's.
#[test]
fn to_look_needs_no_permission_but_to_take_does() {
    let mut world = World::new();
    let mut web2 = world.open(peer("host/web2.example.com"));
    web2.ask(&mut world, 1, declare("agent.web2.example.com"));
    let mut web1 = world.open(peer("host/web1.example.com"));
    web1.send(&mut world, 1, queue::Declare { passive: true, ..declare("agent.web2.example.com") });
    assert_eq!(web1.refused(&mut world), None);
    web1.send(&mut world, 1, basic::Get { queue: "".into(), no_ack: true });
    assert_eq!(
        web1.refused(&mut world).unwrap().text,
        "ACCESS_REFUSED - access to queue 'agent.web2.example.com' in vhost 'muster' refused for user \
         'muster:host/web1.example.com'"
    );
    let mut lea = world.open(peer("user/lea"));
    lea.send(&mut world, 1, queue::Declare { exclusive: true, ..declare("") });
    let text = lea.refused(&mut world).unwrap().text;
    assert!(text.starts_with("ACCESS_REFUSED - access to queue 'amq.gen-"), "{text}");
}
