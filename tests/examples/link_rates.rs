//! Measures what a link between two brokers costs, for `docs/performance/growth`: messages a second and processor time of
//! each broker for commands and reports, and what each host of a site costs the centre. Prints JSON.
//!
//! ```text
//! cargo run --release -p muster-tests --example link_rates -- [--hosts 2000] [--messages 20000]
//! ```
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for a terminal, which may stop anywhere")]

#[path = "../tests/it/amqp.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod amqp;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use muster_broker_config::{Binding, Definitions, Operation, Queue, Sites};
use muster_protocol::Identity;
use muster_tests::pki;
use muster_tests::rabbit::{Node, NodeOptions};
use serde_json::{Map, Value, json};

use crate::amqp::{connect, perform};

/// Bytes of a body: a signed command or report of no output.
const BODY_BYTES: usize = 1_000;

/// Connections that publish reports at the same time.
const SENDERS: usize = 8;

/// Nothing here takes so long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Remembers how much each Erlang process has done, in reductions.
const REMEMBER: &str = "persistent_term:put(muster_before, maps:from_list([{P, R} || P <- erlang:processes(), \
                        {reductions, R} <- [erlang:process_info(P, reductions)]])).";

/// The processes that did most since, each with its thousandth parts of all that was done: one process is never on two cores.
const BUSIEST: &str = "B = persistent_term:get(muster_before), \
    D = [{R - maps:get(P, B, 0), P} || P <- erlang:processes(), {reductions, R} <- [erlang:process_info(P, reductions)]], \
    T = lists:sum([R || {R, _} <- D]), \
    [{round(1000 * R / T), proc_lib:translate_initial_call(P)} || {R, P} <- lists:sublist(lists:reverse(lists:sort(D)), 8)].";

fn number(name: &str, default: usize) -> usize {
    let words: Vec<String> = std::env::args().collect();
    let found = words.iter().position(|word| word == name).and_then(|index| words.get(index + 1));
    found.map_or(default, |text| text.parse().unwrap())
}

/// Two linked brokers.
struct Brokers {
    center: Node,
    edge: Node,
}

fn start() -> Brokers {
    let site = pki::site();
    let senders = (0..SENDERS).map(|index| format!("host/sender{index}.edge"));
    let central = (0..SENDERS).map(|index| format!("host/sender{index}"));
    let others = ["user/lea", "broker/mq.edge"].map(str::to_owned);
    let identities: BTreeSet<Identity> =
        senders.chain(central).chain(others).map(|name| name.parse().unwrap()).collect();
    let sites = |port: u16| {
        let text = format!(
            "[center]\naddresses = [\"localhost:{port}\"]\n[[site]]\nname = \"edge\"\nbroker = \"mq.edge\"\nhosts = [\"*.edge\"]\n"
        );
        Sites::parse(&text).unwrap()
    };
    let mut options = NodeOptions::new(site.broker().server_certificate());
    options.identities = identities;
    options.role = sites(1).role("center").unwrap();
    let center = Node::start(options.clone()).unwrap();
    options.role = sites(center.port()).role("edge").unwrap();
    options.certificate = site.linked_broker("mq.edge").server_certificate();
    Brokers { center, edge: Node::start(options).unwrap() }
}

/// Processor time of a broker so far, in seconds: of every process of its group.
fn processor_s(node: &Node) -> f64 {
    let group = node.pid().unwrap().to_string();
    let mut ticks = 0.0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        if fields.get(2).is_some_and(|found| *found == group) {
            ticks += fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        }
    }
    ticks / 100.0
}

fn memory_bytes(node: &Node) -> f64 {
    node.ctl(&["eval", "[erlang:garbage_collect(P) || P <- erlang:processes()], erlang:memory(total)."])
        .unwrap()
        .parse()
        .unwrap()
}

fn eval(node: &Node, expression: &str) -> f64 {
    node.ctl(&["eval", expression]).unwrap().parse().unwrap()
}

fn wait(what: &str, done: impl Fn() -> bool) -> Instant {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < LIMIT, "{what}: not within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    started
}

/// Queues of hosts at the site, as if their agents had been there: bound to all, their collective and their own key.
fn hosts(vhost: &str, from: usize, to: usize) -> Definitions {
    let mut definitions = Definitions::default();
    for host in (from..to).map(|index| format!("h{index}.edge")) {
        let name = format!("agent.{host}");
        definitions.bindings.extend(["all".to_owned(), "collective.main".to_owned(), format!("host.{host}")].map(
            |routing_key| Binding {
                source: "cmd".to_owned(),
                vhost: vhost.to_owned(),
                destination: name.clone(),
                destination_type: "queue".to_owned(),
                routing_key,
                arguments: Map::new(),
            },
        ));
        let arguments = Map::from_iter([("x-queue-type".to_owned(), Value::from("classic"))]);
        definitions.queues.push(Queue { name, vhost: vhost.to_owned(), durable: true, auto_delete: false, arguments });
    }
    definitions
}

async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

/// Publishes and waits for all confirms at the end.
async fn publish(channel: &Channel, exchange: &str, keys: impl Iterator<Item = String>, user: &str) {
    let mut confirms = Vec::new();
    let body = vec![b'x'; BODY_BYTES];
    for key in keys {
        let properties = BasicProperties::default().with_user_id(user.into()).with_delivery_mode(1);
        let options = BasicPublishOptions::default();
        confirms.push(
            channel.basic_publish(exchange.into(), key.as_str().into(), options, &body, properties).await.unwrap(),
        );
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
}

/// Reports from hosts of one broker to a controller at the centre: messages a second, and processor time of both brokers.
async fn reports(brokers: &Brokers, from: &Node, suffix: &str, messages: usize) -> Value {
    let (site, vhost) = (pki::site(), &brokers.center.site().vhost);
    let lea = connect(&brokers.center.url(vhost), &site.member("user/lea"), &site.trust()).await.unwrap();
    let session = format!("user/lea.s{}", suffix.len());
    let queue = format!("reply.{session}");
    perform(&lea, &Operation::DeclareQueue { queue: &queue }).await.unwrap();
    perform(&lea, &Operation::Bind { queue: &queue, exchange: "reply", key: &format!("{session}.#") }).await.unwrap();
    let receiver = lea.create_channel().await.unwrap();
    receiver.basic_qos(1_000, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut consumer =
        receiver.basic_consume(queue.as_str().into(), "m".into(), options, FieldTable::default()).await.unwrap();
    let mut senders = Vec::new();
    for index in 0..SENDERS {
        let name = format!("host/sender{index}{suffix}");
        senders.push((name.clone(), connect(&from.url(vhost), &site.member(&name), &site.trust()).await.unwrap()));
    }
    let nodes = [&brokers.center, &brokers.edge];
    for node in nodes {
        node.ctl(&["eval", REMEMBER]).unwrap();
    }
    let before = [processor_s(&brokers.center), processor_s(&brokers.edge)];
    let started = Instant::now();
    let each = messages / SENDERS;
    let sending = futures_util::future::join_all(senders.iter().map(|(name, connection)| {
        let key = format!("{session}.{}", name.trim_start_matches("host/"));
        let user = format!("muster:{name}");
        async move { publish(&channel(connection).await, "reply", (0..each).map(|_| key.clone()), &user).await }
    }));
    let receiving = async {
        for count in 1..=each * SENDERS {
            let delivery = consumer.next().await.unwrap().unwrap();
            if count % 100 == 0 || count == each * SENDERS {
                delivery.acker.ack(BasicAckOptions { multiple: true }).await.unwrap();
            }
        }
    };
    tokio::time::timeout(LIMIT, futures_util::future::join(sending, receiving)).await.unwrap();
    let mut document = told(brokers, before, started.elapsed(), each * SENDERS);
    for (name, node) in ["center_busiest", "site_busiest"].into_iter().zip(nodes) {
        let words = node.ctl(&["eval", BUSIEST]).unwrap();
        document[name] = words.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    }
    document
}

fn told(brokers: &Brokers, before: [f64; 2], took: Duration, messages: usize) -> Value {
    let count = f64::from(u32::try_from(messages).unwrap());
    let each = |node: &Node, before: f64| ((processor_s(node) - before) / count * 1e6).round();
    json!({
        "messages": messages,
        "seconds": took.as_secs_f64(),
        "per_second": (count / took.as_secs_f64()).round(),
        "center_us": each(&brokers.center, before[0]),
        "site_us": each(&brokers.edge, before[1]),
    })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (count, messages) = (number("--hosts", 2_000), number("--messages", 20_000));
    let brokers = start();
    let vhost = brokers.center.site().vhost;
    let bound = "length(mnesia:dirty_all_keys(rabbit_route)).";
    wait("the link", || {
        let commands = brokers.edge.ctl(&["eval", "rabbit_federation_status:status()."]).unwrap();
        let reports = brokers.edge.ctl(&["eval", "rabbit_shovel_status:status()."]).unwrap();
        commands.contains("{status,running}") && reports.contains("{running,")
    });

    // Hosts come to the site: their keys are bound at the centre.
    brokers.edge.import(&hosts(&vhost, 0, 100)).unwrap();
    wait("the first keys", || eval(&brokers.center, bound) >= 102.0);
    let memory = [memory_bytes(&brokers.center), memory_bytes(&brokers.edge)];
    let bindings = eval(&brokers.center, bound);
    let before = [processor_s(&brokers.center), processor_s(&brokers.edge)];
    let import_started = Instant::now();
    brokers.edge.import(&hosts(&vhost, 100, 100 + count)).unwrap();
    let imported = import_started.elapsed();
    let more = f64::from(u32::try_from(count).unwrap());
    wait("all keys", || eval(&brokers.center, bound) >= bindings + more);
    let mut bind = told(&brokers, before, import_started.elapsed(), count);
    bind["import_seconds"] = json!(imported.as_secs_f64());
    let after = [memory_bytes(&brokers.center), memory_bytes(&brokers.edge)];
    bind["center_bytes_per_host"] = json!(((after[0] - memory[0]) / more).round());
    bind["site_bytes_per_host"] = json!(((after[1] - memory[1]) / more).round());

    // One broadcast to so many queues.
    let site = pki::site();
    let lea = connect(&brokers.edge.url(&vhost), &site.member("user/lea"), &site.trust()).await.unwrap();
    let sender = channel(&lea).await;
    publish(&sender, "cmd", std::iter::once("all".to_owned()), "muster:user/lea").await;
    let before = [processor_s(&brokers.center), processor_s(&brokers.edge)];
    let started = Instant::now();
    for _ in 0..5 {
        publish(&sender, "cmd", std::iter::once("all".to_owned()), "muster:user/lea").await;
    }
    let broadcast = told(&brokers, before, started.elapsed(), 5 * (count + 100));

    // Commands by name over the link.
    let desk = connect(&brokers.center.url(&vhost), &site.member("user/lea"), &site.trust()).await.unwrap();
    let sender = channel(&desk).await;
    let waiting = "{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"muster\">>, queue, <<\"federation: cmd -> edge\">>)), \
                   [{messages, N}] = rabbit_amqqueue:info(Q, [messages]), N.";
    let before = [processor_s(&brokers.center), processor_s(&brokers.edge)];
    let started = Instant::now();
    let keys = (0..messages / 4).map(|index| format!("host.h{}.edge", index % count));
    publish(&sender, "cmd", keys, "muster:user/lea").await;
    wait("the last command", || eval(&brokers.center, waiting) == 0.0);
    let commands = told(&brokers, before, started.elapsed(), messages / 4);

    // Reports, from the centre's own hosts and over the link.
    let near = reports(&brokers, &brokers.center, "", messages).await;
    let far = reports(&brokers, &brokers.edge, ".edge", messages).await;

    // The link breaks and comes back, and binds everything anew, beside the exchange that it had before.
    let keys = |letter: char| {
        let name = format!("<<\"federation: cmd -> edge {letter}\">>");
        let lookup =
            format!("length(rabbit_binding:list_for_destination(rabbit_misc:r(<<\"muster\">>, exchange, {name}))).");
        eval(&brokers.center, &lookup)
    };
    let other = if keys('A') > 0.0 { 'B' } else { 'A' };
    let before = [processor_s(&brokers.center), processor_s(&brokers.edge)];
    brokers.center.ctl(&["close_all_user_connections", "muster:broker/mq.edge", "measured"]).unwrap();
    wait("the first key anew", || keys(other) > 0.0);
    let started = Instant::now();
    wait("all keys anew", || keys(other) >= more + 102.0);
    let again = told(&brokers, before, started.elapsed(), count + 102);

    let document = json!({
        "bind": bind, "broadcast": broadcast, "commands": commands, "reports_near": near, "reports_far": far, "link_again": again,
    });
    println!("{}", serde_json::to_string_pretty(&document).unwrap());
}
