//! Exchanges come and go.

use std::sync::Arc;

use super::exchange::Exchange;
use super::keys::{ExchangeKey, Target};
use super::refusals::{inequivalent, limit, reserved};
use super::{Engine, ExchangeKind, ExchangeSpec};
use crate::fault::Fault;
use crate::journal::Record;
use crate::outlet::Outlet;

impl Engine {
    /// `exchange.declare`, not passive. Declaring again with the same properties is nothing; with others, 406.
    ///
    /// # Errors
    /// 403 for a new name that begins with `amq.`, 406, or 506 at the limit.
    pub fn declare_exchange(&mut self, spec: ExchangeSpec, outlet: &mut impl Outlet) -> Result<(), Fault> {
        if spec.name.is_empty() {
            return Err(Fault::access_refused("operation not permitted on the default exchange"));
        }
        if let Some(exchange) = self.exchange_names.get(&*spec.name).and_then(|&key| self.exchanges.get(key)) {
            return self.same_exchange(&exchange.spec, &spec);
        }
        if spec.name.starts_with("amq.") {
            return Err(reserved("exchange", &spec.name));
        }
        if self.exchanges.len() >= self.limits.exchanges_max {
            return Err(limit("exchanges", self.limits.exchanges_max));
        }
        if spec.durable {
            outlet.record(Record::ExchangeDeclared(Arc::new(spec.clone())));
        }
        self.add_exchange(spec, false);
        Ok(())
    }

    fn same_exchange(&self, current: &ExchangeSpec, received: &ExchangeSpec) -> Result<(), Fault> {
        let of = self.exchange_named(&current.name);
        if current.kind != received.kind {
            let quoted = |kind| format!("'{}'", kind_name(kind));
            return Err(inequivalent("type", &of, quoted(received.kind), quoted(current.kind)));
        }
        for (property, current, received) in [
            ("durable", current.durable, received.durable),
            ("auto_delete", current.auto_delete, received.auto_delete),
            ("internal", current.internal, received.internal),
        ] {
            if current != received {
                return Err(inequivalent(property, &of, format_args!("'{received}'"), format_args!("'{current}'")));
            }
        }
        Ok(())
    }

    /// Whether the exchange exists (`exchange.declare`, passive): 404 if not.
    ///
    /// # Errors
    /// 404.
    pub fn check_exchange(&self, name: &str) -> Result<ExchangeKind, Fault> {
        let key = self.exchange_of(name)?;
        self.exchanges.get(key).map(|exchange| exchange.spec.kind).ok_or_else(|| self.no_exchange(name))
    }

    /// `exchange.delete`. Deleting what is not there is nothing, as with RabbitMQ.
    ///
    /// # Errors
    /// 406 if it is used and only an unused one is meant; 403 for AMQP's own.
    pub fn delete_exchange(
        &mut self,
        name: &str,
        if_unused: bool,
        _now_ms: i64,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        if name.is_empty() {
            return Err(Fault::access_refused("operation not permitted on the default exchange"));
        }
        if name.starts_with("amq.") {
            let what = self.exchange_named(name);
            return Err(Fault::access_refused(format_args!("deletion of system {what} not allowed")));
        }
        let Some(&key) = self.exchange_names.get(name) else { return Ok(()) };
        let used = self.exchanges.get(key).is_some_and(|exchange| exchange.outgoing > 0);
        if if_unused && used {
            return Err(Fault::precondition_failed(format_args!("{} in use", self.exchange_named(name))));
        }
        self.remove_exchanges(vec![key], outlet);
        Ok(())
    }

    /// Deletes an exchange that is to go with its last binding, if that was it.
    pub(super) fn drop_if_unbound(&mut self, exchange: ExchangeKey, outlet: &mut impl Outlet) {
        if self.goes_unbound(exchange) {
            self.remove_exchanges(vec![exchange], outlet);
        }
    }

    /// Deletes exchanges, and those that lose their last binding by that and are to go then.
    pub(super) fn remove_exchanges(&mut self, mut keys: Vec<ExchangeKey>, outlet: &mut impl Outlet) {
        while let Some(key) = keys.pop() {
            self.unbind_all_from(key);
            let sources = self.unbind_all_to(Target::Exchange(key));
            let Some(exchange) = self.exchanges.remove(key) else { continue };
            self.exchange_names.remove(&exchange.spec.name);
            if exchange.spec.durable {
                outlet.record(Record::ExchangeDeleted { name: exchange.spec.name.clone() });
            }
            keys.extend(sources.into_iter().filter(|&source| self.goes_unbound(source)));
        }
    }

    /// Whether an exchange goes now that it has lost a binding. Not in a replay: what kept it then is perhaps not recorded,
    /// and if it went, there is a record that says so.
    fn goes_unbound(&self, exchange: ExchangeKey) -> bool {
        !self.replaying
            && self.exchanges.get(exchange).is_some_and(|exchange| exchange.spec.auto_delete && exchange.outgoing == 0)
    }

    pub(super) fn add_exchange(&mut self, spec: ExchangeSpec, given: bool) {
        let name = spec.name.clone();
        let key = self.exchanges.insert(Exchange::new(spec, given));
        self.exchange_names.insert(name, key);
    }

    pub(super) fn exchange_of(&self, name: &str) -> Result<ExchangeKey, Fault> {
        self.exchange_names.get(name).copied().ok_or_else(|| self.no_exchange(name))
    }
}

fn kind_name(kind: ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Topic => "topic",
    }
}
