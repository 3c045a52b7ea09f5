//! Which hosts a command is for: the flags that all commands share, and what they come to.
//!
//! No flag means nobody, and that is an error: a command never reaches all hosts by accident.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::Path;

use clap::Args;
use muster_client::limit::{self, Amount};
use muster_protocol::HostName;
use muster_protocol::expr::mco::{McoFilters, translate};
use muster_protocol::expr::{Expression, ParseError};
use muster_protocol::limits::TARGET_HOSTS_MAX;

use crate::output::{ExitCode, Failure, fold};

/// Most bytes read from a file of names or from standard input.
const NAMES_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Where the language of targets is described.
const EXPRESSIONS: &str = "docs: expressions";

/// The target flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Target")]
pub(crate) struct TargetArguments {
    /// Hosts on which this expression is true; several must all hold.
    #[arg(long = "target", short = 't', value_name = "QUERY", add = crate::complete::targets())]
    pub(crate) targets: Vec<String>,
    /// Hosts by name: `a,b`, `web-[1-9].ams1`, `@FILE`, or `-` for standard input.
    #[arg(long = "host", short = 'H', value_name = "NAMES", add = crate::complete::hosts())]
    pub(crate) hosts: Vec<String>,
    /// Every host of the collective.
    #[arg(long, conflicts_with_all = ["targets", "hosts", "facts", "classes", "agents", "identities", "compound"])]
    pub(crate) all: bool,
    /// Leave these hosts out; written as for `--host`.
    #[arg(long, value_name = "NAMES", add = crate::complete::hosts())]
    pub(crate) exclude: Vec<String>,
    /// Only so many of the matching hosts, or such a part of them.
    #[arg(long, value_name = "N|N%", value_parser = some_hosts)]
    pub(crate) limit: Option<Amount>,
    /// Choose the hosts of `--limit` and the order of waves by this number, as another run did.
    #[arg(long, value_name = "NUMBER", value_parser = seed)]
    pub(crate) seed: Option<u64>,
    /// Fact, as in MCollective: `os.family=Debian`, `cpus>=4`.
    #[arg(short = 'F', long = "with-fact", value_name = "FACT", help_heading = "Target, as in MCollective")]
    pub(crate) facts: Vec<String>,
    /// Class, or `/regex/`.
    #[arg(short = 'C', long = "with-class", value_name = "CLASS", help_heading = "Target, as in MCollective")]
    pub(crate) classes: Vec<String>,
    /// Plugin that the host has.
    #[arg(short = 'A', long = "with-agent", value_name = "PLUGIN", help_heading = "Target, as in MCollective")]
    pub(crate) agents: Vec<String>,
    /// Name, or `/regex/`.
    #[arg(short = 'I', long = "with-identity", value_name = "NAME", help_heading = "Target, as in MCollective")]
    pub(crate) identities: Vec<String>,
    /// Compound filter: `web and not location=fra2`.
    #[arg(short = 'S', long = "select", value_name = "FILTER", help_heading = "Target, as in MCollective")]
    pub(crate) compound: Vec<String>,
}

/// What the target flags come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// The condition, if there is one.
    pub(crate) expression: Option<Expression>,
    /// The condition as it was typed.
    pub(crate) typed: String,
    /// The names, if there are any. With a condition as well, both must hold.
    pub(crate) hosts: Option<BTreeSet<HostName>>,
    /// The hosts that are left out.
    pub(crate) excluded: BTreeSet<HostName>,
    /// How many of them.
    pub(crate) limit: Option<Amount>,
    /// The seed that was given.
    pub(crate) seed: Option<u64>,
}

/// The hosts that were chosen, and the seed where it decided something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Who is to be asked.
    pub(crate) hosts: BTreeSet<HostName>,
    /// How many matched before the limit.
    pub(crate) of: usize,
    /// The seed of the limit.
    pub(crate) seed: Option<u64>,
}

impl TargetArguments {
    /// Reads the flags. `command` is what was typed so far, such as `ping`, for proposals.
    ///
    /// # Errors
    /// No target, an expression or name that cannot be read, a file that cannot be opened. All exit 2.
    pub(crate) fn read(&self, command: &str) -> Result<Target, Failure> {
        self.read_with(command, || {
            let mut text = String::new();
            io::stdin().lock().take(NAMES_BYTES_MAX).read_to_string(&mut text).map(|_| text)
        })
    }

    /// Whether there is any flag that says who.
    pub(crate) fn is_given(&self) -> bool {
        let lists =
            [&self.targets, &self.hosts, &self.facts, &self.classes, &self.agents, &self.identities, &self.compound];
        self.all || lists.iter().any(|list| !list.is_empty())
    }

    /// Whether names are read from standard input.
    pub(crate) fn uses_stdin(&self) -> bool {
        self.hosts.iter().chain(&self.exclude).any(|names| names == "-")
    }

    fn read_with(&self, command: &str, stdin: impl FnOnce() -> io::Result<String>) -> Result<Target, Failure> {
        let (expression, typed) = self.expression()?;
        if expression.is_none() && self.hosts.is_empty() && !self.all {
            return Err(no_target(command));
        }
        let mut stdin = Some(stdin);
        let mut read = |words: &[String], pattern: &str| {
            read_names(words, &mut || stdin.take().map(|read| read())).map_err(|failure| {
                // A pattern is no name, and there is a way to say it.
                match words.iter().find(|word| word.contains(['*', '?']) && !word.starts_with('@')) {
                    Some(word) => {
                        let query = format!("{pattern} like \"{}\"", word.replace('"', ""));
                        failure.hint(format!("muster {command} -t {}", quoted(&query)))
                    }
                    None => failure.hint(format!("muster {command} -H web1.example.com,web-[1-9].example.com")),
                }
            })
        };
        let hosts = if self.hosts.is_empty() { None } else { Some(read(&self.hosts, "name")?) };
        let excluded = read(&self.exclude, "name not")?;
        if hosts.as_ref().is_some_and(|hosts| hosts.is_empty()) {
            return Err(Failure::new(ExitCode::NoMatch, "no-match", "the list of hosts is empty")
                .why("given", self.hosts.join(" "))
                .hint(format!("muster {command} -H web1.example.com,web2.example.com")));
        }
        Ok(Target { expression, typed, hosts, excluded, limit: self.limit, seed: self.seed })
    }

    fn expression(&self) -> Result<(Option<Expression>, String), Failure> {
        let mut parts = Vec::new();
        for target in &self.targets {
            parts.push(Expression::parse(target).map_err(|error| bad_target(target, &error))?);
        }
        let filters = McoFilters {
            facts: self.facts.clone(),
            classes: self.classes.clone(),
            agents: self.agents.clone(),
            identities: self.identities.clone(),
            compound: self.compound.clone(),
        };
        let filtered =
            [&self.facts, &self.classes, &self.agents, &self.identities, &self.compound].iter().any(|f| !f.is_empty());
        if filtered {
            let translated = translate(&filters).map_err(|error| {
                let why = error.error.render(&error.given);
                Failure::new(ExitCode::Usage, "bad-target", format!("the filter `{}` cannot be read", error.option))
                    .why("filter", why)
                    .hint(EXPRESSIONS)
            })?;
            parts.push(translated);
        }
        // What was typed is shown again in errors; filters only exist in their translation.
        let typed = match (self.targets.as_slice(), filtered) {
            ([one], false) => one.clone(),
            _ => String::new(),
        };
        match parts.len() {
            0 => Ok((None, typed)),
            1 => Ok((parts.pop(), typed)),
            _ => {
                let all = Expression::all_of(parts);
                all.map(|all| (Some(all), typed)).map_err(|error| bad_target(&self.targets.join(" and "), &error))
            }
        }
    }
}

impl Target {
    /// The condition as it is shown: as typed where that is one text, else in canonical form.
    pub(crate) fn shown(&self) -> String {
        match (&self.expression, &self.hosts) {
            (Some(expression), _) if self.typed.is_empty() => expression.as_str().to_owned(),
            (Some(_), _) => self.typed.clone(),
            (None, Some(hosts)) => fold::fold_line(hosts.iter().map(HostName::as_str)),
            (None, None) => "all hosts".to_owned(),
        }
    }

    /// Whether hosts have to be found: a condition or everybody, as opposed to names alone.
    pub(crate) fn needs_discovery(&self) -> bool {
        self.expression.is_some() || self.hosts.is_none()
    }

    /// Keeps the hosts that the names allow and that are not left out.
    pub(crate) fn keep(&self, hosts: impl IntoIterator<Item = HostName>) -> BTreeSet<HostName> {
        let named = |host: &HostName| self.hosts.as_ref().is_none_or(|names| names.contains(host));
        hosts.into_iter().filter(|host| named(host) && !self.excluded.contains(host)).collect()
    }

    /// Applies the limit. `fresh_seed` is used where none was given.
    pub(crate) fn choose(&self, hosts: BTreeSet<HostName>, fresh_seed: u64) -> Chosen {
        let of = hosts.len();
        match self.limit {
            Some(amount) if amount.of(of) < of => {
                let seed = self.seed.unwrap_or(fresh_seed);
                let hosts = limit::choose(hosts.into_iter().collect(), amount, seed);
                Chosen { hosts: hosts.into_iter().collect(), of, seed: Some(seed) }
            }
            _ => Chosen { hosts, of, seed: None },
        }
    }
}

/// A text as one word for the shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-,/:@%+".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

fn no_target(command: &str) -> Failure {
    Failure::new(ExitCode::Usage, "no-target", "no target is given, and none never means all hosts")
        .hint(format!("muster {command} --all"))
        .hint(format!("muster {command} -H web1.example.com,web2.example.com"))
        .hint(format!("muster {command} -t 'os.family = \"Debian\"'"))
}

/// An expression that cannot be read, with a caret under the place.
pub(crate) fn bad_target(source: &str, error: &ParseError) -> Failure {
    Failure::new(ExitCode::Usage, "bad-target", "the target cannot be read")
        .why("target", error.render(source))
        .hint(EXPRESSIONS)
}

fn bad_hosts(what: String) -> Failure {
    Failure::new(ExitCode::Usage, "bad-hosts", what)
}

/// `--limit`: an amount that leaves somebody.
fn some_hosts(text: &str) -> Result<Amount, String> {
    match text.parse() {
        Ok(Amount::Count(0)) => Err("a limit of 0 asks nobody; the least is 1".to_owned()),
        Ok(amount) => Ok(amount),
        Err(error) => Err(format!("{error}")),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    let wrong = "a seed is a whole number from 0 to 18446744073709551615, such as an earlier run has printed";
    text.parse().map_err(|_| wrong.to_owned())
}

fn read_names(
    words: &[String],
    stdin: &mut impl FnMut() -> Option<io::Result<String>>,
) -> Result<BTreeSet<HostName>, Failure> {
    let mut names = BTreeSet::new();
    for word in words {
        if word == "-" {
            let text = match stdin() {
                Some(Ok(text)) => text,
                Some(Err(error)) => return Err(bad_hosts(format!("standard input cannot be read: {error}"))),
                None => return Err(bad_hosts("standard input can be read only once".to_owned())),
            };
            read_list(&text, "standard input", &mut names)?;
        } else if let Some(path) = word.strip_prefix('@') {
            let text = read_file(Path::new(path))
                .map_err(|error| bad_hosts(format!("the list of hosts `{path}` cannot be read: {error}")))?;
            read_list(&text, path, &mut names)?;
        } else {
            // An empty word is what an empty variable of the shell leaves.
            if word.trim_matches([' ', ',']).is_empty() {
                return Err(bad_hosts(format!("`{word}` names no host")));
            }
            read_folded(word, &mut names)?;
        }
    }
    if names.len() > TARGET_HOSTS_MAX {
        return Err(bad_hosts(format!("{} hosts are named; at most {TARGET_HOSTS_MAX} are allowed", names.len())));
    }
    Ok(names)
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(NAMES_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Names by line, several on one with commas or spaces; `#` begins a remark.
fn read_list(text: &str, origin: &str, names: &mut BTreeSet<HostName>) -> Result<(), Failure> {
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_whitespace() {
            read_folded(word, names)
                .map_err(|failure| failure.why("where", format!("{origin}, line {}", index + 1)))?;
        }
    }
    Ok(())
}

fn read_folded(word: &str, names: &mut BTreeSet<HostName>) -> Result<(), Failure> {
    let expanded = fold::expand(word, TARGET_HOSTS_MAX).map_err(|error| bad_hosts(error.to_string()))?;
    for name in expanded {
        names.insert(HostName::new(name).map_err(|error| bad_hosts(error.to_string()))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::output::Text;

    #[derive(Debug, clap::Parser)]
    struct Words {
        #[command(flatten)]
        target: TargetArguments,
    }

    fn read(words: &[&str], stdin: &str) -> Result<Target, Failure> {
        let words = Words::parse_from(std::iter::once("x").chain(words.iter().copied()));
        words.target.read_with("ping", || Ok(stdin.to_owned()))
    }

    fn names(target: &Target) -> Vec<&str> {
        target.hosts.iter().flatten().map(HostName::as_str).collect()
    }

    fn screen(failure: Failure) -> String {
        failure.lines().iter().map(Text::to_plain).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn nobody_is_never_everybody() {
        insta::assert_snapshot!(screen(read(&[], "").unwrap_err()), @r#"
        error[no-target]: no target is given, and none never means all hosts
          or      muster ping --all
          or      muster ping -H web1.example.com,web2.example.com
          try     muster ping -t 'os.family = "Debian"'
        "#);
        let empty = read(&["-H", "-"], "# nothing\n\n").unwrap_err();
        assert_eq!((empty.code, empty.exit), ("no-match", ExitCode::NoMatch));
    }

    #[test]
    fn names_come_from_words_files_and_standard_input() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hosts");
        std::fs::write(&file, "db1 db2 # the old ones\n\nweb-[8-9]\n").unwrap();
        let at_file = format!("@{}", file.display());
        let target = read(&["-H", "a,b", "-H", &at_file, "-H", "-"], "c\nd,e\n").unwrap();
        assert_eq!(names(&target), ["a", "b", "c", "d", "db1", "db2", "e", "web-8", "web-9"]);
        for (words, expected) in [
            (
                &["-H", "UPPER"][..],
                "host name `UPPER` has `U` at column 1; allowed are a-z, 0-9, _, - and . (lower case)",
            ),
            (&["-H", "web-[1-"][..], "`web-[1-` has an unbalanced bracket"),
            (&["-H", "-", "--exclude", "-"][..], "standard input can be read only once"),
            (&["-H", ""][..], "`` names no host"),
            (&["-H", "a", "--exclude", " ,"][..], "` ,` names no host"),
            (
                &["-H", "w\u{e9}b"][..],
                "host name `w\u{e9}b` has `\u{e9}` at column 2; allowed are a-z, 0-9, _, - and . (lower case)",
            ),
        ] {
            let failure = read(words, "a").unwrap_err();
            assert_eq!((failure.what.as_str(), failure.exit), (expected, ExitCode::Usage));
        }
    }

    #[test]
    fn a_pattern_for_a_name_gets_the_expression_that_was_meant() {
        let hints = |words: &[&str]| read(words, "").unwrap_err().hints;
        assert_eq!(hints(&["-H", "web*"]), [r#"muster ping -t 'name like "web*"'"#]);
        assert_eq!(hints(&["--all", "--exclude", "web*"]), [r#"muster ping -t 'name not like "web*"'"#]);
        assert_eq!(hints(&["-H", "UPPER"]), ["muster ping -H web1.example.com,web-[1-9].example.com"]);
    }

    #[test]
    fn limits_and_seeds_are_numbers_that_mean_something() {
        let error = |words: &[&str]| Words::try_parse_from(["x", "--all"].iter().chain(words)).unwrap_err().to_string();
        assert!(error(&["--limit", "0"]).contains("a limit of 0 asks nobody"), "{}", error(&["--limit", "0"]));
        assert!(error(&["--limit", "0%"]).contains("1% to 100%"), "{}", error(&["--limit", "0%"]));
        assert!(error(&["--seed", "abc"]).contains("a seed is a whole number"), "{}", error(&["--seed", "abc"]));
    }

    #[test]
    fn conditions_and_filters_all_hold() {
        let check = |words: &[&str], expected: &str| {
            let target = read(words, "").unwrap();
            assert_eq!(target.expression.unwrap().as_str(), expected);
        };
        check(&["-t", "role=web"], r#"role = "web""#);
        check(&["-t", "role=web or a=1", "-t", "dc=ams1"], r#"(role = "web" or a = 1) and dc = "ams1""#);
        check(&["-t", "role=web", "-F", "os.family=Debian"], r#"role = "web" and os.family = "Debian""#);
        check(&["-C", "web"], r#"class = "web""#);
    }

    #[test]
    fn a_wrong_expression_is_shown_with_a_caret() {
        let failure = read(&["-t", "os.family = and"], "").unwrap_err();
        assert_eq!((failure.code, failure.exit), ("bad-target", ExitCode::Usage));
        assert!(screen(failure).contains("\n          "), "the caret stands under the text");
    }

    #[test]
    fn limits_choose_from_what_is_left() {
        let target = read(&["--all", "--limit", "2", "--seed", "7", "--exclude", "web-3"], "").unwrap();
        let hosts = target.keep(["web-1", "web-2", "web-3", "web-4"].map(|name| HostName::new(name).unwrap()));
        let chosen = target.choose(hosts.clone(), 99);
        assert_eq!((chosen.hosts.len(), chosen.of, chosen.seed), (2, 3, Some(7)));
        assert_eq!(target.choose(hosts, 1), chosen, "the given seed wins");
    }

    #[test]
    fn a_word_for_the_shell() {
        let words = [("web1,db-[1]", "'web1,db-[1]'"), ("role", "role"), ("it's", r"'it'\''s'"), ("", "''")];
        for (text, expected) in words {
            assert_eq!(quoted(text), expected);
        }
    }
}
