//! apk's database of installed packages: stanzas of `LETTER:VALUE`, an empty line between them.

use super::super::entry::{Entry, INSTALLED};

/// One installed package and what it provides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Package {
    pub(in super::super) entry: Entry,
    pub(in super::super) provides: Vec<String>,
}

/// Reads the database; the stanza's first line where one has no name or no version.
pub(in super::super) fn parse(text: &str) -> Result<Vec<Package>, String> {
    let stanzas = text.split("\n\n").map(str::trim).filter(|stanza| !stanza.is_empty());
    stanzas.map(|stanza| package(stanza).ok_or_else(|| stanza.lines().next().unwrap_or_default().to_owned())).collect()
}

fn package(stanza: &str) -> Option<Package> {
    // The files of a package follow its own fields, and have letters of their own.
    let fields = || stanza.lines().map_while(|line| line.split_once(':')).take_while(|(letter, _)| *letter != "F");
    let field = |wanted: &str| fields().find(|(letter, _)| *letter == wanted).map(|(_, value)| value);
    let (name, full) = (field("P")?, field("V")?);
    let (version, release) = match full.rsplit_once("-r") {
        Some((version, release)) if release.bytes().all(|byte| byte.is_ascii_digit()) => {
            (version, Some(format!("r{release}")))
        }
        _ => (full, None),
    };
    // `f:` marks a package whose installation was not whole: `f` files, `s` scripts, `x` attributes.
    let broken = field("f").filter(|flags| !flags.is_empty());
    let status = broken.map_or_else(|| INSTALLED.to_owned(), |flags| format!("broken, {flags}"));
    let entry = Entry {
        name: name.to_owned(),
        ensure: if broken.is_some() { status.clone() } else { full.to_owned() },
        installed: broken.is_none(),
        version: version.to_owned(),
        release,
        epoch: None,
        arch: field("A").unwrap_or("noarch").to_owned(),
        status,
        full: full.to_owned(),
        // The checksum of what was installed: another build of the same version has another.
        stamp: field("C").unwrap_or_default().to_owned(),
    };
    // `so:libfoo.so.1=1.0 cmd:foo=1.0-r0 bar`
    let provided = field("p").unwrap_or_default().split_ascii_whitespace();
    let provides = provided.filter_map(|word| word.split(['=', '<', '>', '~']).next()).map(str::to_owned).collect();
    Some(Package { entry, provides })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &str = "\
C:Q1abc=
P:musl
V:1.2.5-r9
A:x86_64
S:403434
p:so:libc.musl-x86_64.so.1=1
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
Z:Q1xyz=

C:Q1def=
P:broken
V:1.0_p1-r0
A:noarch
f:fs
D:musl

";

    #[test]
    fn a_database() {
        let packages = parse(DATABASE).unwrap();
        let seen: Vec<_> = packages.iter().map(|p| (p.entry.name.as_str(), p.entry.ensure.as_str())).collect();
        assert_eq!(seen, [("musl", "1.2.5-r9"), ("broken", "broken, fs")]);
        assert_eq!(packages[0].provides, ["so:libc.musl-x86_64.so.1"]);
        assert_eq!((packages[0].entry.version.as_str(), packages[0].entry.release.as_deref()), ("1.2.5", Some("r9")));
        assert!(!packages[1].entry.installed);
    }

    #[test]
    fn a_stanza_without_a_name_is_an_error() {
        assert_eq!(parse("C:Q1abc=\nV:1\n\n"), Err("C:Q1abc=".to_owned()));
        assert_eq!(parse("").unwrap(), []);
    }
}
