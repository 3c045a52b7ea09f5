//! What everybody in a run shares.

use std::sync::Arc;

use muster_bus::MemoryBroker;

use crate::host::Host;
use crate::network::Network;
use crate::options::Options;
use crate::site::Site;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::world::World;

/// What everybody shares. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub(crate) options: Arc<Options>,
    pub(crate) site: Arc<Site>,
    pub(crate) broker: MemoryBroker,
    pub(crate) network: Network,
    pub(crate) world: World,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    pub(crate) hosts: Arc<Vec<Arc<Host>>>,
}
