use muster_protocol::Identity;
use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    "muster:user/lea".parse().unwrap()
}

fn sighting() -> impl Strategy<Value = Sighting> {
    let found = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (found, proptest::option::of(0_i64..200_000)).prop_map(
        |((alive, starter_gone, other_boot, reply, removed), ends_by)| Sighting {
            alive,
            starter_gone,
            ends_by: ends_by.map(Timestamp),
            other_boot,
            reply,
            removed,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => sighting().prop_map(Event::Looked),
        1 => Just(Event::StopAsked(StopReason::Cancelled { by: identity() })),
        1 => Just(Event::StopAsked(StopReason::Shutdown)),
        1 => Just(Event::LockHeld),
        2 => Just(Event::CaughtUp),
        2 => Just(Event::Kept),
    ]
}

fn rank(state: &State) -> u8 {
    match state {
        State::Starting { .. } | State::Working { .. } | State::Closing { .. } => 0,
        State::Ended => 1,
        State::Telling => 2,
        State::Told => 3,
    }
}

proptest! {
    /// Whatever happens in whatever order: it is released, concluded and settled at most once each and in this
    /// order, told to stop at most once between two starts, and nothing is concluded without a reply.
    #[test]
    fn one_end_whatever_happens(events in proptest::collection::vec((event(), 0_i64..30_000), 0..60)) {
        let (mut state, mut now) = (State::starting(Timestamp(0)), 0);
        let mut done: Vec<Effect> = Vec::new();
        let mut replied = false;
        for (event, pause) in events {
            now += pause;
            let before = rank(&state);
            if let Event::Looked(seen) = &event {
                replied |= seen.reply && before == 0;
            }
            let stopped = state.stop().cloned();
            let (next, effects) = next(state, event.clone(), Timestamp(now));
            prop_assert!(rank(&next) >= before, "went back from {before} to {next:?}");
            for effect in &effects {
                match effect {
                    Effect::TellRunner(_) => prop_assert!(stopped.is_none() && next.stop().is_some()),
                    Effect::Close(_) => {
                        let closing = matches!(next, State::Closing { .. });
                        prop_assert!(!replied && closing);
                    }
                    Effect::KillRunner => prop_assert!(!replied),
                    Effect::Release | Effect::Conclude | Effect::Settle => {
                        prop_assert!(replied);
                        prop_assert!(!done.contains(effect), "{effect:?} twice");
                    }
                }
            }
            done.extend(effects);
            state = next;
        }
        let order: Vec<&Effect> =
            done.iter().filter(|it| matches!(it, Effect::Release | Effect::Conclude | Effect::Settle)).collect();
        let full = [&Effect::Release, &Effect::Conclude, &Effect::Settle];
        prop_assert_eq!(&order[..], &full[..order.len()]);
        prop_assert_eq!(rank(&state) as usize, order.len());
    }

    /// However it stands: if the runner is gone and a reply is written, it comes to its end.
    #[test]
    fn it_always_can_end(events in proptest::collection::vec(event(), 0..40)) {
        let mut state = State::starting(Timestamp(0));
        for event in events {
            state = next(state, event, Timestamp(0)).0;
        }
        let reply = Sighting {
            alive: false,
            starter_gone: true,
            ends_by: None,
            other_boot: false,
            reply: true,
            removed: false,
        };
        for event in [Event::Looked(reply), Event::CaughtUp, Event::Kept] {
            state = next(state, event, Timestamp(0)).0;
        }
        prop_assert_eq!(state, State::Told);
    }
}

#[track_caller]
fn check(state: State, event: Event, now: i64, expected: (State, Vec<Effect>)) {
    assert_eq!(next(state, event, Timestamp(now)), expected);
}

#[test]
fn each_step_is_as_the_picture_says() {
    let looked = |alive, ends_by: Option<i64>| {
        Event::Looked(Sighting {
            alive,
            starter_gone: !alive,
            ends_by: ends_by.map(Timestamp),
            other_boot: false,
            reply: false,
            removed: false,
        })
    };
    let without_directory = |alive| {
        Event::Looked(Sighting {
            alive,
            starter_gone: false,
            ends_by: Some(Timestamp(100)),
            other_boot: false,
            reply: false,
            removed: true,
        })
    };
    let starting = || State::starting(Timestamp(0));
    let working = |stop: Option<StopReason>| State::Working { ends_by: Timestamp(100), stop, killed: false };
    let closing = |loss| (State::Closing { loss }, vec![Effect::Close(loss)]);
    check(starting(), looked(true, None), 5, (starting(), vec![]));
    check(starting(), looked(true, Some(100)), 5, (working(None), vec![]));
    check(starting(), looked(false, None), 5, closing(Loss::NotBegun));
    check(starting(), looked(false, Some(100)), 5, closing(Loss::RunnerGone));
    check(working(None), looked(true, Some(100)), 60_100, (working(None), vec![]));
    check(working(None), without_directory(true), 5, (working(None), vec![]));
    check(working(None), without_directory(false), 5, closing(Loss::DirectoryRemoved));
    check(starting(), without_directory(false), 5, closing(Loss::DirectoryRemoved));
    let killed = State::Working { ends_by: Timestamp(100), stop: None, killed: true };
    check(working(None), looked(true, Some(100)), 60_101, (killed.clone(), vec![Effect::KillRunner]));
    check(killed.clone(), looked(true, Some(100)), 90_000, (killed, vec![]));
    // The clock was set forward by an hour, and the end with it.
    let moved = State::Working { ends_by: Timestamp(3_600_100), stop: None, killed: false };
    check(working(None), looked(true, Some(3_600_100)), 3_600_050, (moved, vec![]));
    check(working(None), looked(false, Some(100)), 5, closing(Loss::RunnerGone));
    let by = StopReason::Cancelled { by: identity() };
    let told = working(Some(by.clone()));
    check(working(None), Event::StopAsked(by.clone()), 5, (told.clone(), vec![Effect::TellRunner(by.clone())]));
    check(told.clone(), Event::StopAsked(StopReason::Shutdown), 5, (told, vec![]));
    check(State::Ended, Event::StopAsked(by), 5, (State::Ended, vec![]));
    check(State::Closing { loss: Loss::NotBegun }, Event::LockHeld, 7, (State::starting(Timestamp(7)), vec![]));
}

#[test]
fn the_end_of_an_action_moves_with_the_clock() {
    let begun = crate::detached::directory::Begun {
        format: 1,
        pid: 1,
        start_ticks: 1,
        boot_id: String::new(),
        at_ms: Timestamp(1_000),
        ends_by_ms: Timestamp(61_000),
        uptime_ms: Some(500_000),
    };
    let check = |now: i64, uptime: Option<i64>, expected: i64| {
        assert_eq!(begun.ends_by(Timestamp(now), uptime), Timestamp(expected));
    };
    check(1_000, Some(500_000), 61_000);
    check(11_000, Some(510_000), 61_000);
    // Set forward by an hour, and back by an hour.
    check(3_611_000, Some(510_000), 3_661_000);
    check(-3_589_000, Some(510_000), -3_539_000);
    // It has been over for ten seconds.
    check(71_000, Some(570_000), 61_000);
    // Not known: as it was written down.
    check(3_611_000, None, 61_000);
    check(3_611_000, Some(1), 61_000);
    assert!(crate::detached::directory::uptime_ms().is_some_and(|uptime| uptime > 0));
}
