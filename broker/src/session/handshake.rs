//! From the protocol header to `connection.open-ok` (AMQP 0-9-1 section 2.2.4).

use amq_protocol::protocol::{AMQPClass, connection};
use amq_protocol::types::{AMQPValue, FieldTable};
use tracing::debug;

use super::Shared;
use super::talk::{FRAME_BYTES_MIN, Phase, Talk};
use crate::fault::Fault;
use crate::outlet::{Outlet as _, Output};

/// The one login there is: the certificate.
const EXTERNAL: &str = "EXTERNAL";

/// What RabbitMQ has beside it, so that the words of a refusal are the same.
const MECHANISMS_ELSEWHERE: [&str; 3] = ["PLAIN", "AMQPLAIN", "RABBIT-CR-DEMO"];

/// What a client may count on beyond AMQP 0-9-1: RabbitMQ's names.
const CAPABILITIES: [&str; 7] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "authentication_failure_close",
    "per_consumer_qos",
];

impl Talk {
    /// The first eight bytes. Another protocol is told which one is spoken here.
    pub(super) fn protocol_header(&mut self, header: [u8; 8], shared: &mut impl Shared) {
        // RabbitMQ takes the header of AMQP 0-9, which some clients still send, for this one.
        if !matches!(&header, b"AMQP\x00\x00\x09\x01" | b"AMQP\x01\x01\x00\x09") {
            debug!(connection = self.id.0, ?header, "another protocol");
            shared.lock().1.send(self.id, Output::ProtocolHeader);
            self.phase = Phase::Over;
            return;
        }
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: self.server_properties(),
            mechanisms: EXTERNAL.into(),
            locales: "en_US".into(),
        };
        self.say(0, AMQPClass::Connection(connection::AMQPMethod::Start(start)), shared);
        self.phase = Phase::Starting;
    }

    fn server_properties(&self) -> FieldTable {
        let mut capabilities = FieldTable::default();
        for name in CAPABILITIES {
            capabilities.insert(name.into(), AMQPValue::Boolean(true));
        }
        let mut properties = FieldTable::default();
        properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
        for (name, value) in [
            ("product", self.settings.product),
            ("version", self.settings.version),
            ("platform", "Rust"),
            ("cluster_name", &self.settings.cluster_name),
        ] {
            properties.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        properties
    }

    pub(super) fn start_ok(&mut self, start_ok: &connection::StartOk, shared: &mut impl Shared) -> Result<(), Fault> {
        if let Some(AMQPValue::FieldTable(capabilities)) = start_ok.client_properties.inner().get("capabilities") {
            let has = |name| capabilities.inner().get(name) == Some(&AMQPValue::Boolean(true));
            self.cancel_notify = has("consumer_cancel_notify");
            self.blocked_notify = has("connection.blocked");
            self.refusal_notify = has("authentication_failure_close");
        }
        let mechanism = start_ok.mechanism.as_str();
        if mechanism != EXTERNAL {
            let what = if MECHANISMS_ELSEWHERE.contains(&mechanism) { "invalid" } else { "unknown" };
            return Err(Fault::command_invalid(format_args!("{what} authentication mechanism '{mechanism}'")));
        }
        if self.peer.permissions.is_none() {
            return Err(Fault::login_refused(format_args!(
                "Login was refused using authentication mechanism {EXTERNAL}. For details see the broker logfile."
            )));
        }
        let tune = connection::Tune {
            channel_max: self.settings.channels_max,
            frame_max: self.settings.frame_bytes_max,
            heartbeat: self.settings.heartbeat_s,
        };
        self.say(0, AMQPClass::Connection(connection::AMQPMethod::Tune(tune)), shared);
        self.phase = Phase::Tuning;
        Ok(())
    }

    pub(super) fn tune_ok(&mut self, tune_ok: &connection::TuneOk) -> Result<(), Fault> {
        negotiated("frame_max", tune_ok.frame_max, FRAME_BYTES_MIN, self.settings.frame_bytes_max)?;
        negotiated("channel_max", tune_ok.channel_max.into(), 1, self.settings.channels_max.into())?;
        self.frame_bytes_max = tune_ok.frame_max;
        self.channels_max = tune_ok.channel_max;
        self.heartbeat_s = tune_ok.heartbeat;
        self.phase = Phase::Opening;
        Ok(())
    }

    pub(super) fn open(&mut self, open: &connection::Open, shared: &mut impl Shared) -> Result<(), Fault> {
        let vhost = open.virtual_host.as_str();
        if vhost != self.settings.vhost {
            return Err(Fault::not_allowed(format_args!("vhost {vhost} not found")));
        }
        let connections_max = self.peer.permissions.as_ref().map_or(0, |held| held.connections_max);
        let (broker, _) = shared.lock();
        broker.users.connect(&self.peer.user, connections_max)?;
        broker.engine.connect(self.id, &self.peer.user, self.peer.share);
        self.phase = Phase::Running;
        let open_ok = connection::OpenOk {};
        self.say(0, AMQPClass::Connection(connection::AMQPMethod::OpenOk(open_ok)), shared);
        Ok(())
    }
}

/// What a client wants instead of what it was offered: between the least and the offer, as RabbitMQ has it.
fn negotiated(what: &str, wanted: u32, least: u32, offered: u32) -> Result<(), Fault> {
    let refused = |how: &str, bound: &str, value: u32| {
        let unbounded = if what == "channel_max" && wanted == 0 { " (no limit)" } else { "" };
        Fault::not_allowed(format_args!(
            "negotiated {what} = {wanted}{unbounded} is {how} than the {bound} allowed value ({value})"
        ))
    };
    if wanted != 0 && wanted < least {
        return Err(refused("lower", "minimum", least));
    }
    if offered != 0 && (wanted == 0 || wanted > offered) {
        return Err(refused("higher", "maximum", offered));
    }
    Ok(())
}
