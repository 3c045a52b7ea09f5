//! Turns in a world of its own: threads that poll tasks in the order in which they were woken, and a clock that moves by
//! what they do.

use super::*;

/// What a task has to do.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Something all the time.
    Endless,
    /// So many microseconds, each time it is given something.
    Some(u64),
    /// As much as `Some`, and given it again as soon as it is done: never more than a slice at once.
    Again(u64),
}

#[derive(Debug)]
struct Task {
    standing: Standing,
    work: Work,
    left_us: u64,
    /// What it was polled for and did.
    served_us: u64,
    slices: usize,
}

/// The line of the threads.
type Woken = Arc<Mutex<VecDeque<usize>>>;

#[derive(Debug)]
struct Waker {
    task: usize,
    woken: Woken,
}

impl Wakes for Waker {
    fn wake(&self) {
        let mut woken = self.woken.lock().unwrap();
        if !woken.contains(&self.task) {
            woken.push_back(self.task);
        }
    }
}

struct World {
    turns: Turns<Waker>,
    tasks: Vec<Task>,
    woken: Woken,
    now_us: u64,
    /// Which task each thread is in, and until when.
    threads: Vec<Option<(usize, u64, u64, bool)>>,
    /// Tasks in the order in which they worked, and for how long.
    log: Vec<(usize, u64)>,
}

impl World {
    fn new(threads: usize) -> Self {
        Self {
            turns: Turns::new(threads),
            tasks: Vec::new(),
            woken: Woken::default(),
            now_us: 0,
            threads: vec![None; threads],
            log: Vec::new(),
        }
    }

    fn add(&mut self, user: &str, work: Work) -> usize {
        let task = self.tasks.len();
        let standing = self.turns.join(&user.into(), ConnectionId(task as u64));
        let left_us = match work {
            Work::Endless => u64::MAX,
            Work::Some(_) => 0,
            Work::Again(us) => us,
        };
        self.tasks.push(Task { standing, work, left_us, served_us: 0, slices: 0 });
        if left_us > 0 {
            self.waker(task).wake();
        }
        task
    }

    fn waker(&self, task: usize) -> Waker {
        Waker { task, woken: self.woken.clone() }
    }

    /// Gives a task that has nothing to do its work.
    fn give(&mut self, task: usize) {
        let Work::Some(us) = self.tasks[task].work else { panic!("it has work") };
        self.tasks[task].left_us = us;
        self.waker(task).wake();
    }

    /// Lets time pass until so many polls have worked.
    fn run(&mut self, polls: usize) {
        let until = self.log.len() + polls;
        while self.log.len() < until {
            self.step();
        }
    }

    fn step(&mut self) {
        // Whoever is done lets the next one have the thread.
        let free = self.threads.iter().position(Option::is_none);
        let woken = self.woken.lock().unwrap().pop_front();
        if let (Some(thread), Some(task)) = (free, woken) {
            return self.poll(thread, task);
        }
        if let Some(task) = woken {
            self.woken.lock().unwrap().push_front(task);
        }
        let busy = (0..self.threads.len()).filter_map(|thread| Some((self.threads[thread]?.1, thread)));
        let (until_us, thread) = busy.min().expect("somebody has something to do");
        self.now_us = until_us;
        self.done(thread);
    }

    fn poll(&mut self, thread: usize, task: usize) {
        let waker = self.waker(task);
        let it = &mut self.tasks[task];
        match it.standing.begin(&self.turns, self.now_us, || waker) {
            Begin::Wait => {}
            Begin::Yield => self.waker(task).wake(),
            Begin::Work => {
                // In rounds of a quarter of a slice, as long as it may.
                let mut slice = Slice::new(self.now_us);
                let mut used_us = 0;
                loop {
                    used_us += it.left_us.min(used_us + SLICE_US / 4) - used_us;
                    if used_us >= it.left_us || !slice.goes_on(self.now_us + used_us) {
                        break;
                    }
                }
                let has_more = used_us < it.left_us;
                it.left_us = if matches!(it.work, Work::Endless) { u64::MAX } else { it.left_us - used_us };
                self.threads[thread] = Some((task, self.now_us + used_us, used_us, has_more));
            }
        }
    }

    fn done(&mut self, thread: usize) {
        let Some((task, _, used_us, has_more)) = self.threads[thread].take() else { return };
        self.log.push((task, used_us));
        let waker = self.waker(task);
        let it = &mut self.tasks[task];
        it.served_us += used_us;
        it.slices += 1;
        let next = it.standing.end(&self.turns, used_us, has_more, self.now_us, || waker);
        if let Work::Again(us) = it.work
            && !has_more
        {
            it.left_us = us;
            return self.waker(task).wake();
        }
        if next == Next::Yield {
            self.waker(task).wake();
        }
    }

    fn served_us(&self, tasks: impl IntoIterator<Item = usize>) -> u64 {
        tasks.into_iter().map(|task| self.tasks[task].served_us).sum()
    }
}

#[test]
fn a_slice_is_a_millisecond_or_eight_rounds() {
    let mut slice = Slice::new(5_000);
    assert!(slice.goes_on(5_400) && slice.goes_on(6_000));
    assert!(!slice.goes_on(6_001), "a millisecond is over");
    let mut slice = Slice::new(0);
    let rounds = (1..100).take_while(|_| slice.goes_on(0)).count() + 1;
    assert_eq!(rounds, 8, "rounds that take no time at all");
}

#[test]
fn a_flood_over_eight_connections_does_not_keep_another_identity_from_its_turn() {
    for threads in [1, 2, 4] {
        for flood in [Work::Endless, Work::Again(900), Work::Again(30)] {
            let mut world = World::new(threads);
            (0..8).for_each(|_| {
                world.add("host/flood", flood);
            });
            let other = world.add("user/lea", Work::Some(60));
            world.run(500);
            for _ in 0..100 {
                world.give(other);
                let before = world.log.len();
                while world.log[before..].iter().all(|(task, _)| *task != other) {
                    world.step();
                }
                let ahead = world.log[before..].iter().take_while(|(task, _)| *task != other);
                let ahead_us: u64 = ahead.map(|(_, used_us)| used_us).sum();
                // Those that have a thread now, and those that have a place and stand before it: not all eight.
                let most_us = 2 * threads as u64 * (SLICE_US + SLICE_US / 4);
                assert!(ahead_us <= most_us, "{threads} threads, {flood:?}: {ahead_us} before it");
                world.run(7);
            }
        }
    }
}

#[test]
fn identities_with_much_to_do_get_the_same_however_many_connections_they_have() {
    for threads in [1, 2] {
        for flood in [Work::Endless, Work::Again(900)] {
            let mut world = World::new(threads);
            (0..8).for_each(|_| {
                world.add("host/flood", flood);
            });
            let lea = [world.add("user/lea", Work::Endless), world.add("user/lea", Work::Endless)];
            let max = [world.add("user/max", Work::Endless), world.add("user/max", Work::Endless)];
            world.run(200);
            let before = [world.served_us(0..8), world.served_us(lea), world.served_us(max)];
            world.run(3_000);
            let now = [world.served_us(0..8), world.served_us(lea), world.served_us(max)];
            let got: Vec<u64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
            let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
            assert!(most - least <= most / 10, "{threads} threads, {flood:?}: {got:?}");
            // And the connections of one identity among themselves.
            let slices: Vec<usize> = (0..8).map(|task| world.tasks[task].slices).collect();
            assert!(slices.iter().max().unwrap() - slices.iter().min().unwrap() <= 10, "{slices:?}");
        }
    }
}

#[test]
fn what_nobody_else_wants_one_identity_has_on_all_threads() {
    let mut world = World::new(2);
    (0..8).for_each(|_| {
        world.add("user/lea", Work::Endless);
    });
    world.run(2_000);
    let (now_us, served_us) = (world.now_us, world.served_us(0..8));
    assert!(served_us >= now_us * 2 - 4 * SLICE_US, "{served_us} of twice {now_us}");
}

#[test]
fn who_does_little_never_stands_in_the_line() {
    let mut world = World::new(2);
    // Ten thousand hosts that answer one after the other, and the controller that hears them all.
    let hosts: Vec<usize> = (0..1_000).map(|host| world.add(&format!("host/{host}"), Work::Some(60))).collect();
    let lea = world.add("user/lea", Work::Endless);
    for &host in &hosts {
        world.give(host);
        world.run(1);
        assert!(world.turns.queue().members.keys().all(|user| &**user == "user/lea"));
    }
    world.run(2_000);
    assert!(hosts.iter().all(|&host| world.tasks[host].slices == 1));
    assert!(world.tasks[lea].slices > 1_000);
}

#[test]
fn an_allowance_comes_back_with_time_and_nobody_saves_more_than_a_burst() {
    let allowance = Allowance::new("host/one".into());
    allowance.spend(3_999, 1_000_000);
    assert!(!allowance.is_used_up(1_000_000), "a burst");
    allowance.spend(1, 1_000_000);
    assert!(allowance.is_used_up(1_000_000));
    assert!(allowance.is_used_up(1_000_015));
    assert!(!allowance.is_used_up(1_000_016), "a sixteenth of the time since");
    // However long one was in debt, it is not longer than for a burst.
    allowance.spend(1_000_000, 1_000_016);
    assert!(allowance.is_used_up(1_000_016 + 63_999) && !allowance.is_used_up(1_000_016 + 64_100));
}

#[test]
fn who_is_gone_gives_its_place_and_its_turn_away() {
    let mut world = World::new(1);
    let tasks: Vec<usize> = (0..3).map(|_| world.add("host/one", Work::Endless)).collect();
    world.run(20);
    assert_eq!(world.turns.queue().holders.len(), 1);
    // All but one, whoever has the place.
    for &task in &tasks[..2] {
        for thread in &mut world.threads {
            thread.take_if(|it| it.0 == task);
        }
        world.woken.lock().unwrap().retain(|woken| *woken != task);
        world.turns.leave(&world.tasks[task].standing);
    }
    let before = world.tasks[2].slices;
    world.run(10);
    assert_eq!(world.tasks[2].slices, before + 10);
    let last = world.tasks.pop().unwrap();
    world.tasks.clear();
    world.turns.leave(&last.standing);
    let queue = world.turns.queue();
    assert_eq!((queue.holders.len(), queue.members.len(), queue.order.len()), (0, 0, 0));
    drop(queue);
    assert!(world.turns.allowances.lock().unwrap().is_empty());
}
