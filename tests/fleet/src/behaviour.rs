//! How a host behaves, put between its agent and the broker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use muster_bus::{
    Bus, BusError, CloseReason, ConsumeOptions, Consumer, Guarantee, Link, Outgoing, PublishError, QueueSpec,
};

use crate::meter::Meter;

/// How a host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It answers as fast as it can.
    Prompt,
    /// Everything that it says leaves so much later.
    Late(Duration),
    /// It takes commands, and nothing that it says arrives.
    Silent,
    /// It has no agent.
    Absent,
}

/// An agent's way to the broker: counted, and bent by the host's behaviour.
pub(crate) struct HostBus {
    pub(crate) inner: Arc<dyn Bus>,
    pub(crate) behaviour: Behaviour,
    pub(crate) meter: Arc<Meter>,
}

impl Bus for HostBus {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Link>, BusError>> {
        async {
            self.meter.attempt();
            let link = self.inner.connect().await;
            self.meter.outcome(link.as_ref().err().map(BusError::code));
            Ok(match self.behaviour {
                Behaviour::Prompt | Behaviour::Absent => link?,
                behaviour => Arc::new(HostLink { inner: link?, behaviour }),
            })
        }
        .boxed()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

struct HostLink {
    inner: Arc<dyn Link>,
    behaviour: Behaviour,
}

impl Link for HostLink {
    fn declare_queue(&self, queue: QueueSpec) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.declare_queue(queue)
    }

    fn bind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.bind(queue, exchange, key)
    }

    fn unbind(&self, queue: &str, exchange: &str, key: &str) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.unbind(queue, exchange, key)
    }

    fn consume(&self, queue: &str, options: ConsumeOptions) -> BoxFuture<'_, Result<Consumer, BusError>> {
        self.inner.consume(queue, options)
    }

    fn publish(&self, message: Outgoing, guarantee: Guarantee) -> BoxFuture<'_, Result<(), PublishError>> {
        async move {
            match self.behaviour {
                Behaviour::Silent => return Ok(()),
                Behaviour::Late(by) => tokio::time::sleep(by).await,
                Behaviour::Prompt | Behaviour::Absent => {}
            }
            self.inner.publish(message, guarantee).await
        }
        .boxed()
    }

    fn closed(&self) -> BoxFuture<'_, CloseReason> {
        self.inner.closed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
