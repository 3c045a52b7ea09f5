use super::*;

/// Round numbers, so that what comes out can be worked out by hand.
fn constants() -> Constants {
    let mut table: serde_json::Value = serde_json::from_str(crate::constants::MEASURED).unwrap();
    for (name, constant) in table.as_object_mut().unwrap() {
        let value = match name.as_str() {
            "command_us" => 50.0,
            "route_us" => 10.0,
            "report_us" => 60.0,
            "reply_queue_us" => 20.0,
            "agent_us" => 100.0,
            "controller_us" => 40.0,
            "link_command_center_us" | "link_command_site_us" => 50.0,
            "link_report_center_us" => 60.0,
            "link_report_site_us" => 200.0,
            "link_reports_per_second" => 10_000.0,
            "hop_us" | "report_kib_us" | "controller_kib_us" => 10.0,
            "command_bytes" | "report_bytes" => 1_000.0,
            _ => 1.0,
        };
        constant["value"] = serde_json::json!(value);
    }
    Constants::parse(&table.to_string()).unwrap().0
}

const CLUSTER: Layout = Layout::Cluster { nodes: 1, cores: 4 };

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= expected * 0.02
}

#[test]
fn one_host_takes_the_sum_of_its_way() {
    let shape = Shape { host_latency_us: 1_000.0, ..Shape::ping(1, CLUSTER) };
    // Routed, delivered, heard, thought, back, taken, queued, verified.
    let outcome = play(&shape, &constants());
    assert!(near(outcome.seconds, (10.0 + 40.0 + 1_000.0 + 100.0 + 1_000.0 + 40.0 + 20.0 + 40.0) / 1e6), "{outcome:?}");
    let site = Layout::Sites { sites: 1, site_cores: 4, center_cores: 4 };
    let shape = Shape { site_latency_us: 5_000.0, site_bytes_per_second: 1e6, ..Shape::ping(1, site) };
    // To the site (50, a line of a millisecond, five away, 50), 10 + 40, thinks, 100 taken, 100 shovelled, line, way, 40, 20, 40.
    let expected =
        50.0 + 1_000.0 + 5_000.0 + 50.0 + 50.0 + 100.0 + 100.0 + 100.0 + 1_000.0 + 5_000.0 + 40.0 + 20.0 + 40.0;
    assert!(near(play(&shape, &constants()).seconds, expected / 1e6));
}

#[test]
fn everybody_answers_once_whatever_the_layout() {
    let layouts = [
        Layout::Together { cores: 2 },
        CLUSTER,
        Layout::Cluster { nodes: 3, cores: 2 },
        Layout::Sites { sites: 7, site_cores: 2, center_cores: 4 },
    ];
    for layout in layouts {
        for (controllers, waves, prefetch) in [(1, 1, 1_000), (3, 1, 5), (2, 4, 1), (1, 7, 50)] {
            let shape = Shape { controllers, waves, prefetch, ..Shape::ping(1_003, layout) };
            let outcome = play(&shape, &constants());
            assert_eq!(outcome.answers, 1_003, "{shape:?}");
            assert!(outcome.median_s <= outcome.p99_s && outcome.p99_s <= outcome.seconds);
            // The same question, the same answer.
            assert_eq!(outcome, play(&shape, &constants()));
        }
    }
}

#[test]
fn the_narrowest_place_decides() {
    let of = |shape: Shape| play(&shape, &constants());
    // One machine of two cores does everything: work divided by cores.
    let together = of(Shape::ping(5_000, Layout::Together { cores: 2 }));
    // The controller is alone with the last thousand.
    let work = 5_000.0 * (50.0 + 100.0 + 60.0 + 40.0) / 2.0 / 1e6;
    assert!((work..work + 0.04).contains(&together.seconds), "{together:?}");
    // With cores to spare the controller is the narrowest, then with four controllers the broker.
    let cluster = of(Shape::ping(20_000, Layout::Cluster { nodes: 1, cores: 16 }));
    assert_eq!(cluster.busiest[0].name, "controller 0");
    assert!(near(cluster.seconds, 20_000.0 * 40.0 / 1e6), "{cluster:?}");
    let four = of(Shape { controllers: 4, ..Shape::ping(20_000, Layout::Cluster { nodes: 1, cores: 2 }) });
    assert!(near(four.seconds, 20_000.0 * (50.0 + 60.0) / 2.0 / 1e6), "{four:?}");
    // One site's shovel, whatever the cores.
    let site = of(Shape::ping(20_000, Layout::Sites { sites: 1, site_cores: 64, center_cores: 64 }));
    assert_eq!(site.busiest[0].name, "site 0: shovel");
    assert!(near(site.seconds, 20_000.0 / 10_000.0), "{site:?}");
    // A window of ten over ten milliseconds there and back is a thousand a second.
    let sites = Layout::Sites { sites: 1, site_cores: 8, center_cores: 8 };
    let window = of(Shape { prefetch: 10, site_latency_us: 5_000.0, ..Shape::ping(5_000, sites) });
    assert!((4.9..5.6).contains(&window.seconds), "{window:?}");
    // A slow line.
    let line = of(Shape { site_bytes_per_second: 1e5, ..Shape::ping(5_000, sites) });
    assert!(near(line.seconds, 5_000.0 * 1_000.0 / 1e5), "{line:?}");
}

#[test]
fn nothing_is_faster_with_more_to_do_or_less_to_do_it_with() {
    let constants = constants();
    let mut before = 0.0;
    for hosts in [1, 10, 100, 1_000, 10_000] {
        let now = play(&Shape::ping(hosts, CLUSTER), &constants).seconds;
        assert!(now > before);
        before = now;
    }
    let few = play(&Shape::ping(5_000, Layout::Cluster { nodes: 1, cores: 1 }), &constants);
    assert!(few.seconds >= play(&Shape::ping(5_000, CLUSTER), &constants).seconds);
    let output = Shape { output_bytes: 65_536.0, ..Shape::ping(5_000, CLUSTER) };
    assert!(play(&output, &constants).seconds > play(&Shape::ping(5_000, CLUSTER), &constants).seconds);
    // Nodes of a cluster pay for each message between them.
    let two = play(&Shape::ping(5_000, Layout::Cluster { nodes: 2, cores: 2 }), &constants);
    let expected = 5_000.0 * (50.0 + 60.0 - 20.0 + 20.0) + 2_500.0 * 4.0 * 10.0;
    assert!(near(two.broker_s, expected / 1e6), "{two:?}");
}

#[test]
fn nobody_to_ask_ends_at_once() {
    let outcome = play(&Shape::ping(0, CLUSTER), &constants());
    assert_eq!((outcome.answers, outcome.seconds), (0, 0.0));
    let more_parts_than_hosts = Shape { controllers: 3, waves: 3, ..Shape::ping(2, CLUSTER) };
    assert_eq!(play(&more_parts_than_hosts, &constants()).answers, 2);
}
