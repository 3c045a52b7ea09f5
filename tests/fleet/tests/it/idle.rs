//! One real agent that waits is measured.

use std::time::Duration;

use muster_fleet::BrokerKind;
use muster_fleet::idle::{IdleOptions, measure};

on_both_brokers!(an_idle_agent_is_measured_by_what_the_kernel_says_of_it);

async fn an_idle_agent_is_measured_by_what_the_kernel_says_of_it(broker: BrokerKind) {
    let program = muster_tests::programs::program("musterd").unwrap();
    let seconds = Duration::from_secs;
    let options = IdleOptions { broker, settle: seconds(6), window: seconds(5), ..IdleOptions::new(program.clone()) };
    let idle = tokio::task::block_in_place(|| measure(&options)).unwrap();
    assert_eq!(idle.program_bytes, std::fs::metadata(&program).unwrap().len());
    for memory in [&idle.memory, &idle.memory_peak, &idle.memory_after_refresh] {
        assert!(memory.pss_bytes <= memory.alone_bytes && memory.private_dirty_bytes > 0, "{idle:#?}");
        assert!(memory.of.program_bytes > 0 && memory.of.heap_bytes > 0, "{idle:#?}");
    }
    assert!(idle.threads > 1 && idle.processor_us_per_minute > 0.0 && idle.wakeups_per_minute > 0.0, "{idle:#?}");
    // The announcement went out, is larger than any heartbeat, and was acknowledged.
    let announced = &idle.refresh.wire;
    assert!(announced.sent_bytes > 200 && announced.received_segments > 0, "{idle:#?}");
    assert!(idle.tls_bytes_per_minute < idle.wire_bytes_per_minute, "{idle:#?}");

    let long = IdleOptions { window: seconds(300), ..options };
    assert!(measure(&long).unwrap_err().to_string().contains("at most"));
}
