//! What happens between a question to a fleet and its last verified answer.
//!
//! # The way of a question
//!
//! The controller's channel process routes one message to the queue of every host, one after the other. Each copy costs its
//! broker a share of a core and then the network's latency. With sites, the centre routes one copy to each site's queue; the
//! link carries it; the site's own channel process routes it to the site's hosts.
//!
//! # The way of an answer
//!
//! A host thinks, and its report reaches its broker, where any core takes it. At a site it then passes the shovel, one at a time, with so many unconfirmed, and the line. At the centre the reply queue's process takes one after the
//! other; the controller has so many unacknowledged, and verifies one after the other.
//!
//! # What is left out
//!
//! Loss, retries, the order in which Erlang's schedulers prefer processes, memory pressure and flow control. Waiting
//! behind a full core and behind a single process is what the model is about.

use crate::constants::Constants;
use crate::engine::{Engine, Load, MachineId, Nanoseconds, ProcessId, count, microseconds, seconds};

/// Hosts that a channel process routes to before others get its core.
const ROUTE_BATCH: usize = 64;

/// Where the brokers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Broker, all agents and all controllers on one machine, as in a measurement.
    Together {
        /// Its cores.
        cores: usize,
    },
    /// Several nodes that share everything; hosts and controllers have machines of their own.
    Cluster {
        /// Machines.
        nodes: usize,
        /// Cores of each.
        cores: usize,
    },
    /// A node in the centre and one at each site. All hosts are at sites.
    Sites {
        /// How many.
        sites: usize,
        /// Cores of each site's node.
        site_cores: usize,
        /// Cores of the centre's node.
        center_cores: usize,
    },
}

/// A fleet and a question to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Hosts that are asked.
    pub hosts: usize,
    /// Controllers, each asking its part of the hosts, at the same time.
    pub controllers: usize,
    /// Parts that each controller asks one after the other.
    pub waves: usize,
    /// Where the brokers are.
    pub layout: Layout,
    /// Time from a host to its broker, one way.
    pub host_latency_us: f64,
    /// The most that is added to a host's time to think, spread evenly.
    pub host_jitter_us: f64,
    /// Time from a site to the centre, one way.
    pub site_latency_us: f64,
    /// What a site's line carries in a second.
    pub site_bytes_per_second: f64,
    /// Bytes of output of each host.
    pub output_bytes: f64,
    /// Answers that a controller, or a link, may have unacknowledged.
    pub prefetch: usize,
}

impl Shape {
    /// A full ping of a fleet in one place, from one controller, over a network without latency.
    #[must_use]
    pub fn ping(hosts: usize, layout: Layout) -> Self {
        Self {
            hosts,
            controllers: 1,
            waves: 1,
            layout,
            host_latency_us: 0.0,
            host_jitter_us: 0.0,
            site_latency_us: 0.0,
            site_bytes_per_second: 125e6,
            output_bytes: 0.0,
            prefetch: 1_000,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Verified answers.
    pub answers: usize,
    /// Until the last of them.
    pub seconds: f64,
    /// Until half of them.
    pub median_s: f64,
    /// Until 99 of 100 of them.
    pub p99_s: f64,
    /// Work of each broker machine.
    pub brokers: Vec<Load>,
    /// The busiest processes, the busiest first.
    pub busiest: Vec<Load>,
    /// Seconds of work of all brokers.
    pub broker_s: f64,
    /// Answers that waited in one queue of the centre at most.
    pub waiting_most: usize,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A channel process goes on routing: of the centre, or of a site.
    Route {
        asker: usize,
        site: Option<usize>,
        next: usize,
    },
    /// A command left the centre, has come over the line, is at the site.
    Leaves {
        asker: usize,
        site: usize,
    },
    Arrives {
        asker: usize,
        site: usize,
    },
    /// A host's copy left its broker, or came from another node.
    Delivered {
        asker: usize,
        host: usize,
    },
    Heard {
        asker: usize,
        host: usize,
    },
    Answers {
        asker: usize,
        host: usize,
    },
    /// The report is at the host's broker, was taken by it, crossed to the controller's node.
    Reported {
        asker: usize,
        host: usize,
    },
    Taken {
        asker: usize,
        host: usize,
    },
    /// The shovel is done with it; the line is; it is at the centre; the centre took it; the confirm is back.
    Shovelled {
        asker: usize,
        site: usize,
    },
    Crossed {
        asker: usize,
        site: usize,
    },
    AtCenter {
        asker: usize,
        site: usize,
    },
    Received {
        asker: usize,
        site: usize,
    },
    Confirmed {
        site: usize,
    },
    /// The reply queue is done with it, it reached the controller, was verified, and acknowledged.
    Written {
        asker: usize,
    },
    Read {
        asker: usize,
    },
    Verified {
        asker: usize,
    },
    Acknowledged {
        asker: usize,
    },
    /// Work that nothing follows.
    Nothing,
}

/// Messages behind a process that may have only so many on their way.
#[derive(Debug)]
struct Window {
    free: usize,
    waiting: std::collections::VecDeque<usize>,
    waiting_most: usize,
}

impl Window {
    fn new(size: usize) -> Self {
        Self { free: size.max(1), waiting: std::collections::VecDeque::new(), waiting_most: 0 }
    }

    /// Whether it may go on now; it waits otherwise.
    fn enter(&mut self, message: usize) -> bool {
        if self.free > 0 {
            self.free -= 1;
            return true;
        }
        self.waiting.push_back(message);
        self.waiting_most = self.waiting_most.max(self.waiting.len());
        false
    }

    /// The one that takes the place that has become free.
    fn leave(&mut self) -> Option<usize> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.free += 1;
        }
        next
    }
}

struct Site {
    machine: MachineId,
    router: ProcessId,
    shovel: ProcessId,
    line: ProcessId,
    reader: ProcessId,
    window: Window,
}

struct Asker {
    node: usize,
    router: ProcessId,
    queue: ProcessId,
    verifier: ProcessId,
    window: Window,
    missing: usize,
    wave: usize,
}

struct Model<'a> {
    engine: Engine<Step>,
    constants: &'a Constants,
    shape: &'a Shape,
    nodes: Vec<MachineId>,
    sites: Vec<Site>,
    askers: Vec<Asker>,
    answered_at: Vec<Nanoseconds>,
}

/// Plays a question from the beginning to the last answer.
#[must_use]
pub fn play(shape: &Shape, constants: &Constants) -> Outcome {
    let mut model = Model::new(shape, constants);
    for asker in 0..model.askers.len() {
        model.ask(asker);
    }
    while let Some(step) = model.engine.advance() {
        model.step(step);
    }
    model.outcome()
}

impl<'a> Model<'a> {
    fn new(shape: &'a Shape, constants: &'a Constants) -> Self {
        let mut engine = Engine::default();
        let (nodes, cores, site_count, site_cores) = match shape.layout {
            Layout::Together { cores } => (1, cores, 0, 0),
            Layout::Cluster { nodes, cores } => (nodes.max(1), cores, 0, 0),
            Layout::Sites { sites, site_cores, center_cores } => (1, center_cores, sites.max(1), site_cores),
        };
        let nodes: Vec<MachineId> = (0..nodes).map(|node| engine.machine(format!("broker {node}"), cores)).collect();
        let sites = (0..site_count)
            .map(|site| {
                let machine = engine.machine(format!("site {site}"), site_cores);
                // The line is nobody's core.
                let line = engine.machine(format!("line {site}"), 1);
                Site {
                    machine,
                    router: engine.process(format!("site {site}: channel of the link"), machine),
                    shovel: engine.process(format!("site {site}: shovel"), machine),
                    line: engine.process(format!("site {site}: line"), line),
                    reader: engine.process(format!("centre: connection of site {site}"), nodes[0]),
                    window: Window::new(shape.prefetch),
                }
            })
            .collect();
        let askers = (0..shape.controllers.max(1))
            .map(|number| {
                let node = number % nodes.len();
                let machine = match shape.layout {
                    Layout::Together { .. } => nodes[0],
                    _ => engine.machine(format!("controller {number}"), 1),
                };
                Asker {
                    node,
                    router: engine.process(format!("channel of controller {number}"), nodes[node]),
                    queue: engine.process(format!("reply queue {number}"), nodes[node]),
                    verifier: engine.own_process(format!("controller {number}"), machine),
                    window: Window::new(shape.prefetch),
                    missing: 0,
                    wave: 0,
                }
            })
            .collect();
        Self { engine, constants, shape, nodes, sites, askers, answered_at: Vec::with_capacity(shape.hosts) }
    }

    /// Parts of the fleet: one for each controller and wave.
    fn parts(&self) -> usize {
        self.askers.len() * self.shape.waves.max(1)
    }

    /// The first host from `from` on that belongs to the part that is asked now.
    fn member(&self, asker: usize, from: usize) -> usize {
        let (parts, part) = (self.parts(), self.askers[asker].wave * self.askers.len() + asker);
        from + (part + parts - from % parts) % parts
    }

    /// The hosts of a site, or all.
    fn range(&self, site: Option<usize>) -> std::ops::Range<usize> {
        let (hosts, sites) = (self.shape.hosts, self.sites.len());
        match site {
            None => 0..hosts,
            Some(site) => site * hosts / sites..(site + 1) * hosts / sites,
        }
    }

    fn site_of(&self, host: usize) -> usize {
        // The inverse of `range`, whose bounds are rounded down.
        let site = host * self.sites.len() / self.shape.hosts.max(1);
        (site..self.sites.len()).find(|site| self.range(Some(*site)).contains(&host)).unwrap_or(site)
    }

    fn node_of(&self, host: usize) -> usize {
        host % self.nodes.len()
    }

    /// The machine of a host's broker.
    fn broker_of(&self, host: usize) -> MachineId {
        if self.sites.is_empty() { self.nodes[self.node_of(host)] } else { self.sites[self.site_of(host)].machine }
    }

    fn crosses_nodes(&self, asker: usize, host: usize) -> bool {
        self.sites.is_empty() && self.node_of(host) != self.askers[asker].node
    }

    fn ask(&mut self, asker: usize) {
        let first = self.member(asker, 0);
        self.askers[asker].missing = (first..self.shape.hosts).step_by(self.parts()).count();
        if self.askers[asker].missing == 0 {
            return self.next_wave(asker);
        }
        if self.sites.is_empty() {
            return self.route(asker, None, 0);
        }
        let takes = microseconds(self.constants.link_command_center_us);
        for site in 0..self.sites.len() {
            self.engine.work(self.askers[asker].router, takes, Step::Leaves { asker, site });
        }
    }

    fn next_wave(&mut self, asker: usize) {
        self.askers[asker].wave += 1;
        if self.askers[asker].wave < self.shape.waves {
            self.ask(asker);
        }
    }

    /// Routes to the next few hosts.
    fn route(&mut self, asker: usize, site: Option<usize>, from: usize) {
        let range = self.range(site);
        let first = self.member(asker, from.max(range.start));
        let members = (first..range.end).step_by(self.parts()).take(ROUTE_BATCH).count();
        if members == 0 {
            return;
        }
        let takes = microseconds(self.constants.route_us * count(members));
        let process = site.map_or(self.askers[asker].router, |site| self.sites[site].router);
        self.engine.work(process, takes, Step::Route { asker, site, next: first });
    }

    fn routed(&mut self, asker: usize, site: Option<usize>, first: usize) {
        let range = self.range(site);
        let mut next = range.end;
        let deliver = (self.constants.command_us - self.constants.route_us).max(0.0);
        for host in (first..range.end).step_by(self.parts()).take(ROUTE_BATCH) {
            let mut takes = deliver;
            if self.crosses_nodes(asker, host) {
                takes += self.constants.hop_us;
                let from = self.nodes[self.askers[asker].node];
                self.engine.work_anywhere(from, microseconds(self.constants.hop_us), Step::Nothing);
            }
            self.engine.work_anywhere(self.broker_of(host), microseconds(takes), Step::Delivered { asker, host });
            next = host + 1;
        }
        self.route(asker, site, next);
    }

    /// A part of a host's jitter that is always the same for the same host.
    fn jitter_us(&self, host: usize) -> f64 {
        let mixed = (host as u64 ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        f64::from(u32::try_from(mixed >> 32).unwrap_or(0)) / f64::from(u32::MAX) * self.shape.host_jitter_us
    }

    fn report_bytes(&self) -> f64 {
        self.constants.report_bytes + self.shape.output_bytes
    }

    /// What a report costs beyond one without output.
    fn more_us(&self, each_kib_us: f64) -> f64 {
        self.shape.output_bytes / 1_024.0 * each_kib_us
    }

    fn step(&mut self, step: Step) {
        let constants = self.constants;
        let host_latency = microseconds(self.shape.host_latency_us);
        let site_latency = microseconds(self.shape.site_latency_us);
        match step {
            Step::Route { asker, site, next } => self.routed(asker, site, next),
            Step::Leaves { asker, site } => {
                let line = constants.command_bytes / self.shape.site_bytes_per_second * 1e6;
                self.engine.pause(site_latency + microseconds(line), Step::Arrives { asker, site });
            }
            Step::Arrives { asker, site } => {
                let takes = microseconds(constants.link_command_site_us);
                let next = self.member(asker, self.range(Some(site)).start);
                self.engine.work(self.sites[site].router, takes, Step::Route { asker, site: Some(site), next });
            }
            Step::Delivered { asker, host } => self.engine.pause(host_latency, Step::Heard { asker, host }),
            Step::Heard { asker, host } => {
                if matches!(self.shape.layout, Layout::Together { .. }) {
                    let answers = Step::Answers { asker, host };
                    self.engine.work_anywhere(self.nodes[0], microseconds(constants.agent_us), answers);
                } else {
                    let thinks = microseconds(constants.agent_us + self.jitter_us(host));
                    self.engine.pause(thinks, Step::Answers { asker, host });
                }
            }
            Step::Answers { asker, host } => self.engine.pause(host_latency, Step::Reported { asker, host }),
            Step::Reported { asker, host } => {
                let own = if self.sites.is_empty() {
                    constants.report_us - constants.reply_queue_us
                } else {
                    constants.link_report_site_us - 1e6 / constants.link_reports_per_second
                };
                let hop = if self.crosses_nodes(asker, host) { constants.hop_us } else { 0.0 };
                let takes = microseconds(own.max(0.0) + hop + self.more_us(constants.report_kib_us));
                self.engine.work_anywhere(self.broker_of(host), takes, Step::Taken { asker, host });
            }
            Step::Taken { asker, host } => self.taken(asker, host),
            Step::Shovelled { asker, site } => {
                let takes = self.report_bytes() / self.shape.site_bytes_per_second * 1e6;
                self.engine.work(self.sites[site].line, microseconds(takes), Step::Crossed { asker, site });
            }
            Step::Crossed { asker, site } => self.engine.pause(site_latency, Step::AtCenter { asker, site }),
            Step::AtCenter { asker, site } => {
                let own = (constants.link_report_center_us - constants.reply_queue_us).max(0.0);
                let takes = microseconds(own + self.more_us(constants.report_kib_us));
                self.engine.work(self.sites[site].reader, takes, Step::Received { asker, site });
            }
            Step::Received { asker, site } => {
                self.engine.pause(site_latency, Step::Confirmed { site });
                self.engine.pause(0, Step::Written { asker });
            }
            Step::Confirmed { site } => {
                if let Some(asker) = self.sites[site].window.leave() {
                    self.shovel(asker, site);
                }
            }
            Step::Written { asker } => {
                let takes = microseconds(constants.reply_queue_us);
                if self.askers[asker].window.enter(asker) {
                    self.engine.work(self.askers[asker].queue, takes, Step::Read { asker });
                }
            }
            Step::Read { asker } => {
                let takes = microseconds(constants.controller_us + self.more_us(constants.controller_kib_us));
                self.engine.work(self.askers[asker].verifier, takes, Step::Verified { asker });
            }
            Step::Verified { asker } => {
                self.answered_at.push(self.engine.now());
                self.engine.pause(0, Step::Acknowledged { asker });
                self.askers[asker].missing -= 1;
                if self.askers[asker].missing == 0 {
                    self.next_wave(asker);
                }
            }
            Step::Acknowledged { asker } => {
                if self.askers[asker].window.leave().is_some() {
                    let takes = microseconds(constants.reply_queue_us);
                    self.engine.work(self.askers[asker].queue, takes, Step::Read { asker });
                }
            }
            Step::Nothing => {}
        }
    }

    /// A report that its host's broker has taken goes to the reply queue, or towards the centre.
    fn taken(&mut self, asker: usize, host: usize) {
        if self.sites.is_empty() {
            if self.crosses_nodes(asker, host) {
                let node = self.nodes[self.askers[asker].node];
                let takes = microseconds(self.constants.hop_us);
                self.engine.work_anywhere(node, takes, Step::Written { asker });
            } else {
                self.engine.pause(0, Step::Written { asker });
            }
            return;
        }
        let site = self.site_of(host);
        if self.sites[site].window.enter(asker) {
            self.shovel(asker, site);
        }
    }

    fn shovel(&mut self, asker: usize, site: usize) {
        let takes = microseconds(1e6 / self.constants.link_reports_per_second);
        self.engine.work(self.sites[site].shovel, takes, Step::Shovelled { asker, site });
    }

    fn outcome(mut self) -> Outcome {
        let (machines, processes) = self.engine.loads();
        let brokers: Vec<Load> = machines
            .into_iter()
            .filter(|load| load.name.starts_with("broker") || load.name.starts_with("site"))
            .collect();
        let mut busiest = processes;
        busiest.sort_by(|a, b| b.share.total_cmp(&a.share).then_with(|| a.name.cmp(&b.name)));
        busiest.truncate(3);
        self.answered_at.sort_unstable();
        let at = |percent: usize| {
            let index = (self.answered_at.len() * percent).div_ceil(100).saturating_sub(1);
            self.answered_at.get(index).map_or(0.0, |at| seconds(*at))
        };
        Outcome {
            answers: self.answered_at.len(),
            seconds: self.answered_at.last().map_or(0.0, |at| seconds(*at)),
            median_s: at(50),
            p99_s: at(99),
            broker_s: brokers.iter().map(|load| load.busy_s).sum(),
            brokers,
            busiest,
            waiting_most: self.askers.iter().map(|asker| asker.window.waiting_most).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests;
