//! The scenarios and the quantities that are measured, each with its words, in one table each.

use serde::{Deserialize, Serialize};

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// Everybody is asked, everybody answers.
    Ping,
    /// A run on the tenth of the hosts that match an expression.
    Filter,
    /// A run with 1 KiB of output from everybody.
    Run1k,
    /// A run with 64 KiB of output from everybody.
    Run64k,
    /// A run on hosts by name.
    Named,
    /// Two controllers ask everybody at the same time.
    Two,
    /// The full ping again, beside an echo written with lapin.
    Lapin,
    /// All agents connect at once.
    Storm,
    /// Processor time of the program `muster` for each reply.
    Cpu,
    /// One agent with nothing to do.
    Idle,
    /// The program `muster` as typed, with five hosts.
    Few,
}

impl Scenario {
    /// All, in the order in which they are run and shown.
    pub const ALL: [Self; 11] = [
        Self::Ping,
        Self::Filter,
        Self::Run1k,
        Self::Run64k,
        Self::Named,
        Self::Two,
        Self::Lapin,
        Self::Storm,
        Self::Cpu,
        Self::Idle,
        Self::Few,
    ];

    /// Its word on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().0
    }

    /// A few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().1
    }

    /// What happens in it.
    #[must_use]
    pub fn description(self) -> &'static str {
        self.row().2
    }

    /// What the raw baseline does in it.
    #[must_use]
    pub fn baseline(self) -> &'static str {
        self.row().3
    }

    /// Whether it needs a fleet. The others have their own few agents.
    #[must_use]
    pub fn needs_fleet(self) -> bool {
        !matches!(self, Self::Idle | Self::Few)
    }

    /// Whether rounds of Muster and of the raw echo are compared in it.
    #[must_use]
    pub fn has_exchange(self) -> bool {
        self.needs_fleet() && !matches!(self, Self::Storm | Self::Cpu)
    }

    /// Reads its word.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.word() == word)
    }

    fn row(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Ping => (
                "ping",
                "full ping",
                "One signed broadcast of `host.ping`; every host verifies it, asks its policy, writes its journal and audit log, and answers signed; the controller verifies every answer.",
                "One broadcast, an echo from every host.",
            ),
            Self::Filter => (
                "filter",
                "filtered run, 10 %",
                "What `muster run -t` does: a broadcast with an expression over facts that is true on a tenth of the hosts, then a run on those by name. Both steps together.",
                "A broadcast that a tenth echoes, then messages to that tenth and their echoes.",
            ),
            Self::Run1k => (
                "run-1k",
                "1 KiB from all",
                "A run on all hosts by name, of which each writes 1 KiB of output.",
                "A message to each host, and an echo of as many bytes as the host's reports had.",
            ),
            Self::Run64k => (
                "run-64k",
                "64 KiB from all",
                "A run on all hosts by name, of which each writes 64 KiB of output. Also once with the program `muster` itself, for its memory.",
                "A message to each host, and an echo of as many bytes as the host's reports had.",
            ),
            Self::Named => (
                "named",
                "100 named hosts",
                "A run on 100 hosts by name (on a tenth, where there are fewer than 1,000).",
                "A message to each of them, and their echoes.",
            ),
            Self::Two => (
                "two",
                "two controllers",
                "Two controllers, each a process, ping everybody at the same time; both must have all answers.",
                "Two echo controllers at the same time.",
            ),
            Self::Lapin => (
                "lapin",
                "full ping, beside lapin",
                "The full ping once more.",
                "The same echo written in the plainest way with lapin, the library that Muster stands on, at both ends.",
            ),
            Self::Storm => (
                "storm",
                "connect storm",
                "All agents connect at once to a running broker: TLS with certificates on both sides, login, declare, bind, consume.",
                "As many bare AMQP connections over TLS that declare, bind and consume. What the broker holds for each is looked at, too.",
            ),
            Self::Cpu => (
                "cpu",
                "processor time a reply",
                "The program `muster ping` of everybody, as a process: its processor time, less that of `muster ping` of one host, divided by the answers between.",
                "None.",
            ),
            Self::Idle => (
                "idle",
                "idle agent",
                "One real `musterd` with nothing to do: proportional memory, processor time and bytes on its connection.",
                "None.",
            ),
            Self::Few => (
                "few",
                "ping of five hosts",
                "The program `muster ping` as typed, with five real `musterd`: from the start of the process to the first byte on standard output and to its end.",
                "None.",
            ),
        }
    }
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Microseconds of processor time.
    Us,
    /// Bytes.
    Bytes,
    /// Connections a second.
    PerSecond,
    /// A plain number.
    Count,
}

impl Unit {
    /// A number with its unit, for people: three significant digits.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Ms if value >= 10_000.0 => format!("{} s", digits(value / 1_000.0)),
            Self::Ms => format!("{} ms", digits(value)),
            Self::Us if value >= 10_000.0 => format!("{} ms", digits(value / 1_000.0)),
            Self::Us => format!("{} µs", digits(value)),
            Self::Bytes if value >= 1e9 => format!("{} GB", digits(value / 1e9)),
            Self::Bytes if value >= 1e6 => format!("{} MB", digits(value / 1e6)),
            Self::Bytes if value >= 1e4 => format!("{} kB", digits(value / 1e3)),
            Self::Bytes => format!("{value:.0} B"),
            Self::PerSecond => format!("{}/s", digits(value)),
            Self::Count if value.fract() == 0.0 => thousands(&format!("{value:.0}")),
            Self::Count => digits(value),
        }
    }
}

/// Three significant digits, no exponent, thousands apart.
#[must_use]
pub fn digits(value: f64) -> String {
    let magnitude = value.abs();
    let text = if magnitude >= 99.95 || value == 0.0 {
        format!("{value:.0}")
    } else if magnitude >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    thousands(&text)
}

/// Commas between the thousands of a written number.
fn thousands(text: &str) -> String {
    let (whole, rest) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut apart = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    let rest = rest.map(|rest| format!(".{rest}")).unwrap_or_default();
    format!("{sign}{apart}{rest}")
}

macro_rules! quantities {
    ($($(#[$doc:meta])* $name:ident, $unit:ident, $label:literal;)*) => {
        /// What is measured, once in each round.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Quantity {
            $($(#[$doc])* $name,)*
        }

        impl Quantity {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Unit and a few words.
            #[must_use]
            pub fn words(self) -> (Unit, &'static str) {
                match self {
                    $(Self::$name => (Unit::$unit, $label),)*
                }
            }
        }
    };
}

quantities! {
    /// From sending until the last answer is verified.
    CompleteMs, Ms, "until all answers are verified";
    /// From sending until the client library says that it is over.
    EndedMs, Ms, "until the question ends";
    /// The raw echo: from sending until the last answer is there.
    RawCompleteMs, Ms, "raw echo";
    /// Processor time of the controller for each reply, in a session that is open already.
    ControllerUs, Us, "controller, a reply";
    /// Processor time of all agents together for each reply.
    AgentsUs, Us, "agents, a reply";
    /// Processor time of the raw hosts and their controller, which are one thread.
    RawOwnUs, Us, "raw hosts and controller, a reply";
    /// Processor time of the broker for each reply.
    BrokerUs, Us, "broker, a reply";
    /// The same in the raw round.
    RawBrokerUs, Us, "broker, a raw reply";
    /// Most memory that the controller's process held.
    ControllerPeakBytes, Bytes, "controller's memory, peak";
    /// Memory of the process with all agents.
    FleetBytes, Bytes, "memory of all agents";
    /// Memory of the broker with everybody connected.
    BrokerBytes, Bytes, "memory of the broker";
    /// Memory of the broker for each raw connection with its queue, with nothing to do.
    ConnectionBytes, Bytes, "memory of the broker, a raw connection";
    /// Body and signatures of one command.
    CommandBytes, Bytes, "a command";
    /// Body and signatures of all reports of one host.
    ReplyBytes, Bytes, "the reports of a host";
    /// Reports of one host.
    Reports, Count, "reports of a host";
    /// Agents that came to take commands, in a second.
    ReadyPerSecond, PerSecond, "agents ready";
    /// Raw connections that came to consume, in a second.
    RawReadyPerSecond, PerSecond, "raw connections ready";
    /// Until the program `muster` ended.
    ProgramMs, Ms, "the program, whole";
    /// Processor time of the program for each reply, start-up taken off.
    ProgramUs, Us, "the program, a reply";
    /// Processor time of the program with one host: what is taken off.
    ProgramStartUs, Us, "the program's start";
    /// Most memory that the program held.
    ProgramPeakBytes, Bytes, "the program's memory, peak";
    /// Proportional memory of the idle agent.
    IdlePssBytes, Bytes, "proportional memory";
    /// The same after it has collected facts and announced itself once more.
    IdleRefreshedPssBytes, Bytes, "proportional memory, after an announcement";
    /// What only the idle agent has.
    IdlePrivateBytes, Bytes, "of that, written to and its own";
    /// Processor time of the idle agent in a minute, with its share of what happens less often.
    IdleUsPerMinute, Us, "processor time a minute";
    /// Times that the idle agent woke up in a minute.
    IdleWakeUpsPerMinute, Count, "wake-ups a minute";
    /// Bytes of TLS in both directions in a minute.
    IdleTlsPerMinute, Bytes, "TLS a minute, both ways";
    /// The same with the headers of TCP and IP.
    IdleWirePerMinute, Bytes, "on the wire a minute, both ways";
    /// Size of the program `musterd`.
    AgentBinaryBytes, Bytes, "binary";
    /// `muster ping --all`, hosts known from before: first byte.
    WarmFirstByteMs, Ms, "`--all`, warm: first byte";
    /// `muster ping --all`, hosts known from before: end.
    WarmExitMs, Ms, "`--all`, warm: end";
    /// `muster ping -H` with five names: first byte.
    NamedFirstByteMs, Ms, "`-H`: first byte";
    /// `muster ping -H` with five names: end.
    NamedExitMs, Ms, "`-H`: end";
    /// `muster ping --all`, nothing known and no file in the page cache: first byte.
    ColdFirstByteMs, Ms, "`--all`, cold: first byte";
    /// `muster ping --all`, nothing known and no file in the page cache: end.
    ColdExitMs, Ms, "`--all`, cold: end";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let cases: &[(Unit, f64, &str)] = &[
            (Unit::Ms, 0.0, "0 ms"),
            (Unit::Ms, 1.234, "1.23 ms"),
            (Unit::Ms, 12.34, "12.3 ms"),
            (Unit::Ms, 9.999, "10.0 ms"),
            (Unit::Ms, 123.4, "123 ms"),
            (Unit::Ms, 1_234.5, "1,234 ms"),
            (Unit::Ms, 12_345.0, "12.3 s"),
            (Unit::Us, 39.94, "39.9 µs"),
            (Unit::Us, 12_000.0, "12.0 ms"),
            (Unit::Bytes, 412.0, "412 B"),
            (Unit::Bytes, 65_536.0, "65.5 kB"),
            (Unit::Bytes, 4_990_000.0, "4.99 MB"),
            (Unit::Bytes, 2.5e9, "2.50 GB"),
            (Unit::PerSecond, 1_250.0, "1,250/s"),
            (Unit::Count, 5.0, "5"),
            (Unit::Count, 50.0, "50"),
            (Unit::Count, 0.5, "0.50"),
            (Unit::Count, 1_234_567.0, "1,234,567"),
            (Unit::Count, -1_234.0, "-1,234"),
        ];
        for (unit, value, expected) in cases {
            assert_eq!(unit.show(*value), *expected);
        }
    }

    #[test]
    fn every_scenario_is_found_by_its_word() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::read(scenario.word()), Some(scenario));
        }
        assert_eq!(Scenario::read("pong"), None);
    }
}
