use super::*;
use crate::conf::{enabled_plugins, rabbitmq_conf};
use crate::site::Purpose;

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
