//! From the protocol header to `connection.open-ok`.

use amq_protocol::protocol::{AMQPClass, BasicProperties, channel, connection};
use amq_protocol::types::{AMQPValue, FieldTable};
use muster_broker::access::Members;
use muster_broker::session::Progress;

use super::client::{
    Client, IntoClass, World, anybody, method_frame, open, peer, published, raw_frame, rules, start_ok, tune_ok,
};

const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

#[test]
fn each_step_is_answered_with_the_next() {
    let mut world = World::new();
    let mut client = world.silent(anybody());
    client.write(&mut world, HEADER);
    let [(0, AMQPClass::Connection(connection::AMQPMethod::Start(start)))] = &client.methods(&mut world)[..] else {
        panic!("start");
    };
    assert_eq!((start.version_major, start.version_minor), (0, 9));
    assert_eq!(start.mechanisms.to_string(), "EXTERNAL");
    let properties = start.server_properties.inner();
    assert_eq!(properties.get("product"), Some(&AMQPValue::LongString("Muster".into())));
    assert_eq!(properties.get("cluster_name"), Some(&AMQPValue::LongString("test".into())));
    let Some(AMQPValue::FieldTable(capabilities)) = properties.get("capabilities") else { panic!("capabilities") };
    let names: Vec<&str> = capabilities.inner().keys().map(|name| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "exchange_exchange_bindings",
            "per_consumer_qos",
            "publisher_confirms"
        ]
    );
    assert!(capabilities.inner().values().all(|value| *value == AMQPValue::Boolean(true)));

    let tune = client.ask(&mut world, 0, start_ok("EXTERNAL"));
    assert_eq!(tune, connection::Tune { channel_max: 16, frame_max: 131_072, heartbeat: 60 }.into_class());
    client.send(&mut world, 0, tune_ok());
    assert!(client.methods(&mut world).is_empty() && !client.session.is_open());
    assert_eq!(world.broker.engine.counts().connections, 0);
    let open_ok = client.ask(&mut world, 0, open("muster"));
    assert_eq!(open_ok, connection::OpenOk {}.into_class());
    assert!(client.session.is_open());
    assert_eq!(client.session.terms().frame_bytes_max, 8_192);
    assert!(client.session.terms().cancel_notify);
    assert_eq!(world.broker.engine.counts().connections, 1);
    assert_eq!(world.broker.users.of("user/anybody"), (1, 0));
}

#[test]
fn another_protocol_is_told_ours() {
    for header in [b"AMQP\x03\x01\x00\x00", b"AMQP\x00\x01\x00\x00", b"GET / HT", b"\x16\x03\x01\x02\x00\x01\x00\x01"] {
        let mut world = World::new();
        let mut client = world.silent(anybody());
        client.write(&mut world, header);
        assert_eq!(client.bytes(&mut world), HEADER);
        assert_eq!(client.progress, Progress::Over);
    }
    // Less than eight bytes decide nothing.
    let mut world = World::new();
    let mut client = world.silent(anybody());
    client.write(&mut world, b"GET / H");
    assert_eq!((client.progress, client.bytes(&mut world)), (Progress::Reading, Vec::new()));
    // AMQP 0-9, as some clients still write it.
    let mut client = world.silent(anybody());
    client.write(&mut world, b"AMQP\x01\x01\x00\x09");
    assert_eq!(client.methods(&mut world).len(), 1);
}

/// A client before `start-ok`.
fn started(world: &mut World, client: &mut Client) {
    client.write(world, HEADER);
    assert_eq!(client.methods(world).len(), 1);
}

#[test]
fn the_certificate_is_the_only_login() {
    for (mechanism, text) in [
        ("PLAIN", "COMMAND_INVALID - invalid authentication mechanism 'PLAIN'"),
        ("AMQPLAIN", "COMMAND_INVALID - invalid authentication mechanism 'AMQPLAIN'"),
        ("SCRAM", "COMMAND_INVALID - unknown authentication mechanism 'SCRAM'"),
        ("external", "COMMAND_INVALID - unknown authentication mechanism 'external'"),
    ] {
        let mut world = World::new();
        let mut client = world.silent(anybody());
        started(&mut world, &mut client);
        client.send(&mut world, 0, start_ok(mechanism));
        let refused = client.refused(&mut world).unwrap();
        assert_eq!((refused.code, &*refused.text, refused.method), (503, text, (10, 11)));
        assert!(!client.session.is_open());
    }
}

#[test]
fn who_is_no_member_is_refused() {
    let listed = Members::Listed(["host/web1.example.com".parse().unwrap()].into());
    let web1 = "host/web1.example.com".parse().unwrap();
    let web2 = "host/web2.example.com".parse().unwrap();
    let broker = "broker/b1.example.com".parse().unwrap();
    let user = "user/lea".parse().unwrap();
    for (rules, identity, admitted) in [
        (rules(Members::Issued), Some(&web1), true),
        (rules(Members::Issued), Some(&user), true),
        (rules(Members::Issued), Some(&broker), false),
        (rules(Members::Issued), None, false),
        (rules(listed.clone()), Some(&web1), true),
        (rules(listed.clone()), Some(&web2), false),
        (rules(listed), Some(&user), false),
    ] {
        let mut world = World::new();
        let mut client = world.silent(rules.peer(identity));
        started(&mut world, &mut client);
        client.send(&mut world, 0, start_ok("EXTERNAL"));
        match client.refused(&mut world) {
            None => assert!(admitted, "{identity:?}"),
            Some(refused) => {
                assert!(!admitted, "{identity:?}");
                assert_eq!(refused.code, 403);
                assert_eq!(
                    refused.text,
                    "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. For details see the \
                     broker logfile."
                );
            }
        }
    }
}

#[test]
fn a_client_that_does_not_know_refusals_is_hung_up_on() {
    let mut world = World::new();
    let nobody = rules(Members::Listed([].into()));
    let mut client = world.silent(nobody.peer(Some(&"user/lea".parse().unwrap())));
    started(&mut world, &mut client);
    let silent = connection::StartOk { client_properties: FieldTable::default(), ..start_ok("EXTERNAL") };
    client.send(&mut world, 0, silent);
    assert_eq!((client.progress, client.bytes(&mut world)), (Progress::Over, Vec::new()));
}

#[test]
fn nobody_gets_more_than_was_offered() {
    let tune = |channel_max, frame_max| connection::TuneOk { channel_max, frame_max, heartbeat: 10 };
    for (tune_ok, text) in [
        (tune(16, 131_072), None),
        (tune(1, 4_096), None),
        (tune(16, 131_073), Some("negotiated frame_max = 131073 is higher than the maximum allowed value (131072)")),
        (tune(16, 0), Some("negotiated frame_max = 0 is higher than the maximum allowed value (131072)")),
        (tune(16, 4_095), Some("negotiated frame_max = 4095 is lower than the minimum allowed value (4096)")),
        (tune(17, 4_096), Some("negotiated channel_max = 17 is higher than the maximum allowed value (16)")),
        (tune(0, 4_096), Some("negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (16)")),
    ] {
        let mut world = World::new();
        let mut client = world.silent(anybody());
        started(&mut world, &mut client);
        client.ask(&mut world, 0, start_ok("EXTERNAL"));
        client.send(&mut world, 0, tune_ok);
        let refused = client.refused(&mut world).map(|refused| (refused.code, refused.text));
        assert_eq!(refused, text.map(|text| (530, format!("NOT_ALLOWED - {text}"))));
    }
}

#[test]
fn there_is_one_virtual_host() {
    for vhost in ["/", "other", "", "Muster", "muster/"] {
        let mut world = World::new();
        let mut client = world.silent(anybody());
        started(&mut world, &mut client);
        client.ask(&mut world, 0, start_ok("EXTERNAL"));
        client.send(&mut world, 0, tune_ok());
        client.send(&mut world, 0, open(vhost));
        let refused = client.refused(&mut world).unwrap();
        assert_eq!((refused.code, refused.text), (530, format!("NOT_ALLOWED - vhost {vhost} not found")));
        assert_eq!(world.broker.users.of("user/anybody"), (0, 0));
        assert_eq!(world.broker.engine.counts().connections, 0);
    }
}

#[test]
fn a_step_out_of_order_ends_the_connection() {
    let start = method_frame(0, start_ok("EXTERNAL"));
    let tune = method_frame(0, tune_ok());
    let opened = method_frame(0, open("muster"));
    let channel = method_frame(1, channel::Open {});
    let content = published(1, "", "q", &BasicProperties::default(), b"x");
    let heartbeat = raw_frame(8, 0, b"");
    let unexpected = |state| format!("CHANNEL_ERROR - unexpected method in connection state {state}");
    for (before, frame, code, text) in [
        (vec![], &tune, 504, unexpected("starting")),
        (vec![], &opened, 504, unexpected("starting")),
        (vec![&start], &start, 504, unexpected("tuning")),
        (vec![&start, &heartbeat], &opened, 504, unexpected("tuning")),
        (vec![&start, &tune], &tune, 504, unexpected("opening")),
        (vec![&start, &tune, &opened], &opened, 504, unexpected("running")),
        (vec![], &channel, 505, "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>".to_owned()),
        (
            vec![&start, &tune],
            &content,
            505,
            "UNEXPECTED_FRAME - type 1, all octets = <<0,60,0,40,0,0,0,1,113,1>>".to_owned(),
        ),
    ] {
        let mut world = World::new();
        let mut client = world.silent(anybody());
        started(&mut world, &mut client);
        for before in before {
            client.write(&mut world, before);
        }
        client.frames(&mut world);
        client.write(&mut world, frame);
        let refused = client.refused(&mut world).unwrap();
        assert_eq!((refused.code, refused.text, refused.channel), (code, text, 0));
        assert!(!client.session.is_open());
    }
}

#[test]
fn before_the_agreement_frames_are_small() {
    let mut world = World::new();
    let mut client = world.silent(anybody());
    started(&mut world, &mut client);
    let mut client_properties = FieldTable::default();
    client_properties.insert("x".into(), AMQPValue::LongString("x".repeat(5_000).into()));
    // Its head is enough.
    client.write(&mut world, &method_frame(0, connection::StartOk { client_properties, ..start_ok("EXTERNAL") })[..7]);
    let refused = client.refused(&mut world).unwrap();
    assert_eq!(refused.code, 501);
    assert!(refused.text.starts_with("FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,"), "{}", refused.text);
    // What else comes is not read as frames.
    client.write(&mut world, &[1; 10_000]);
    assert_eq!((client.progress, client.bytes(&mut world)), (Progress::Reading, Vec::new()));
}

#[test]
fn a_user_has_so_many_connections() {
    let mut world = World::new();
    let clients: Vec<Client> = (0..4).map(|_| world.open(anybody())).collect();
    assert_eq!(world.broker.users.of("user/anybody"), (4, 4));
    let mut refused = world.silent(anybody());
    started(&mut world, &mut refused);
    refused.ask(&mut world, 0, start_ok("EXTERNAL"));
    refused.send(&mut world, 0, tune_ok());
    refused.send(&mut world, 0, open("muster"));
    assert_eq!(
        refused.refused(&mut world).map(|refused| (refused.code, refused.text)),
        Some((
            530,
            "NOT_ALLOWED - connection refused for user 'user/anybody': user connection limit (4) is reached".to_owned()
        ))
    );
    // Others are not hurt, and who leaves makes room.
    world.open(peer("user/lea"));
    for mut client in clients {
        let now_ms = world.now_ms;
        client.session.lost(&mut world, now_ms);
        client.session.lost(&mut world, now_ms);
    }
    assert_eq!(world.broker.users.of("user/anybody"), (0, 0));
    assert_eq!(world.broker.users.len(), 1);
    world.anybody();
}
