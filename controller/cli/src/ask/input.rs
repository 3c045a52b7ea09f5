//! The inputs of an action as they are typed: values, files, standard input, and secrets that are none of these
//! words.
//!
//! | typed | value |
//! |---|---|
//! | `name=text` | the text; refused for a secret input, since every user of the machine can read it there |
//! | `name=@FILE` | what is in the file |
//! | `name=@-` | what comes from standard input |
//! | `name=-` | for a secret input the same; for any other the text `-` |
//! | `name=@@text` | the text `@text` |
//! | `name:=...` | any of these, read as JSON |
//!
//! A file of one line loses its line end, as an editor adds one; a longer one is taken as it is.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use muster_protocol::ddl::Action;
use zeroize::Zeroizing;

use crate::output::{ExitCode, Failure};

/// Most bytes of a value from a file or from standard input. A whole command may have 1 MiB.
const VALUE_BYTES_MAX: u64 = 768 * 1024;

/// Names and values, ready for the action's description. The values are overwritten when this is dropped.
#[derive(Default)]
pub(crate) struct Inputs {
    /// As [`Action::parse_arguments`] takes them.
    pub(crate) pairs: Vec<(String, String)>,
    /// What the operator should know about where they came from.
    pub(crate) warnings: Vec<String>,
    /// Whether standard input was read, so that nobody else can.
    pub(crate) used_stdin: bool,
}

impl Drop for Inputs {
    fn drop(&mut self) {
        for (_, value) in &mut self.pairs {
            zeroize::Zeroize::zeroize(value);
        }
    }
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.pairs.iter().map(|(name, _)| name)).finish()
    }
}

/// Where the value of one input comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    Word(&'a str),
    File(&'a Path),
    Stdin,
}

/// One input as it was typed. `name` may end in `:`, for a value in JSON.
struct Typed<'a> {
    name: &'a str,
    source: Source<'a>,
    secret: bool,
}

impl<'a> Typed<'a> {
    fn read(action_name: &str, action: &Action, word: &'a str) -> Result<Self, Failure> {
        let Some((name, value)) = word.split_once('=') else {
            return Err(Failure::usage(format!("`{word}` is not an input: write NAME=VALUE"))
                .hint(format!("muster plugin show {action_name}")));
        };
        let secret = action.input.get(plain_name(name)).is_some_and(muster_protocol::ddl::Input::is_secret);
        let source = match value.strip_prefix('@') {
            Some("-") => Source::Stdin,
            Some(rest) if rest.starts_with('@') => Source::Word(rest),
            Some(path) => Source::File(Path::new(path)),
            None if secret && value == "-" => Source::Stdin,
            None => Source::Word(value),
        };
        Ok(Self { name, source, secret })
    }
}

fn plain_name(name: &str) -> &str {
    name.strip_suffix(':').unwrap_or(name)
}

/// The secret inputs that have to be asked for at the terminal: those that the action needs and nobody gave, and those
/// that are to be read from standard input where that is the terminal.
///
/// # Errors
/// Exit 2: a word is no input, or a secret stands on the command line.
pub(crate) fn to_prompt(
    action_name: &str,
    action: &Action,
    words: &[String],
    terminal: bool,
) -> Result<Vec<String>, Failure> {
    let mut given = Vec::new();
    let mut prompts = Vec::new();
    for word in words {
        let typed = Typed::read(action_name, action, word)?;
        refuse_open_secret(action_name, &typed)?;
        given.push(plain_name(typed.name));
        if terminal && typed.secret && typed.source == Source::Stdin {
            prompts.push(plain_name(typed.name).to_owned());
        }
    }
    if terminal {
        let needed = action.input.iter().filter(|(_, input)| input.is_secret() && input.is_required());
        prompts.extend(needed.map(|(name, _)| name.to_owned()).filter(|name| !given.contains(&name.as_str())));
    }
    Ok(prompts)
}

/// Reads all values. `prompted` holds what was typed at the terminal, by name; `stdin` is read at most once.
///
/// # Errors
/// Exit 2: a word is no input, a file cannot be read, a secret stands on the command line.
pub(crate) fn read(
    action_name: &str,
    action: &Action,
    words: &[String],
    prompted: Vec<(String, Zeroizing<String>)>,
    stdin: impl FnOnce() -> io::Result<Zeroizing<Vec<u8>>>,
) -> Result<Inputs, Failure> {
    let mut inputs = Inputs::default();
    let mut stdin = Some(stdin);
    for word in words {
        let typed = Typed::read(action_name, action, word)?;
        refuse_open_secret(action_name, &typed)?;
        let name = typed.name.to_owned();
        let value = match typed.source {
            Source::Word(text) => Zeroizing::new(text.to_owned()),
            Source::File(path) => {
                let read = File::open(path).and_then(|file| {
                    if typed.secret {
                        inputs.warnings.extend(open_to_others(path, &file));
                    }
                    content(file)
                });
                text(read.map_err(|error| Failure::file("read", path, &error))?, &path.display().to_string())?
            }
            Source::Stdin if prompted.iter().any(|(asked, _)| asked == plain_name(typed.name)) => continue,
            Source::Stdin => {
                let Some(stdin) = stdin.take() else {
                    return Err(Failure::usage("standard input can be read for one input only")
                        .hint(format!("{}=@FILE", plain_name(typed.name))));
                };
                inputs.used_stdin = true;
                let read = stdin().map_err(|error| Failure::file("read", Path::new("standard input"), &error))?;
                text(read, "standard input")?
            }
        };
        inputs.pairs.push((name, value.to_string()));
    }
    inputs.pairs.extend(prompted.into_iter().map(|(name, value)| (name, value.to_string())));
    Ok(inputs)
}

/// Everything that standard input gives, up to the bound.
pub(crate) fn stdin() -> io::Result<Zeroizing<Vec<u8>>> {
    content(io::stdin().lock())
}

fn content(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A value as text: one line without its end, several as they are.
fn text(bytes: Zeroizing<Vec<u8>>, from: &str) -> Result<Zeroizing<String>, Failure> {
    if bytes.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::usage(format!("`{from}` is larger than {VALUE_BYTES_MAX} bytes"))
            .why("why", "a whole command may have 1 MiB")
            .hint("put it where the hosts can fetch it"));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(
            Failure::usage(format!("`{from}` is not text in UTF-8")).hint("base64 it, if the action takes that")
        );
    };
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(line.filter(|line| !line.contains('\n')).unwrap_or(text).to_owned()))
}

fn refuse_open_secret(action_name: &str, typed: &Typed<'_>) -> Result<(), Failure> {
    if !typed.secret || !matches!(typed.source, Source::Word(_)) {
        return Ok(());
    }
    let name = plain_name(typed.name);
    let what = format!("{action_name}: input `{name}` is secret and is not taken from the command line");
    Err(Failure::new(ExitCode::Usage, "secret-on-command-line", what)
        .why("why", "other users of this machine and the shell's history can read it there")
        .why("note", "what was typed is known now: change it")
        .hint(format!("{name}=-       to be asked for it, or to pipe it in"))
        .hint(format!("{name}=@FILE   with a file that only you can read")))
}

/// A word of warning about a file with a secret that others can read.
fn open_to_others(path: &Path, file: &File) -> Option<String> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mode = metadata.mode() & 0o777;
    (mode & 0o077 != 0).then(|| format!("`{}` holds a secret and others can read it (mode {mode:04o})", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use muster_protocol::ddl::Ddl;

    use super::*;
    use crate::output::Text;

    fn action() -> Action {
        let ddl = serde_json::json!({
            "metadata": {
                "name": "login", "description": "d", "author": "a", "license": "l", "version": "1.0.0", "url": "u",
                "timeout": 5
            },
            "actions": [{
                "action": "set", "description": "d", "display": "always", "output": {},
                "input": {
                    "name": {"prompt": "p", "description": "d", "type": "string", "optional": false, "validation": "", "maxlength": 0},
                    "password": {"prompt": "p", "description": "d", "type": "string", "optional": false, "validation": "",
                        "maxlength": 0, "muster": {"secret": true}},
                    "token": {"prompt": "p", "description": "d", "type": "string", "optional": true, "validation": "",
                        "maxlength": 0, "muster": {"secret": true}}
                }
            }]
        });
        Ddl::parse(&ddl.to_string()).unwrap().actions.remove(0)
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn read_with(typed: &[&str], input: &str) -> Result<Inputs, String> {
        let input = Zeroizing::new(input.as_bytes().to_vec());
        let read = read("login.set", &action(), &words(typed), Vec::new(), || Ok(input));
        read.map_err(|failure| failure.lines().iter().map(Text::to_plain).collect::<Vec<_>>().join("\n"))
    }

    fn pairs(typed: &[&str], input: &str) -> Vec<(String, String)> {
        read_with(typed, input).unwrap().pairs.clone()
    }

    #[test]
    fn a_secret_is_never_a_word() {
        for word in ["password=hunter2", "password:=\"hunter2\"", "password=@@hunter2", "token=hunter2", "password="] {
            let error = read_with(&[word], "").unwrap_err();
            assert!(error.contains("error[secret-on-command-line]") && !error.contains("hunter2"), "{error}");
            assert!(to_prompt("login.set", &action(), &words(&[word]), true).is_err());
        }
        insta::assert_snapshot!(read_with(&["name=x", "password=hunter2"], "").unwrap_err(), @r"
        error[secret-on-command-line]: login.set: input `password` is secret and is not taken from the command line
          why     other users of this machine and the shell's history can read it there
          note    what was typed is known now: change it
          or      password=-       to be asked for it, or to pipe it in
          try     password=@FILE   with a file that only you can read
        ");
    }

    #[test]
    fn values_come_from_words_files_and_standard_input() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs(&["name=x=y", "password=-"], "s3cret\n"), [pair("name", "x=y"), pair("password", "s3cret")]);
        assert_eq!(pairs(&["name=-"], ""), [pair("name", "-")], "only a secret is never meant as a word");
        assert_eq!(pairs(&["name=@-"], "a\r\n"), [pair("name", "a")]);
        assert_eq!(pairs(&["name=@@x", "name:=@-"], "[1]"), [pair("name", "@x"), pair("name:", "[1]")]);
        let error = read_with(&["password=-", "token=@-"], "x").unwrap_err();
        assert!(error.contains("standard input can be read for one input only"), "{error}");
    }

    #[test]
    fn one_line_loses_its_end_and_a_script_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("body");
        let check = |content: &[u8], expected: &str| {
            std::fs::write(&path, content).unwrap();
            assert_eq!(pairs(&[&format!("name=@{}", path.display())], "")[0].1, expected);
        };
        check(b"bash\n", "bash");
        check(b"bash\r\n", "bash");
        check(b"bash", "bash");
        check(b"bash\n\n", "bash\n\n");
        check(b"#!/bin/sh\necho hi\n", "#!/bin/sh\necho hi\n");
        check(b"", "");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = read_with(&[&format!("name=@{}", path.display())], "").unwrap_err();
        assert!(error.contains("is not text in UTF-8"), "{error}");
        std::fs::write(&path, vec![b'x'; 800_000]).unwrap();
        let error = read_with(&[&format!("name=@{}", path.display())], "").unwrap_err();
        assert!(error.contains("is larger than 786432 bytes"), "{error}");
    }

    #[test]
    fn a_secret_that_others_can_read_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "x").unwrap();
        let check = |mode: u32, input: &str, warnings: usize| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let inputs = read_with(&[&format!("{input}=@{}", path.display())], "").unwrap();
            assert_eq!(inputs.warnings.len(), warnings, "{:?}", inputs.warnings);
        };
        check(0o644, "password", 1);
        check(0o640, "password", 1);
        check(0o600, "password", 0);
        check(0o644, "name", 0);
    }

    #[test]
    fn a_terminal_is_asked_for_what_is_needed() {
        let check = |typed: &[&str], terminal: bool, expected: &[&str]| {
            assert_eq!(to_prompt("login.set", &action(), &words(typed), terminal).unwrap(), expected, "{typed:?}");
        };
        check(&["name=x"], true, &["password"]);
        check(&["name=x"], false, &[]);
        check(&["name=x", "password=@f"], true, &[]);
        check(&["name=x", "password=-", "token=-"], true, &["password", "token"]);
        check(&["name=x", "password=-"], false, &[]);
    }

    #[test]
    fn what_was_prompted_is_not_read_again() {
        let prompted = vec![("password".to_owned(), Zeroizing::new("typed".to_owned()))];
        let read =
            read("login.set", &action(), &words(&["password=-"]), prompted, || panic!("nobody reads it")).unwrap();
        assert_eq!(read.pairs, [("password".to_owned(), "typed".to_owned())]);
        assert_eq!(format!("{read:?}"), r#"{"password"}"#);
    }
}
