//! Channels: opening, closing, exceptions, and what happens on one meanwhile.

use amq_protocol::protocol::{
    AMQPClass, BasicProperties, access, basic, channel, confirm, connection, exchange, queue,
};
use amq_protocol::types::FieldTable;
use muster_broker::Fault;
use muster_broker::session::Progress;

use super::client::{IntoClass, World, anybody, bind, consume, declare, published};

#[test]
fn the_usual_round() {
    let mut world = World::new();
    let mut client = world.anybody();
    let ok = client.ask(&mut world, 1, queue::Declare { durable: true, ..declare("q") });
    assert_eq!(ok, queue::DeclareOk { queue: "q".into(), message_count: 0, consumer_count: 0 }.into_class());
    assert_eq!(client.ask(&mut world, 1, bind("q", "amq.topic", "a.#")), queue::BindOk {}.into_class());
    assert_eq!(client.ask(&mut world, 1, confirm::Select { nowait: false }), confirm::SelectOk {}.into_class());
    client.publish(&mut world, 1, "amq.topic", "a.b", b"hello");
    assert_eq!(client.methods(&mut world), [(1, basic::Ack { delivery_tag: 1, multiple: false }.into_class())]);
    assert_eq!(
        client.ask(&mut world, 1, basic::Qos { prefetch_count: 5, global: false }),
        basic::QosOk {}.into_class()
    );
    client.send(&mut world, 1, consume("q", "c"));
    let frames = client.frames(&mut world);
    let text = format!("{frames:?}");
    assert!(text.contains("ConsumeOk") && text.contains("Deliver") && text.contains("a.b"), "{text}");
    client.send(&mut world, 1, basic::Ack { delivery_tag: 1, multiple: false });
    assert!(client.frames(&mut world).is_empty());
    let count = client.ask(&mut world, 1, queue::Declare { passive: true, ..declare("q") });
    assert_eq!(count, queue::DeclareOk { queue: "q".into(), message_count: 0, consumer_count: 1 }.into_class());
    let cancel = basic::Cancel { consumer_tag: "c".into(), nowait: false };
    assert_eq!(client.ask(&mut world, 1, cancel), basic::CancelOk { consumer_tag: "c".into() }.into_class());
    client.publish(&mut world, 1, "", "q", b"again");
    client.frames(&mut world);
    let get = basic::Get { queue: "q".into(), no_ack: true };
    client.send(&mut world, 1, get.clone());
    assert!(format!("{:?}", client.frames(&mut world)).contains("GetOk"));
    assert_eq!(client.ask(&mut world, 1, get), basic::GetEmpty {}.into_class());
    assert_eq!(
        client.ask(
            &mut world,
            1,
            queue::Unbind {
                queue: "q".into(),
                exchange: "amq.topic".into(),
                routing_key: "a.#".into(),
                arguments: FieldTable::default(),
            }
        ),
        queue::UnbindOk {}.into_class()
    );
    let purge = queue::Purge { queue: "q".into(), nowait: false };
    assert_eq!(client.ask(&mut world, 1, purge), queue::PurgeOk { message_count: 0 }.into_class());
    let delete = queue::Delete { queue: "q".into(), ..queue::Delete::default() };
    assert_eq!(client.ask(&mut world, 1, delete), queue::DeleteOk { message_count: 0 }.into_class());
    let recover = basic::Recover { requeue: true };
    assert_eq!(client.ask(&mut world, 1, recover), basic::RecoverOk {}.into_class());
    let flow = channel::Flow { active: true };
    assert_eq!(client.ask(&mut world, 1, flow), channel::FlowOk { active: true }.into_class());
    let request = access::Request::default();
    assert_eq!(client.ask(&mut world, 1, request), access::RequestOk {}.into_class());
    let close = channel::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
    assert_eq!(client.ask(&mut world, 1, close), channel::CloseOk {}.into_class());
    assert_eq!(client.session.channels(), 0);
    assert_eq!(world.broker.engine.counts().channels, 0);
    let close = connection::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
    assert_eq!(client.ask(&mut world, 0, close), connection::CloseOk {}.into_class());
    assert_eq!(client.progress, Progress::Over);
    assert_eq!(world.broker.engine.counts().connections, 0);
    assert!(world.broker.users.is_empty());
}

#[test]
fn exchanges_are_declared_bound_and_deleted() {
    let mut world = World::new();
    let mut client = world.anybody();
    let topic = exchange::Declare { exchange: "e".into(), kind: "topic".into(), ..exchange::Declare::default() };
    assert_eq!(client.ask(&mut world, 1, topic.clone()), exchange::DeclareOk {}.into_class());
    let passive = exchange::Declare { passive: true, kind: "".into(), ..topic };
    assert_eq!(client.ask(&mut world, 1, passive), exchange::DeclareOk {}.into_class());
    let bind = exchange::Bind {
        destination: "e".into(),
        source: "amq.direct".into(),
        routing_key: "k".into(),
        ..exchange::Bind::default()
    };
    assert_eq!(client.ask(&mut world, 1, bind), exchange::BindOk {}.into_class());
    let unbind = exchange::Unbind {
        destination: "e".into(),
        source: "amq.direct".into(),
        routing_key: "k".into(),
        ..exchange::Unbind::default()
    };
    assert_eq!(client.ask(&mut world, 1, unbind), exchange::UnbindOk {}.into_class());
    let delete = exchange::Delete { exchange: "e".into(), ..exchange::Delete::default() };
    assert_eq!(client.ask(&mut world, 1, delete), exchange::DeleteOk {}.into_class());
    // Ends of lines are no part of names, as with RabbitMQ.
    let odd = exchange::Declare { exchange: "e\r\n".into(), kind: "fanout".into(), ..exchange::Declare::default() };
    client.ask(&mut world, 1, odd);
    let passive = exchange::Declare { exchange: "e".into(), passive: true, ..exchange::Declare::default() };
    assert_eq!(client.ask(&mut world, 1, passive), exchange::DeclareOk {}.into_class());
}

#[test]
fn who_waits_for_no_answer_gets_none() {
    let mut world = World::new();
    let mut client = world.anybody();
    for method in [
        exchange::Declare { exchange: "e".into(), kind: "fanout".into(), nowait: true, ..exchange::Declare::default() }
            .into_class(),
        exchange::Bind {
            destination: "e".into(),
            source: "amq.fanout".into(),
            nowait: true,
            ..exchange::Bind::default()
        }
        .into_class(),
        queue::Declare { nowait: true, ..declare("q") }.into_class(),
        queue::Bind { nowait: true, ..bind("q", "e", "") }.into_class(),
        confirm::Select { nowait: true }.into_class(),
        basic::Consume { nowait: true, ..consume("q", "c") }.into_class(),
        basic::Cancel { consumer_tag: "c".into(), nowait: true }.into_class(),
        basic::RecoverAsync { requeue: true }.into_class(),
        queue::Purge { queue: "q".into(), nowait: true }.into_class(),
        queue::Delete { queue: "q".into(), nowait: true, ..queue::Delete::default() }.into_class(),
        exchange::Unbind {
            destination: "e".into(),
            source: "amq.fanout".into(),
            nowait: true,
            ..exchange::Unbind::default()
        }
        .into_class(),
        exchange::Delete { exchange: "e".into(), nowait: true, ..exchange::Delete::default() }.into_class(),
    ] {
        client.send(&mut world, 1, method.clone());
        assert_eq!(client.frames(&mut world), [], "{method:?}");
    }
    let count = world.broker.engine.counts();
    assert_eq!((count.queues, count.consumers, count.bindings), (0, 0, 0));
}

#[test]
fn an_empty_name_is_the_last_queue_of_the_channel() {
    let mut world = World::new();
    let mut client = world.anybody();
    for method in [
        bind("", "amq.direct", "k").into_class(),
        consume("", "c").into_class(),
        basic::Get::default().into_class(),
        queue::Purge::default().into_class(),
        queue::Delete::default().into_class(),
    ] {
        let mut client = world.anybody();
        client.send(&mut world, 1, method);
        let refused = client.refused(&mut world).unwrap();
        assert_eq!((refused.code, &*refused.text), (404, "NOT_FOUND - no previously declared queue"));
        let now_ms = world.now_ms;
        client.session.lost(&mut world, now_ms);
    }
    let AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) =
        client.ask(&mut world, 1, queue::Declare { exclusive: true, ..declare("") })
    else {
        panic!("declare-ok")
    };
    assert!(ok.queue.as_str().starts_with("amq.gen-"), "{}", ok.queue);
    // Its own name is the key then.
    assert_eq!(client.ask(&mut world, 1, bind("", "amq.fanout", "x")), queue::BindOk {}.into_class());
    client.open_channel(&mut world, 2);
    client.send(&mut world, 2, queue::Purge::default());
    assert_eq!(client.refused(&mut world).unwrap().code, 404, "another channel has declared nothing");
}

#[test]
fn an_exception_ends_the_channel_and_nothing_else() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.ask(&mut world, 1, declare("q"));
    client.open_channel(&mut world, 2);
    client.ask(&mut world, 1, consume("q", "c"));
    client.send(&mut world, 1, bind("none", "amq.topic", "k"));
    let refused = client.refused(&mut world).unwrap();
    assert_eq!((refused.code, refused.method, refused.channel), (404, (50, 20), 1));
    assert_eq!(refused.text, "NOT_FOUND - no queue 'none' in vhost 'muster'");
    assert_eq!(world.broker.engine.counts().consumers, 0);
    // Until it is answered everything on the channel is ignored, whole contents too.
    client.send(&mut world, 1, declare("ignored"));
    client.publish(&mut world, 1, "", "q", &[7; 5_000]);
    client.send(&mut world, 1, channel::Open {});
    assert_eq!(client.frames(&mut world), []);
    // The others go on.
    client.publish(&mut world, 2, "", "q", b"x");
    let AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) = client.ask(&mut world, 2, declare("q")) else { panic!() };
    assert_eq!(ok.message_count, 1);
    // A close that crossed ours is answered.
    let close = channel::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    assert_eq!(client.ask(&mut world, 1, close), channel::CloseOk {}.into_class());
    assert_eq!(client.session.channels(), 2);
    client.send(&mut world, 1, channel::CloseOk {});
    assert_eq!((client.session.channels(), world.broker.users.of("user/anybody")), (1, (1, 1)));
    client.open_channel(&mut world, 1);
    let passive = queue::Declare { passive: true, ..declare("ignored") };
    client.send(&mut world, 1, passive);
    assert_eq!(client.refused(&mut world).unwrap().code, 404);
}

#[test]
fn a_content_may_be_in_the_middle_when_its_channel_ends() {
    let mut world = World::new();
    world.settings.message_bytes_max = 2_000;
    let mut client = world.anybody();
    client.ask(&mut world, 1, declare("q"));
    // Too large, which its header says; the rest of it follows all the same.
    let bytes = published(1, "", "q", &BasicProperties::default(), &[1; 3_000]);
    let (first, rest) = bytes.split_at(bytes.len() - 1_500);
    client.write(&mut world, first);
    let refused = client.refused(&mut world).unwrap();
    assert_eq!((refused.code, refused.channel), (406, 1));
    assert_eq!(refused.text, "PRECONDITION_FAILED - message size 3000 is larger than configured max size 2000");
    client.write(&mut world, rest);
    client.publish(&mut world, 1, "", "q", b"ignored");
    client.send(&mut world, 1, channel::CloseOk {});
    client.open_channel(&mut world, 1);
    client.publish(&mut world, 1, "", "q", b"taken");
    let AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) = client.ask(&mut world, 1, declare("q")) else { panic!() };
    assert_eq!(ok.message_count, 1);
}

#[test]
fn a_connection_has_so_many_channels_and_so_has_a_user() {
    let mut world = World::new();
    let mut client = world.anybody();
    for number in [9, 2, 65_535, 700].into_iter().chain(20..31) {
        client.open_channel(&mut world, number);
    }
    assert_eq!(client.session.channels(), 16);
    client.send(&mut world, 100, channel::Open {});
    let refused = client.refused(&mut world).unwrap();
    assert_eq!(
        (refused.code, refused.text.as_str()),
        (530, "NOT_ALLOWED - number of channels opened (16) has reached the negotiated channel_max (16)")
    );
    assert_eq!((world.broker.users.of("user/anybody"), world.broker.engine.counts().channels), ((0, 0), 0));

    let mut client = world.anybody();
    for number in 2..=16 {
        client.open_channel(&mut world, number);
    }
    let mut other = world.anybody();
    for number in 2..=4 {
        other.open_channel(&mut world, number);
    }
    other.send(&mut world, 5, channel::Open {});
    let refused = other.refused(&mut world).unwrap();
    assert_eq!(
        (refused.code, refused.text.as_str()),
        (
            530,
            "NOT_ALLOWED - number of channels opened for user 'user/anybody' has reached the maximum allowed user limit of \
             (20)"
        )
    );
    assert_eq!(world.broker.users.of("user/anybody"), (1, 16));
}

#[test]
fn the_broker_ends_a_connection() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.ask(&mut world, 1, queue::Declare { exclusive: true, ..declare("q") });
    let now_ms = world.now_ms;
    let fault = Fault::connection_forced("the certificate was revoked");
    assert_eq!(client.session.close(&fault, &mut world, now_ms), Progress::Reading);
    let refused = client.refused(&mut world).unwrap();
    assert_eq!((refused.code, &*refused.text), (320, "CONNECTION_FORCED - the certificate was revoked"));
    // It has left the engine, whatever it answers.
    let count = world.broker.engine.counts();
    assert_eq!((count.connections, count.queues, count.channels), (0, 0, 0));
    client.publish(&mut world, 1, "", "q", b"late");
    client.send(&mut world, 1, declare("late"));
    client.send(&mut world, 0, super::client::tune_ok());
    assert_eq!(client.frames(&mut world), []);
    let close = connection::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    assert_eq!(client.ask(&mut world, 0, close), connection::CloseOk {}.into_class());
    assert_eq!(client.progress, Progress::Reading);
    client.send(&mut world, 0, connection::CloseOk {});
    assert_eq!(client.progress, Progress::Over);
    // Nothing is done twice.
    assert_eq!(client.session.close(&fault, &mut world, now_ms), Progress::Over);
    assert_eq!(client.frames(&mut world), []);
    // Whoever is not in has nothing to be told.
    let mut client = world.silent(anybody());
    assert_eq!(client.session.close(&fault, &mut world, now_ms), Progress::Over);
    assert_eq!(client.frames(&mut world), []);
}
