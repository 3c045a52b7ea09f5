//! A discrete-event engine: machines with cores, processes that do one thing at a time, and pauses.
//!
//! A *job* needs a core of its machine for a time. Jobs of one *process* (an Erlang process: a queue, a channel, a link) are done
//! one after the other, in the order of their arrival, several of them while it has a core; jobs without a process wait for a core only. A core takes the jobs that
//! are ready in their order, those of the operating system's own processes first. That is all that decides: the same jobs always end at the same nanoseconds.
//!
//! The engine knows nothing of messages. A job carries a value of the caller's, which comes back when the job is done.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Nanoseconds since the beginning.
pub type Nanoseconds = u64;

/// How long a process keeps its core while it has something to do: about 4,000 of Erlang's reductions.
const SLICE_NS: Nanoseconds = 500_000;

/// A machine of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineId(usize);

/// A process of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId(usize);

#[derive(Debug)]
struct Machine {
    name: String,
    cores: usize,
    busy_cores: usize,
    /// Jobs of processes of their own first, then the others.
    ready: [VecDeque<usize>; 2],
    busy_ns: Nanoseconds,
}

#[derive(Debug)]
struct Process {
    name: String,
    machine: MachineId,
    own: bool,
    working: bool,
    /// What it has had of its slice.
    slice_ns: Nanoseconds,
    waiting: VecDeque<usize>,
    waiting_most: usize,
    busy_ns: Nanoseconds,
}

#[derive(Debug)]
struct Job<T> {
    machine: MachineId,
    process: Option<ProcessId>,
    takes_ns: Nanoseconds,
    value: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Done(usize),
    Passed(usize),
}

/// How busy a machine or a process was.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Its name.
    pub name: String,
    /// Seconds of work.
    pub busy_s: f64,
    /// Its part of what it could have done until the end: 1 is all.
    pub share: f64,
    /// Jobs that waited for it, at most. Nought for machines.
    pub waiting_most: usize,
}

/// The engine.
#[derive(Debug)]
pub struct Engine<T> {
    now: Nanoseconds,
    order: u64,
    machines: Vec<Machine>,
    processes: Vec<Process>,
    jobs: Vec<Option<Job<T>>>,
    free: Vec<usize>,
    events: BinaryHeap<Reverse<(Nanoseconds, u64, What)>>,
}

impl<T> Default for Engine<T> {
    fn default() -> Self {
        Self {
            now: 0,
            order: 0,
            machines: Vec::new(),
            processes: Vec::new(),
            jobs: Vec::new(),
            free: Vec::new(),
            events: BinaryHeap::new(),
        }
    }
}

impl<T> Engine<T> {
    /// Adds a machine. One without cores has one.
    pub fn machine(&mut self, name: impl Into<String>, cores: usize) -> MachineId {
        let name = name.into();
        self.machines.push(Machine { name, cores: cores.max(1), busy_cores: 0, ready: Default::default(), busy_ns: 0 });
        MachineId(self.machines.len() - 1)
    }

    /// Adds a process to a machine.
    pub fn process(&mut self, name: impl Into<String>, machine: MachineId) -> ProcessId {
        let name = name.into();
        let waiting = VecDeque::new();
        self.processes.push(Process {
            name,
            machine,
            own: false,
            slice_ns: 0,
            working: false,
            waiting,
            waiting_most: 0,
            busy_ns: 0,
        });
        ProcessId(self.processes.len() - 1)
    }

    /// Adds a process that is the operating system's own. Beside a broker with hundreds of jobs it has less than its fair share of
    /// the cores, so a fair system lets it go first.
    pub fn own_process(&mut self, name: impl Into<String>, machine: MachineId) -> ProcessId {
        let process = self.process(name, machine);
        self.processes[process.0].own = true;
        process
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Nanoseconds {
        self.now
    }

    /// Gives a process something to do.
    pub fn work(&mut self, process: ProcessId, takes_ns: Nanoseconds, value: T) {
        let machine = self.processes[process.0].machine;
        let job = self.keep(Job { machine, process: Some(process), takes_ns, value });
        let process = &mut self.processes[process.0];
        if process.working {
            process.waiting.push_back(job);
            process.waiting_most = process.waiting_most.max(process.waiting.len());
        } else {
            process.working = true;
            self.ready(job);
        }
    }

    /// Gives a machine something to do that waits for nothing but a core.
    pub fn work_anywhere(&mut self, machine: MachineId, takes_ns: Nanoseconds, value: T) {
        let job = self.keep(Job { machine, process: None, takes_ns, value });
        self.ready(job);
    }

    /// Gives the value back after a time in which nobody works: a way, or a pause.
    pub fn pause(&mut self, takes_ns: Nanoseconds, value: T) {
        let job = self.keep(Job { machine: MachineId(0), process: None, takes_ns, value });
        self.at(self.now + takes_ns, What::Passed(job));
    }

    /// The next value whose job is done or whose pause is over; none when nothing is left.
    pub fn advance(&mut self) -> Option<T> {
        let Reverse((at, _, what)) = self.events.pop()?;
        self.now = at;
        let (What::Done(index) | What::Passed(index)) = what;
        let job = self.jobs[index].take()?;
        self.free.push(index);
        if matches!(what, What::Done(_)) {
            self.finish(&job);
        }
        Some(job.value)
    }

    /// How busy the machines were until now, then the processes.
    #[must_use]
    pub fn loads(&self) -> (Vec<Load>, Vec<Load>) {
        let load = |name: &str, busy_ns: Nanoseconds, cores: usize, waiting_most: usize| Load {
            name: name.to_owned(),
            busy_s: seconds(busy_ns),
            share: seconds(busy_ns) / (seconds(self.now).max(1e-9) * count(cores)),
            waiting_most,
        };
        let machines = self.machines.iter().map(|it| load(&it.name, it.busy_ns, it.cores, 0)).collect();
        let processes = self.processes.iter().map(|it| load(&it.name, it.busy_ns, 1, it.waiting_most)).collect();
        (machines, processes)
    }

    fn keep(&mut self, job: Job<T>) -> usize {
        match self.free.pop() {
            Some(index) => {
                self.jobs[index] = Some(job);
                index
            }
            None => {
                self.jobs.push(Some(job));
                self.jobs.len() - 1
            }
        }
    }

    fn at(&mut self, at: Nanoseconds, what: What) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, what)));
    }

    fn ready(&mut self, job: usize) {
        let Some((machine, process)) = self.jobs[job].as_ref().map(|job| (job.machine, job.process)) else { return };
        let own = process.is_some_and(|process| self.processes[process.0].own);
        let machine = &mut self.machines[machine.0];
        if machine.busy_cores < machine.cores {
            machine.busy_cores += 1;
            self.start(job);
        } else {
            machine.ready[usize::from(!own)].push_back(job);
        }
    }

    fn start(&mut self, job: usize) {
        let Some(takes_ns) = self.jobs[job].as_ref().map(|job| job.takes_ns) else { return };
        self.at(self.now + takes_ns, What::Done(job));
    }

    fn finish(&mut self, job: &Job<T>) {
        self.machines[job.machine.0].busy_ns += job.takes_ns;
        if let Some(process) = job.process {
            let process = &mut self.processes[process.0];
            process.busy_ns += job.takes_ns;
            process.slice_ns += job.takes_ns;
            if process.slice_ns < SLICE_NS
                && let Some(next) = process.waiting.pop_front()
            {
                return self.start(next);
            }
            process.slice_ns = 0;
            match process.waiting.pop_front() {
                Some(next) => self.machines[job.machine.0].ready[usize::from(!process.own)].push_back(next),
                None => process.working = false,
            }
        }
        let machine = &mut self.machines[job.machine.0];
        machine.busy_cores -= 1;
        if let Some(next) = machine.ready.iter_mut().find_map(VecDeque::pop_front) {
            machine.busy_cores += 1;
            self.start(next);
        }
    }
}

/// Nanoseconds as seconds.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a day of nanoseconds is far below 2^52")]
pub fn seconds(time: Nanoseconds) -> f64 {
    time as f64 / 1e9
}

/// A number of things.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52")]
pub fn count(number: usize) -> f64 {
    number as f64
}

/// Microseconds as nanoseconds; what is negative or no number is nothing.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides")]
pub fn microseconds(time_us: f64) -> Nanoseconds {
    (time_us.clamp(0.0, 1e12) * 1_000.0).round() as Nanoseconds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each job is done, in order.
    fn run(mut engine: Engine<&'static str>) -> Vec<(&'static str, Nanoseconds)> {
        let mut done = Vec::new();
        while let Some(value) = engine.advance() {
            done.push((value, engine.now()));
        }
        done
    }

    #[test]
    fn a_process_does_one_thing_at_a_time_and_a_core_too() {
        let mut engine = Engine::default();
        let machine = engine.machine("m", 2);
        let (one, other) = (engine.process("one", machine), engine.process("other", machine));
        engine.work(one, 10, "one first");
        engine.work(one, 10, "one second");
        engine.work(other, 5, "other first");
        engine.work_anywhere(machine, 1, "waits for a core");
        engine.pause(3, "waits for nobody");
        let expected = [
            ("waits for nobody", 3),
            ("other first", 5),
            ("waits for a core", 6),
            ("one first", 10),
            ("one second", 20),
        ];
        assert_eq!(run(engine), expected);
    }

    #[test]
    fn one_core_does_all_the_work_there_is_and_nothing_else() {
        let mut engine = Engine::default();
        let machine = engine.machine("m", 1);
        let process = engine.process("p", machine);
        (0..100).for_each(|_| engine.work(process, 7, "p"));
        (0..100).for_each(|_| engine.work_anywhere(machine, 3, "m"));
        while engine.advance().is_some() {}
        assert_eq!(engine.now(), 1_000);
        let (machines, processes) = engine.loads();
        assert!((machines[0].share - 1.0).abs() < 1e-9 && (processes[0].share - 0.7).abs() < 1e-9);
        assert_eq!(processes[0].waiting_most, 99);
    }

    #[test]
    fn a_process_of_the_system_does_not_wait_behind_the_jobs_of_another() {
        let mut engine = Engine::default();
        let machine = engine.machine("m", 1);
        let own = engine.own_process("own", machine);
        (0..10).for_each(|_| engine.work_anywhere(machine, 10, "other"));
        engine.work(own, 1, "own");
        engine.work(own, 1, "own");
        assert_eq!(run(engine)[..4], [("other", 10), ("own", 11), ("own", 12), ("other", 22)]);
    }

    #[test]
    fn more_cores_help_jobs_and_not_a_process() {
        for (cores, jobs, process) in [(1, 1_000, 1_000), (4, 250, 1_000)] {
            let mut engine = Engine::default();
            let machine = engine.machine("m", cores);
            (0..100).for_each(|_| engine.work_anywhere(machine, 10, ""));
            assert_eq!(run(engine).last().unwrap().1, jobs);
            let mut engine = Engine::default();
            let machine = engine.machine("m", cores);
            let only = engine.process("p", machine);
            (0..100).for_each(|_| engine.work(only, 10, ""));
            assert_eq!(run(engine).last().unwrap().1, process);
        }
    }
}
