//! Results that were never measured, to try tables and charts on.

use muster_fleet::BrokerKind;

use super::{Machine, Outcome, Quantity, Results, Run, SCHEMA, Scenario};

/// A machine of no consequence.
pub(crate) fn sample_machine() -> Machine {
    Machine {
        processors: 2,
        processor: "A processor".to_owned(),
        memory_bytes: 24 << 30,
        kernel: "Linux 6.1".to_owned(),
        system: "Debian GNU/Linux 12".to_owned(),
        rabbitmq: Some("3.10.8".to_owned()),
        erlang: Some("25".to_owned()),
    }
}

/// A run of no consequence.
pub(crate) fn sample_run() -> Run {
    Run {
        taken_at: "2026-01-02T03:04:05Z".to_owned(),
        load_before: [0.25, 0.5, 1.0],
        version: "0.1.0".to_owned(),
        revision: Some("0123456789ab".to_owned()),
        profile: "release".to_owned(),
        programs_profile: "dist".to_owned(),
        rounds: 3,
        warm_ups: 1,
    }
}

/// Every scenario with 100 and 1,000 hosts where hosts matter, every quantity somewhere, on both brokers.
pub(crate) fn sample_results() -> Results {
    let mut results = Results::new(sample_machine(), sample_run());
    assert_eq!(results.schema, SCHEMA);
    for broker in BrokerKind::ALL {
        // A broker that takes half the time.
        let factor = if broker == BrokerKind::RabbitMq { 1.0 } else { 0.5 };
        for hosts in [100_usize, 1_000] {
            sample_fleet(&mut results, broker, hosts, factor);
        }
        sample_small(&mut results, broker);
    }
    results
}

fn sample_fleet(results: &mut Results, broker: BrokerKind, hosts: usize, factor: f64) {
    use Quantity as Q;
    let scale = if hosts == 100 { 1.0 } else { 10.0 };
    for scenario in [
        Scenario::Ping,
        Scenario::Filter,
        Scenario::Run1k,
        Scenario::Run64k,
        Scenario::Named,
        Scenario::Two,
        Scenario::Lapin,
    ] {
        let mut outcome = Outcome::new(scenario, hosts, broker);
        for round in [1.0, 0.9, 1.2] {
            outcome.add(Q::CompleteMs, 12.0 * scale * round * factor);
            outcome.add(Q::EndedMs, 32.0 * scale * round * factor);
            outcome.add(Q::RawCompleteMs, 10.0 * scale * round * factor);
            outcome.add(Q::ControllerUs, 50.0 * round);
            outcome.add(Q::RawOwnUs, 60.0 * round);
            outcome.add(Q::AgentsUs, 400.0 * round);
            outcome.add(Q::BrokerUs, 300.0 * round * factor);
            outcome.add(Q::RawBrokerUs, 250.0 * round * factor);
            outcome.add(Q::ControllerPeakBytes, 2e7);
        }
        outcome.add(Q::CommandBytes, 700.0);
        outcome.add(Q::ReplyBytes, 1_500.0);
        outcome.add(Q::Reports, 1.0);
        if scenario == Scenario::Run64k {
            outcome.add(Q::ProgramPeakBytes, 30e6 * scale);
        }
        results.put(outcome);
    }
    let mut storm = Outcome::new(Scenario::Storm, hosts, broker);
    storm.add(Q::ReadyPerSecond, 80.0 / factor);
    storm.add(Q::RawReadyPerSecond, 100.0 / factor);
    storm.add(Q::ConnectionBytes, 70e3 * factor);
    results.put(storm);
    let mut cpu = Outcome::new(Scenario::Cpu, hosts, broker);
    cpu.add(Q::ProgramUs, 39.0);
    cpu.add(Q::ProgramStartUs, 20_000.0);
    results.put(cpu);
}

fn sample_small(results: &mut Results, broker: BrokerKind) {
    use Quantity as Q;
    let mut idle = Outcome::new(Scenario::Idle, 1, broker);
    for (quantity, sample) in [
        (Q::IdlePssBytes, 4.9e6),
        (Q::IdlePrivateBytes, 4.1e6),
        (Q::IdleUsPerMinute, 900.0),
        (Q::IdleWakeUpsPerMinute, 12.0),
        (Q::IdleRefreshedPssBytes, 5.1e6),
        (Q::IdleTlsPerMinute, 170.0),
        (Q::IdleWirePerMinute, 900.0),
        (Q::AgentBinaryBytes, 7.5e6),
    ] {
        idle.add(quantity, sample);
    }
    results.put(idle);
    let mut few = Outcome::new(Scenario::Few, 5, broker);
    for (quantity, sample) in [
        (Q::WarmFirstByteMs, 50.0),
        (Q::WarmExitMs, 55.0),
        (Q::NamedFirstByteMs, 30.0),
        (Q::NamedExitMs, 61.0),
        (Q::ColdFirstByteMs, 2_020.0),
        (Q::ColdExitMs, 2_050.0),
    ] {
        few.add(quantity, sample);
    }
    results.put(few);
}
