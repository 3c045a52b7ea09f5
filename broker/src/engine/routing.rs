//! From an exchange and a routing key to queues.

use std::collections::HashMap;
use std::sync::Arc;

use super::Engine;
use super::keys::{ExchangeKey, QueueKey, Target};
use super::specs::ExchangeKind;

/// A result with fewer queues is found as quickly again as it is remembered.
const REMEMBERED_MIN: usize = 16;

/// Queues in all results that are remembered: 8 MB.
const REMEMBERED_QUEUES_MAX: usize = 1_000_000;

/// Results for keys with many queues, such as the one for all hosts, until a binding changes.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    results: HashMap<ExchangeKey, HashMap<Box<str>, Arc<[QueueKey]>>>,
    queues: usize,
}

impl Remembered {
    /// A binding has changed: nothing is known any more.
    pub(super) fn forget(&mut self) {
        if self.queues > 0 {
            *self = Self::default();
        }
    }

    fn get(&self, exchange: ExchangeKey, key: &str) -> Option<Arc<[QueueKey]>> {
        if self.queues == 0 {
            return None;
        }
        self.results.get(&exchange)?.get(key).cloned()
    }

    fn put(&mut self, exchange: ExchangeKey, key: &str, queues: &Arc<[QueueKey]>) {
        if self.queues + queues.len() > REMEMBERED_QUEUES_MAX {
            self.forget();
        }
        self.queues += queues.len();
        self.results.entry(exchange).or_default().insert(key.into(), queues.clone());
    }
}

/// The queues of a publication, each once.
pub(super) enum Route {
    /// Few; the vector is given back afterwards, so that it is not made anew each time.
    Few(Vec<QueueKey>),
    /// Many, remembered.
    Many(Arc<[QueueKey]>),
}

impl Route {
    pub(super) fn queues(&self) -> &[QueueKey] {
        match self {
            Self::Few(queues) => queues,
            Self::Many(queues) => queues,
        }
    }
}

impl Engine {
    /// Finds the queues.
    pub(super) fn route(&mut self, exchange: ExchangeKey, key: &str) -> Route {
        // A fanout exchange does the same with every key, unless an exchange behind it does not.
        let remembered_as = match self.exchanges.get(exchange) {
            Some(found) if found.spec.kind == ExchangeKind::Fanout && found.to_exchanges == 0 => "",
            _ => key,
        };
        if let Some(queues) = self.remembered.get(exchange, remembered_as) {
            return Route::Many(queues);
        }
        let mut queues = std::mem::take(&mut self.found_queues);
        queues.clear();
        self.walk(exchange, key, &mut queues);
        if queues.len() < REMEMBERED_MIN {
            return Route::Few(queues);
        }
        let many: Arc<[QueueKey]> = queues.as_slice().into();
        self.found_queues = queues;
        self.remembered.put(exchange, remembered_as, &many);
        Route::Many(many)
    }

    /// Gives the vector of a route back.
    pub(super) fn routed(&mut self, route: Route) {
        if let Route::Few(queues) = route {
            self.found_queues = queues;
        }
    }

    /// Goes from exchange to exchange, to each once, so that a circle of bindings ends.
    fn walk(&mut self, exchange: ExchangeKey, key: &str, queues: &mut Vec<QueueKey>) {
        self.walks += 1;
        let mark = self.walks;
        let mut targets = std::mem::take(&mut self.found_targets);
        let mut to_visit = vec![];
        let mut next = Some(exchange);
        while let Some(at) = next {
            if let Some(exchange) = self.exchanges.get_mut(at).filter(|exchange| exchange.mark != mark) {
                exchange.mark = mark;
                exchange.table.matching(key, &mut targets);
                for target in targets.drain(..) {
                    match target {
                        Target::Exchange(further) => to_visit.push(further),
                        Target::Queue(queue) => {
                            if let Some(found) = self.queues.get_mut(queue).filter(|found| found.mark != mark) {
                                found.mark = mark;
                                queues.push(queue);
                            }
                        }
                    }
                }
            }
            next = to_visit.pop();
        }
        self.found_targets = targets;
    }
}
