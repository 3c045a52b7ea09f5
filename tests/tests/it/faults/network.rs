//! The network between the broker and everybody else is cut: a network namespace of the test's own, one cable to it, and
//! a neighbour whose address is made wrong, so that packets go out and nobody takes them. Nothing on either side is told,
//! as with a firewall or a switch that dies.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use muster_tests::programs::AgentProcess;

use super::broker::Broken;
use super::lab::{Begun, HOST, ends, eventually, id_and_code};

/// With this variable, a machine that lets nobody make network namespaces leaves the tests out, and says so.
const WITHOUT: &str = "MUSTER_TEST_WITHOUT_NETWORK_NAMESPACES";

/// An address that nobody has.
const NOBODY: &str = "02:00:00:00:00:66";

fn ip(words: &str) -> Result<(), String> {
    let output =
        Command::new("/usr/sbin/ip").args(words.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {words}: {said}")) }
}

/// A namespace with a cable to the broker's side, where `localhost` is the broker's end of it.
struct Net {
    name: String,
    near: String,
    far: String,
    /// First three bytes of both ends' addresses; the broker has 1, the other 2.
    subnet: String,
}

/// Which way packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Both,
    ToBroker,
    FromBroker,
}

impl Net {
    /// `None` where the machine does not let one be made and that is allowed.
    #[expect(clippy::print_stdout, reason = "what is left out is said loudly")]
    fn new() -> Option<Self> {
        let number: u16 = rand::random();
        let net = Self {
            name: format!("muster-{number:04x}"),
            near: format!("mn{number:04x}"),
            far: format!("mf{number:04x}"),
            subnet: format!("10.{}.{}", 100 + (number >> 8) % 100, number & 0xff),
        };
        match net.make() {
            Ok(()) => Some(net),
            Err(why) if std::env::var_os(WITHOUT).is_some() => {
                println!("NOT TESTED, as {WITHOUT} is set: {why}");
                None
            }
            Err(why) => panic!(
                "a network namespace cannot be made (root and iproute2 are needed; {WITHOUT}=1 leaves this out): {why}"
            ),
        }
    }

    fn make(&self) -> Result<(), String> {
        let Self { name, near, far, subnet } = self;
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {near} type veth peer name {far} netns {name}"))?;
        ip(&format!("addr add {subnet}.1/24 dev {near}"))?;
        ip(&format!("-n {name} addr add {subnet}.2/24 dev {far}"))?;
        ip(&format!("link set {near} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set {far} up"))?;
        // `ip netns exec` puts it over `/etc/hosts`, so that the broker's certificate fits.
        fs::create_dir_all(self.files()).map_err(|error| error.to_string())?;
        fs::write(self.files().join("hosts"), format!("{subnet}.1 localhost\n")).map_err(|error| error.to_string())
    }

    fn files(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    fn wrapper(&self) -> [&str; 4] {
        ["/usr/sbin/ip", "netns", "exec", &self.name]
    }

    fn cut(&self, cut: Cut) {
        let Self { name, near, far, subnet } = self;
        if cut != Cut::FromBroker {
            ip(&format!("-n {name} neigh replace {subnet}.1 lladdr {NOBODY} dev {far} nud permanent")).unwrap();
        }
        if cut != Cut::ToBroker {
            ip(&format!("neigh replace {subnet}.2 lladdr {NOBODY} dev {near} nud permanent")).unwrap();
        }
    }

    fn mend(&self) {
        let Self { name, near, far, subnet } = self;
        // Only those that were made wrong are there to be removed.
        drop(ip(&format!("-n {name} neigh del {subnet}.1 dev {far}")));
        drop(ip(&format!("neigh del {subnet}.2 dev {near}")));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(ip(&format!("link del {}", self.near)));
        drop(ip(&format!("netns del {}", self.name)));
        drop(fs::remove_dir_all(self.files()));
    }
}

/// The lab with its agent and its command lines behind the cable.
struct Behind {
    broken: Broken,
    net: Net,
}

impl Behind {
    fn new() -> Option<Self> {
        let net = Net::new()?;
        let mut broken = Broken::new();
        broken.lab.agent.stop().unwrap();
        let near = format!("{}.1:{}", net.subnet, broken.broker().port());
        broken.broker().listen_also(near.parse().unwrap()).unwrap();
        let folder = broken.lab.agent.folder().to_owned();
        broken.lab.agent = AgentProcess::start_under(HOST.parse().unwrap(), &folder, &net.wrapper()).unwrap();
        broken.lab.agent.wait_ready().unwrap();
        Some(Self { broken, net })
    }

    fn begin_run(&self, action: &str, until: &str) -> Begun {
        let until = format!("until={until}");
        let words = ["run", action, "-H", HOST, "--jsonl", "--reply-timeout", "100s", &until];
        let known = self.broken.lab.lea.command(&words).unwrap();
        let [ip, wrapper @ ..] = self.net.wrapper();
        let mut command = Command::new(ip);
        command.args(wrapper).arg(known.get_program()).args(known.get_args()).env_clear();
        command.envs(known.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(std::process::Stdio::null());
        Begun::new(command, &words)
    }

    #[track_caller]
    fn check_ends_well(&self, run: Begun) {
        let finished = run.finish();
        let what = format!("{}{}{}", finished.stdout, finished.stderr, self.broken.lab.agent.log());
        assert_eq!(finished.code, 0, "{what}");
        let (id, code) = id_and_code(&finished);
        assert_eq!((self.broken.lab.starts_of(&id), code.as_str()), (1, "ok"), "{what}");
    }
}

#[test]
fn a_network_that_is_cut_either_way_is_noticed_and_everything_goes_on_after_it() {
    let Some(behind) = Behind::new() else { return };
    let lab = &behind.broken.lab;
    let cuts = [(Cut::Both, "one"), (Cut::ToBroker, "two"), (Cut::FromBroker, "three")];
    for (round, (cut, word)) in cuts.into_iter().enumerate() {
        let run = behind.begin_run("lab.apart", word);
        lab.started_times(round + 1);
        let noticed = || lab.agent.log().matches("Not connected to the broker").count();
        let before = noticed();
        behind.net.cut(cut);
        lab.open(word);
        eventually(&format!("{cut:?}: the agent notices"), || noticed() > before);
        eventually(&format!("{cut:?}: the command line notices"), || run.stderr().contains("no answers for now"));
        behind.net.mend();
        behind.check_ends_well(run);
    }
}

#[test]
fn a_network_that_is_cut_for_a_moment_costs_nothing() {
    let Some(behind) = Behind::new() else { return };
    let lab = &behind.broken.lab;
    let run = behind.begin_run("lab.change", "one");
    lab.started_times(1);
    behind.net.cut(Cut::Both);
    lab.open("one");
    eventually("the action ends", || ends(lab) == 1);
    behind.net.mend();
    behind.check_ends_well(run);
}
