//! Heartbeats, and what takes too long.

use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{channel, connection};
use muster_broker::Fault;
use muster_broker::session::Progress;

use super::client::{Client, NOW_MS, World, anybody, open, raw_frame, start_ok, tune_ok};

fn tick(world: &mut World, client: &mut Client, at_ms: i64) -> (Progress, Vec<AMQPFrame>) {
    world.now_ms = at_ms;
    let progress = client.session.tick(world, at_ms);
    (progress, client.frames(world))
}

#[test]
fn a_heartbeat_is_sent_twice_in_an_interval_of_silence() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.session.sent(NOW_MS);
    assert_eq!(client.session.deadline_ms(), NOW_MS + 30_000);
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 29_999), (Progress::Reading, vec![]));
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 30_000), (Progress::Reading, vec![AMQPFrame::Heartbeat]));
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 30_001), (Progress::Reading, vec![]));
    client.session.sent(NOW_MS + 50_000);
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 79_999), (Progress::Reading, vec![]));
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 80_000), (Progress::Reading, vec![AMQPFrame::Heartbeat]));
}

#[test]
fn two_intervals_of_silence_are_the_end() {
    let mut world = World::new();
    let mut client = world.anybody();
    for at_ms in [100_000, 200_000] {
        world.now_ms = NOW_MS + at_ms;
        client.write(&mut world, &raw_frame(8, 0, b""));
        assert_eq!(tick(&mut world, &mut client, NOW_MS + at_ms + 119_999).0, Progress::Reading);
        // Half a frame is a sign of life too.
        world.now_ms = NOW_MS + at_ms + 119_999;
        client.write(&mut world, &raw_frame(8, 0, b"")[..3]);
        client.write(&mut world, &raw_frame(8, 0, b"")[3..]);
    }
    let late_ms = world.now_ms + 120_000;
    let (progress, frames) = tick(&mut world, &mut client, late_ms);
    assert_eq!((progress, frames), (Progress::Over, vec![]));
    assert_eq!(world.broker.engine.counts().connections, 0);
    assert!(world.broker.users.is_empty());
}

#[test]
fn a_client_may_do_without_heartbeats() {
    let mut world = World::new();
    let mut client = world.silent(anybody());
    client.write(&mut world, b"AMQP\x00\x00\x09\x01");
    client.send(&mut world, 0, start_ok("EXTERNAL"));
    client.send(&mut world, 0, connection::TuneOk { heartbeat: 0, ..tune_ok() });
    client.send(&mut world, 0, open("muster"));
    client.frames(&mut world);
    assert_eq!(client.session.deadline_ms(), i64::MAX);
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 1_000_000_000), (Progress::Reading, vec![]));
}

#[test]
fn a_handshake_has_its_time() {
    let mut world = World::new();
    let mut client = world.silent(anybody());
    client.write(&mut world, b"AMQP\x00\x00\x09\x01");
    client.send(&mut world, 0, start_ok("EXTERNAL"));
    client.frames(&mut world);
    assert_eq!(client.session.deadline_ms(), NOW_MS + 30_000);
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 29_999).0, Progress::Reading);
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 30_000).0, Progress::Over);
}

#[test]
fn a_close_is_waited_for_so_long() {
    let mut world = World::new();
    let mut client = world.anybody();
    client.session.close(&Fault::connection_forced("enough"), &mut world, NOW_MS);
    client.frames(&mut world);
    assert_eq!(client.session.deadline_ms(), NOW_MS + 5_000);
    world.now_ms = NOW_MS + 4_999;
    client.send(&mut world, 1, channel::Open {});
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 4_999), (Progress::Reading, vec![]));
    assert_eq!(tick(&mut world, &mut client, NOW_MS + 5_000), (Progress::Over, vec![]));
}
