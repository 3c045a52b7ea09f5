use muster_protocol::name::{CollectiveName, HostName, SessionName, UserName};
use muster_protocol::{ReplyRoute, routing};
use proptest::prelude::*;

use super::*;

fn of(identity: &str) -> Permissions {
    permissions_for(&identity.parse().unwrap()).unwrap()
}

#[track_caller]
fn check(identity: &str, operation: Operation<'_>, expected: bool) {
    assert_eq!(of(identity).allows(&operation), expected, "{identity}: {operation:?}");
}

#[test]
fn a_host_owns_its_queue_and_answers_in_its_own_name() {
    let (own, other) = ("agent.web1", "agent.web2");
    for (operation, expected) in [
        (Operation::DeclareQueue { queue: own }, true),
        (Operation::DeleteQueue { queue: own }, true),
        (Operation::PurgeQueue { queue: own }, true),
        (Operation::Consume { queue: own }, true),
        (Operation::Bind { queue: own, exchange: "cmd", key: "all" }, true),
        (Operation::Bind { queue: own, exchange: "cmd", key: "collective.main" }, true),
        (Operation::Bind { queue: own, exchange: "cmd", key: "host.web1" }, true),
        (Operation::Publish { exchange: "reply", key: "user/lea.s1.web1" }, true),
        (Operation::Publish { exchange: "reply", key: "service/jobs.s1.web1" }, true),
        (Operation::Publish { exchange: "reply", key: "presence.web1" }, true),
        (Operation::DeclareQueue { queue: other }, false),
        (Operation::DeclareQueue { queue: "agent.web1x" }, false),
        (Operation::DeclareQueue { queue: "agent.web1\n" }, false),
        (Operation::DeclareQueue { queue: "reply.user/lea.s1" }, false),
        (Operation::DeclareQueue { queue: "amq.gen-x" }, false),
        (Operation::DeleteQueue { queue: other }, false),
        (Operation::PurgeQueue { queue: other }, false),
        (Operation::Consume { queue: other }, false),
        (Operation::Consume { queue: "reply.user/lea.s1" }, false),
        (Operation::Bind { queue: own, exchange: "cmd", key: "host.web2" }, false),
        (Operation::Bind { queue: own, exchange: "cmd", key: "host.*" }, false),
        (Operation::Bind { queue: own, exchange: "cmd", key: "#" }, false),
        (Operation::Bind { queue: own, exchange: "cmd", key: "collective.*" }, false),
        (Operation::Bind { queue: own, exchange: "cmd", key: "collective.#" }, false),
        (Operation::Bind { queue: own, exchange: "reply", key: "#" }, false),
        (Operation::Bind { queue: own, exchange: "amq.topic", key: "#" }, false),
        (Operation::Bind { queue: other, exchange: "cmd", key: "all" }, false),
        (Operation::Publish { exchange: "cmd", key: "all" }, false),
        (Operation::Publish { exchange: "cmd", key: "host.web1" }, false),
        (Operation::Publish { exchange: "", key: other }, false),
        (Operation::Publish { exchange: "", key: own }, false),
        (Operation::Publish { exchange: "amq.topic", key: "x" }, false),
        (Operation::Publish { exchange: "reply", key: "user/lea.s1.web2" }, false),
        (Operation::Publish { exchange: "reply", key: "user/lea.s1.xweb1" }, false),
        (Operation::Publish { exchange: "reply", key: "user/lea.s1.x.web1" }, false),
        (Operation::Publish { exchange: "reply", key: "presence.web2" }, false),
        (Operation::Publish { exchange: "reply", key: "web1" }, false),
        (Operation::Publish { exchange: "reply", key: "" }, false),
        (Operation::DeclareExchange { exchange: "cmd" }, false),
        (Operation::DeclareExchange { exchange: "mine" }, false),
        (Operation::DeleteExchange { exchange: "reply" }, false),
    ] {
        check("host/web1", operation, expected);
    }
}

#[test]
fn a_dot_in_a_host_name_is_a_dot() {
    check("host/web1.example.com", Operation::DeclareQueue { queue: "agent.web1.example.com" }, true);
    check("host/web1.example.com", Operation::DeclareQueue { queue: "agent.web1xexample.com" }, false);
    let key = "user/lea.s1.web1xexample.com";
    check("host/web1.example.com", Operation::Publish { exchange: "reply", key }, false);
}

#[test]
fn a_controller_commands_and_hears_its_own_answers() {
    let own = "reply.user/lea.s1";
    for (operation, expected) in [
        (Operation::DeclareQueue { queue: own }, true),
        (Operation::Consume { queue: own }, true),
        (Operation::Bind { queue: own, exchange: "reply", key: "user/lea.s1.#" }, true),
        (Operation::Publish { exchange: "cmd", key: "all" }, true),
        (Operation::Publish { exchange: "cmd", key: "collective.main" }, true),
        (Operation::Publish { exchange: "cmd", key: "host.web1.example.com" }, true),
        (Operation::DeclareQueue { queue: "agent.web1" }, false),
        (Operation::DeclareQueue { queue: "reply.user/tom.s1" }, false),
        (Operation::DeclareQueue { queue: "reply.user/lea" }, false),
        (Operation::DeclareQueue { queue: "reply.user/leax.s1" }, false),
        (Operation::Consume { queue: "reply.user/tom.s1" }, false),
        (Operation::Consume { queue: "agent.web1" }, false),
        (Operation::PurgeQueue { queue: "agent.web1" }, false),
        (Operation::DeleteQueue { queue: "agent.web1" }, false),
        (Operation::Bind { queue: own, exchange: "reply", key: "user/tom.s1.#" }, false),
        (Operation::Bind { queue: own, exchange: "reply", key: "user/lea.*.#" }, false),
        (Operation::Bind { queue: own, exchange: "reply", key: "#" }, false),
        (Operation::Bind { queue: own, exchange: "reply", key: "presence.#" }, false),
        (Operation::Bind { queue: own, exchange: "cmd", key: "all" }, false),
        (Operation::Publish { exchange: "reply", key: "user/lea.s1.web1" }, false),
        (Operation::Publish { exchange: "", key: "agent.web1" }, false),
        (Operation::Publish { exchange: "cmd", key: "" }, false),
        (Operation::Publish { exchange: "cmd", key: "nonsense" }, false),
        (Operation::DeclareExchange { exchange: "cmd" }, false),
        (Operation::DeleteExchange { exchange: "cmd" }, false),
        (Operation::DeclareQueueDeadLettering { queue: own, exchange: "reply" }, false),
    ] {
        check("user/lea", operation, expected);
    }
    let presence = Operation::Bind { queue: "reply.service/jobs.s1", exchange: "reply", key: "presence.#" };
    check("service/jobs", presence, true);
}

#[test]
fn what_rabbitmq_cannot_refuse_is_written_down() {
    // The next three go through; `broker check` reports the first two, and signatures make all harmless.
    check("host/web1", Operation::BindExchange { destination: "reply", source: "cmd", key: "all" }, true);
    let key = "user/lea.s1.#";
    check("user/lea", Operation::BindExchange { destination: "cmd", source: "reply", key }, true);
    check("host/web1", Operation::DeclareQueueDeadLettering { queue: "agent.web1", exchange: "reply" }, true);
    check("host/web1", Operation::BindExchange { destination: "cmd", source: "reply", key }, false);
}

#[test]
fn a_broker_never_logs_in() {
    assert_eq!(permissions_for(&"broker/mq1".parse().unwrap()), None);
}

prop_compose! {
    fn host()(name in "[a-z0-9_][a-z0-9_]{0,8}(\\.[a-z0-9]{1,8}){0,3}") -> HostName { name.parse().unwrap() }
}

prop_compose! {
    fn route()(user in "[a-z0-9][a-z0-9_-]{0,12}", session in "[a-z0-9][a-z0-9_-]{0,12}") -> ReplyRoute {
        let user = Identity::User(UserName::new(user).unwrap());
        ReplyRoute::new(user, SessionName::new(session).unwrap()).unwrap()
    }
}

proptest! {
    #[test]
    fn everything_the_programs_do_is_allowed(host in host(), route in route(), name in "[a-z0-9][a-z0-9_-]{0,62}") {
        let collective = CollectiveName::new(name).unwrap();
        let to_hosts = [routing::KEY_ALL.to_owned(), routing::host_key(&host), routing::collective_key(&collective)];
        let from_host = [routing::reply_key(&route, &host), routing::presence_key(&host)];

        let queue = routing::agent_queue(&host);
        let mut operations = vec![Operation::DeclareQueue { queue: &queue }, Operation::Consume { queue: &queue }];
        operations.extend(to_hosts.iter().map(|key| Operation::Bind { queue: &queue, exchange: "cmd", key }));
        operations.extend(from_host.iter().map(|key| Operation::Publish { exchange: "reply", key }));
        let agent = permissions_for(&Identity::Host(host.clone())).unwrap();
        for operation in operations {
            prop_assert!(agent.allows(&operation), "{:?}", operation);
        }

        let (queue, key) = (routing::reply_queue(&route), routing::reply_binding(&route));
        let mut operations = vec![Operation::DeclareQueue { queue: &queue }, Operation::Consume { queue: &queue }];
        operations.push(Operation::Bind { queue: &queue, exchange: "reply", key: &key });
        operations.extend(to_hosts.iter().map(|key| Operation::Publish { exchange: "cmd", key }));
        let controller = permissions_for(route.controller()).unwrap();
        for operation in operations {
            prop_assert!(controller.allows(&operation), "{:?}", operation);
        }
    }

    #[test]
    fn nothing_of_anybody_else_is(mine in host(), theirs in host(), route in route(), other in route()) {
        prop_assume!(mine != theirs && route.controller() != other.controller());
        let agent = permissions_for(&Identity::Host(mine.clone())).unwrap();
        let queue = routing::agent_queue(&theirs);
        for operation in [
            Operation::DeclareQueue { queue: &queue },
            Operation::DeleteQueue { queue: &queue },
            Operation::PurgeQueue { queue: &queue },
            Operation::Consume { queue: &queue },
            Operation::Bind { queue: &queue, exchange: "cmd", key: "all" },
            Operation::Bind { queue: &routing::agent_queue(&mine), exchange: "cmd", key: &routing::host_key(&theirs) },
            Operation::Publish { exchange: "reply", key: &routing::reply_key(&route, &theirs) },
            Operation::Publish { exchange: "reply", key: &routing::presence_key(&theirs) },
        ] {
            prop_assert!(!agent.allows(&operation), "{:?}", operation);
        }
        let controller = permissions_for(route.controller()).unwrap();
        let queue = routing::reply_queue(&other);
        for operation in [
            Operation::DeclareQueue { queue: &queue },
            Operation::Consume { queue: &queue },
            Operation::DeleteQueue { queue: &queue },
            Operation::Bind {
                queue: &routing::reply_queue(&route),
                exchange: "reply",
                key: &routing::reply_binding(&other),
            },
        ] {
            prop_assert!(!controller.allows(&operation), "{:?}", operation);
        }
    }

    #[test]
    fn a_host_publishes_no_command_whatever_the_key(mine in host(), key in "\\PC{0,40}") {
        let agent = permissions_for(&Identity::Host(mine)).unwrap();
        for exchange in ["cmd", "", "amq.topic"] {
            let publish = Operation::Publish { exchange, key: &key };
            prop_assert!(!agent.allows(&publish), "{:?}", publish);
        }
    }
}

/// A site's broker at the centre, with a domain, a name and two collectives.
fn linked() -> (Role, Permissions) {
    let sites = crate::Sites::parse(
        "[center]\naddresses = ['mq']\n[[site]]\nname = 'ams1'\nbroker = 'mq.ams1'\nhosts = ['*.ams1', 'backup']\n\
         collectives = ['main', 'europe']\n[[site]]\nname = 'fra2'\nbroker = 'mq.fra2'\nhosts = ['*.fra2']\n",
    );
    let role = sites.unwrap().role("center").unwrap();
    let permissions = permissions_at(&role, &"broker/mq.ams1".parse().unwrap()).unwrap();
    (role, permissions)
}

#[test]
fn a_link_hears_and_answers_for_its_own_hosts_only() {
    let (_, link) = linked();
    for (key, hears) in [
        ("all", true),
        ("collective.main", true),
        ("collective.europe", true),
        ("collective.other", false),
        ("collective.*", false),
        ("host.web1.ams1", true),
        ("host.a.b.ams1", true),
        ("host.backup", true),
        ("host.web1.fra2", false),
        ("host.ams1", false),
        ("host.#", false),
        ("host.#.ams1", false),
        ("#", false),
    ] {
        let bind = Operation::BindExchange { destination: "federation: cmd -> ams1 A", source: "cmd", key };
        assert_eq!(link.allows(&bind), hears, "{key}");
        assert!(!link.allows(&Operation::Publish { exchange: "cmd", key }), "{key}");
    }
    for (key, answers) in [
        ("user/lea.s1.web1.ams1", true),
        ("service/jobs.s1.a.b.ams1", true),
        ("user/lea.s1.backup", true),
        ("presence.web1.ams1", true),
        ("presence.backup", true),
        ("user/lea.s1.web1.fra2", false),
        ("user/lea.s1.ams1", false),
        ("presence.web1.fra2", false),
        ("user/lea.s1", false),
        ("user/lea.s1.x.backup", false),
        ("", false),
    ] {
        assert_eq!(link.allows(&Operation::Publish { exchange: "reply", key }), answers, "{key}");
        let bind = Operation::BindExchange { destination: "federation: cmd -> ams1 A", source: "reply", key };
        assert!(!link.allows(&bind), "{key}");
    }
    for queue in
        ["federation: cmd -> fra2", "federation: cmd -> ams1x", "agent.web1.ams1", "reply.user/lea.s1", "uplink"]
    {
        assert!(!link.allows(&Operation::DeclareQueue { queue }), "{queue}");
        assert!(!link.allows(&Operation::Consume { queue }), "{queue}");
    }
    assert!(link.allows(&Operation::Consume { queue: "federation: cmd -> ams1" }));
}

#[test]
fn what_a_site_forwards_is_what_the_centre_takes_from_it() {
    let (_, link) = linked();
    let sites = "[center]\naddresses = ['mq']\n[[site]]\nname = 'ams1'\nbroker = 'mq.ams1'\nhosts = ['*.ams1', 'backup']\n\
                 collectives = ['main', 'europe']\n";
    let role = crate::Sites::parse(sites).unwrap().role("ams1").unwrap();
    for host in ["web1.ams1", "a.b.ams1", "backup"] {
        let permissions = permissions_at(&role, &format!("host/{host}").parse().unwrap()).unwrap();
        // A key that a host may use at its site and that the centre refuses would end the link for everybody.
        for key in ["all", "collective.main", "collective.europe", "collective.other", &format!("host.{host}")] {
            let bind = Operation::Bind { queue: &format!("agent.{host}"), exchange: "cmd", key };
            let federated = Operation::BindExchange { destination: "federation: cmd -> ams1 B", source: "cmd", key };
            assert_eq!(permissions.allows(&bind), link.allows(&federated), "{host} {key}");
        }
        for key in [format!("user/lea.s1.{host}"), format!("service/x.s1.{host}"), format!("presence.{host}")] {
            let publish = Operation::Publish { exchange: "reply", key: &key };
            assert!(permissions.allows(&publish) && link.allows(&publish), "{key}");
        }
    }
    assert!(permissions_at(&role, &"host/web1.fra2".parse().unwrap()).is_none());
}
