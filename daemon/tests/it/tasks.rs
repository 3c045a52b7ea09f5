use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use muster_daemon::{TaskKind, Tasks};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_tasks_that_stop_by_themselves() {
    let tasks = Tasks::new();
    let stopped = Arc::new(AtomicU32::new(0));
    for name in ["one", "one", "two"] {
        let (stopping, stopped) = (tasks.stopping().clone(), Arc::clone(&stopped));
        tasks.spawn(TaskKind::Worker, name, async move {
            stopping.cancelled().await;
            tokio::time::sleep(Duration::from_secs(7)).await;
            stopped.fetch_add(1, Ordering::SeqCst);
        });
    }
    assert_eq!(tasks.running(), ["one", "two"]);
    assert!(tasks.shutdown(Duration::from_secs(20)).await.is_empty());
    assert_eq!(stopped.load(Ordering::SeqCst), 3);
    assert!(tasks.running().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_names_and_drops_those_that_do_not_stop() {
    struct OnDrop(Arc<AtomicU32>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let tasks = Tasks::new();
    let dropped = Arc::new(AtomicU32::new(0));
    let guard = OnDrop(Arc::clone(&dropped));
    tasks.spawn(TaskKind::Critical, "stubborn", async move {
        let _guard = guard;
        tokio::time::sleep(LONG).await;
    });
    let stopping = tasks.stopping().clone();
    tasks.spawn(TaskKind::Worker, "polite", async move { stopping.cancelled().await });
    assert_eq!(tasks.shutdown(Duration::from_secs(12)).await, ["stubborn"]);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert!(tasks.running().is_empty());
}

#[tokio::test]
async fn a_panic_in_a_critical_task_stops_everything() {
    let tasks = Tasks::new();
    tasks.spawn(TaskKind::Critical, "heart", async { panic!("broken") });
    tokio::time::timeout(LONG, tasks.stopping().cancelled()).await.unwrap();
    assert_eq!(tasks.failed(), Some("heart"));
    assert!(tasks.shutdown(LONG).await.is_empty());
}

#[tokio::test]
async fn a_panic_in_a_worker_ends_only_the_worker() {
    let tasks = Tasks::new();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    tasks.spawn(TaskKind::Worker, "panics", async { panic!("broken") });
    tasks.spawn(TaskKind::Worker, "works", async move { sender.send(()).unwrap() });
    receiver.await.unwrap();
    while !tasks.running().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tasks.failed(), None);
    assert!(!tasks.stopping().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_child_stops_with_its_parent_and_alone() {
    let parent = Tasks::new();
    let (first, second) = (parent.child(), parent.child());
    for child in [&first, &second] {
        let stopping = child.stopping().clone();
        child.spawn(TaskKind::Worker, "inner", async move { stopping.cancelled().await });
    }
    assert!(first.shutdown(LONG).await.is_empty());
    assert!(!parent.stopping().is_cancelled() && !second.stopping().is_cancelled());
    parent.stop();
    assert!(second.stopping().is_cancelled());
    assert!(second.shutdown(LONG).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_does_nothing_more() {
    let tasks = Tasks::new();
    let steps = Arc::new(AtomicU32::new(0));
    for _ in 0..3 {
        let steps = steps.clone();
        tasks.spawn(TaskKind::Critical, "step", async move {
            loop {
                steps.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(steps.load(Ordering::SeqCst), 6);
    // Also those whose turn it is just now.
    tokio::time::advance(Duration::from_millis(500)).await;
    let before = steps.load(Ordering::SeqCst);
    tasks.kill();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(steps.load(Ordering::SeqCst), before);
    assert_eq!(tasks.running(), Vec::<&str>::new());
}
