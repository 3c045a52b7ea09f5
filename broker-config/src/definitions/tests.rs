use super::*;
use crate::conf::{enabled_plugins, rabbitmq_conf};
use crate::site::Purpose;
use crate::sites::Sites;

fn sample() -> Site {
    let names = ["host/web1.example.com", "host/db1", "user/lea", "service/jobs", "broker/mq1.example.com"];
    Site::new(names.map(|name| name.parse().unwrap()))
}

#[test]
fn the_generated_files_are_reviewed() {
    let site = sample();
    insta::assert_snapshot!("definitions.json", definitions(&site).to_json());
    insta::assert_snapshot!("rabbitmq.conf", rabbitmq_conf(&site));
    insta::assert_snapshot!("enabled_plugins", enabled_plugins(&site));
    let private = Site {
        listen: vec![([127, 0, 0, 1], 25671).into()],
        purpose: Purpose::Private,
        management: Some(([127, 0, 0, 1], 25672).into()),
        ..site
    };
    insta::assert_snapshot!("private.conf", rabbitmq_conf(&private));
    assert_eq!(enabled_plugins(&private), "[rabbitmq_auth_mechanism_ssl,rabbitmq_management].\n");
}

#[test]
fn nobody_has_a_password_or_a_tag() {
    let definitions = definitions(&sample());
    assert_eq!(definitions.users.len(), 4, "a broker is no user");
    for user in &definitions.users {
        assert!(user.password_hash.is_empty() && user.tags.is_empty(), "{}", user.name);
        let topics = definitions.topic_permissions.iter().filter(|it| it.user == user.name).count();
        assert_eq!(topics, 2, "{}: RabbitMQ allows every topic of an exchange without a topic permission", user.name);
    }
}

#[test]
fn what_is_written_is_read() {
    let definitions = definitions(&sample());
    assert_eq!(Definitions::parse(&definitions.to_json()).unwrap(), definitions);
}

#[test]
fn an_export_of_any_version_is_read() {
    let old = r#"{"rabbit_version":"3.7.0","users":[{"name":"a","password_hash":"","tags":"administrator,policymaker"}],
        "vhosts":[{"name":"muster","new_field":1}],"queues":[{"name":"q"}]}"#;
    let old = Definitions::parse(old).unwrap();
    assert_eq!(old.users[0].tags, ["administrator", "policymaker"]);
    let new = Definitions::parse(r#"{"users":[{"name":"a","tags":["monitoring"],"limits":{}}]}"#).unwrap();
    assert_eq!(new.users[0].tags, ["monitoring"]);
    let none = Definitions::parse(r#"{"users":[{"name":"a","tags":""}]}"#).unwrap();
    assert!(none.users[0].tags.is_empty());
    let error = Definitions::parse(r#"{"users":[{"name":"a","tags":7}]}"#).unwrap_err();
    assert_eq!((error.code(), error.is_transient()), ("bad-definitions", false));
}

#[test]
fn the_files_of_linked_brokers_are_reviewed() {
    let text = "[center]\naddresses = [\"mq1.example.com\", \"mq2.example.com:5673\"]\n\n[[site]]\nname = \"ams1\"\n\
                broker = \"mq.ams1.example.com\"\nhosts = [\"*.ams1.example.com\", \"backup.example.com\"]\n\
                collectives = [\"main\", \"europe\"]\n";
    let sites = Sites::parse(text).unwrap();
    let everybody = ["host/web1.ams1.example.com", "host/db1.example.com", "user/lea", "broker/mq.ams1.example.com"];
    let at =
        |name: &str| Site { role: sites.role(name).unwrap(), ..Site::new(everybody.map(|who| who.parse().unwrap())) };
    let (center, ams1) = (at("center"), at("ams1"));
    insta::assert_snapshot!("center.definitions.json", definitions(&center).to_json());
    insta::assert_snapshot!("ams1.definitions.json", definitions(&ams1).to_json());
    let users = |site: &Site| definitions(site).users.into_iter().map(|user| user.name).collect::<Vec<_>>();
    assert_eq!(users(&center), ["muster:host/db1.example.com", "muster:user/lea", "muster:broker/mq.ams1.example.com"]);
    assert_eq!(users(&ams1), ["muster:host/web1.ams1.example.com", "muster:user/lea"]);
    assert_eq!(enabled_plugins(&center), "[rabbitmq_auth_mechanism_ssl,rabbitmq_federation].\n");
    assert_eq!(enabled_plugins(&ams1), "[rabbitmq_auth_mechanism_ssl,rabbitmq_federation,rabbitmq_shovel].\n");
    assert_eq!(Definitions::parse(&definitions(&ams1).to_json()).unwrap(), definitions(&ams1));
}

#[test]
fn paths_and_virtual_hosts_cannot_change_an_address() {
    let text = "[center]\naddresses = [\"mq\"]\n[[site]]\nname = \"s\"\nbroker = \"b\"\nhosts = [\"h\"]\n";
    let mut site = Site { role: Sites::parse(text).unwrap().role("s").unwrap(), ..Site::new([]) };
    site.vhost = "a/b".to_owned();
    site.certificate.key = "/x y/&verify=verify_none".into();
    let json = definitions(&site).to_json();
    assert!(json.contains("amqps://mq:5671/a%2Fb?"), "{json}");
    assert!(json.contains("&keyfile=%2Fx%20y%2F%26verify%3Dverify_none&verify=verify_peer&"), "{json}");
    assert!(json.contains("\"amqp:///a%2Fb\""), "{json}");
}
