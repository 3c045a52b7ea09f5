//! Bindings come and go.

use std::collections::btree_map::Entry as MapEntry;
use std::sync::Arc;

use super::exchange::{Bindings, Bound};
use super::keys::{ExchangeKey, Target};
use super::refusals::limit;
use super::{BindingSpec, Destination, Engine};
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::journal::Record;
use crate::outlet::Outlet;

/// Keys with which one queue or exchange may be bound. A host has three, a controller one; whoever has thousands would use up
/// what is there for all.
const OF_ONE_MAX: usize = 1_000;

/// Bindings with the same key that differ in their arguments alone.
const ALIKE_MAX: usize = 16;

impl Engine {
    /// `queue.bind` and `exchange.bind`. Twice is once.
    ///
    /// # Errors
    /// 404, 405, 506; 403 for the default exchange.
    pub fn bind(
        &mut self,
        connection: ConnectionId,
        binding: BindingSpec,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        let (source, target) = self.ends(connection, &binding)?;
        if self.bound(source, target, &binding)? && self.is_journaled(source, target) {
            outlet.record(Record::Bound(Arc::new(binding)));
        }
        Ok(())
    }

    /// `queue.unbind` and `exchange.unbind`. What is not bound is nothing.
    ///
    /// # Errors
    /// 404, 405; 403 for the default exchange.
    pub fn unbind(
        &mut self,
        connection: ConnectionId,
        binding: &BindingSpec,
        outlet: &mut impl Outlet,
    ) -> Result<(), Fault> {
        let (source, target) = self.ends(connection, binding)?;
        let journaled = self.is_journaled(source, target);
        if self.unbound(source, target, binding) {
            if journaled {
                outlet.record(Record::Unbound(Arc::new(binding.clone())));
            }
            self.drop_if_unbound(source, outlet);
        }
        Ok(())
    }

    fn ends(&self, connection: ConnectionId, binding: &BindingSpec) -> Result<(ExchangeKey, Target), Fault> {
        let default = |name: &str| {
            if name.is_empty() {
                return Err(Fault::access_refused("operation not permitted on the default exchange"));
            }
            Ok(())
        };
        default(&binding.source)?;
        let target = match &binding.destination {
            Destination::Queue(name) => Target::Queue(self.queue_of(connection, name)?),
            Destination::Exchange(name) => {
                default(name)?;
                Target::Exchange(self.exchange_of(name)?)
            }
        };
        Ok((self.exchange_of(&binding.source)?, target))
    }

    /// Makes a binding: whether it is new.
    pub(super) fn bound(&mut self, source: ExchangeKey, target: Target, spec: &BindingSpec) -> Result<bool, Fault> {
        let full = self.bindings >= self.limits.bindings_max;
        let bindings = match target {
            Target::Queue(queue) => self.queues.get_mut(queue).map(|queue| &mut queue.bindings),
            Target::Exchange(exchange) => self.exchanges.get_mut(exchange).map(|exchange| &mut exchange.incoming),
        };
        // Taken out for a moment: the end of the binding may be the exchange where it begins.
        let Some(bindings) = bindings else { return Ok(false) };
        let mut taken = std::mem::take(bindings);
        let crowded = taken.len() >= OF_ONE_MAX;
        let result = match self.exchanges.get_mut(source) {
            None => Ok(false),
            Some(exchange) => match taken.entry((source, spec.key.clone())) {
                MapEntry::Occupied(bound) if bound.get().has(&spec.arguments) => Ok(false),
                MapEntry::Vacant(_) if crowded => Err(limit("bindings of one queue or exchange", OF_ONE_MAX)),
                MapEntry::Occupied(bound) if bound.get().count() >= ALIKE_MAX => {
                    Err(limit("bindings that differ in their arguments alone", ALIKE_MAX))
                }
                _ if full => Err(limit("bindings", self.limits.bindings_max)),
                entry => {
                    let bound = entry.or_insert_with(|| Bound {
                        place: exchange.table.add(&spec.key, target),
                        plain: false,
                        others: std::collections::BTreeMap::new(),
                    });
                    bound.add(&spec.arguments);
                    exchange.outgoing += 1;
                    exchange.to_exchanges += usize::from(matches!(target, Target::Exchange(_)));
                    self.bindings += 1;
                    self.remembered.forget();
                    Ok(true)
                }
            },
        };
        if let Some(bindings) = self.bindings_of(target) {
            *bindings = taken;
        }
        result
    }

    /// Takes one binding away: whether it was there.
    pub(super) fn unbound(&mut self, source: ExchangeKey, target: Target, spec: &BindingSpec) -> bool {
        let at = (source, spec.key.clone());
        let Some(bindings) = self.bindings_of(target) else { return false };
        let Some(bound) = bindings.get_mut(&at) else { return false };
        if !bound.take(&spec.arguments) {
            return false;
        }
        let last = bound.count() == 0;
        let place = bound.place;
        if last {
            bindings.remove(&at);
            self.leave_table(source, &spec.key, place);
        }
        self.count_down(source, target, 1);
        true
    }

    /// Takes everything that ends at a target away, and gives the exchanges where it began.
    pub(super) fn unbind_all_to(&mut self, target: Target) -> Vec<ExchangeKey> {
        let Some(bindings) = self.bindings_of(target).map(std::mem::take) else { return Vec::new() };
        let mut sources = Vec::new();
        for ((source, key), bound) in bindings {
            self.leave_table(source, &key, bound.place);
            self.count_down(source, target, bound.count());
            if sources.last() != Some(&source) {
                sources.push(source);
            }
        }
        sources
    }

    /// Takes everything that begins at an exchange away.
    pub(super) fn unbind_all_from(&mut self, source: ExchangeKey) {
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        let targets = exchange.take_targets();
        for target in targets {
            let Some(bindings) = self.bindings_of(target) else { continue };
            let mut gone = 0;
            bindings.retain(|(from, _), bound| {
                gone += if *from == source { bound.count() } else { 0 };
                *from != source
            });
            self.count_down(source, target, gone);
        }
    }

    fn leave_table(&mut self, source: ExchangeKey, key: &Arc<str>, place: usize) {
        let moved = self.exchanges.get_mut(source).and_then(|exchange| exchange.table.remove(key, place));
        let Some(bindings) = moved.and_then(|moved| self.bindings_of(moved)) else { return };
        if let Some(bound) = bindings.get_mut(&(source, key.clone())) {
            bound.place = place;
        }
    }

    fn count_down(&mut self, source: ExchangeKey, target: Target, bindings: usize) {
        self.bindings -= bindings;
        self.remembered.forget();
        if let Some(exchange) = self.exchanges.get_mut(source) {
            exchange.outgoing -= bindings;
            if matches!(target, Target::Exchange(_)) {
                exchange.to_exchanges -= bindings;
            }
        }
    }

    pub(super) fn bindings_of(&mut self, target: Target) -> Option<&mut Bindings> {
        match target {
            Target::Queue(queue) => self.queues.get_mut(queue).map(|queue| &mut queue.bindings),
            Target::Exchange(exchange) => self.exchanges.get_mut(exchange).map(|exchange| &mut exchange.incoming),
        }
    }

    /// Whether a binding between these survives a restart.
    pub(super) fn is_journaled(&self, source: ExchangeKey, target: Target) -> bool {
        let durable = |exchange| self.exchanges.get(exchange).is_some_and(|exchange| exchange.spec.durable);
        durable(source)
            && match target {
                Target::Queue(queue) => self.queues.get(queue).is_some_and(|queue| queue.journaled),
                Target::Exchange(exchange) => durable(exchange),
            }
    }
}
