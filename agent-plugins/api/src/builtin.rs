//! The descriptions of the built-in plugins.

use std::sync::LazyLock;

use muster_protocol::ddl::Ddl;

static BUILTIN: LazyLock<Vec<Ddl>> = LazyLock::new(|| {
    let files = [
        include_str!("../ddl/file.json"),
        include_str!("../ddl/host.json"),
        include_str!("../ddl/package.json"),
        include_str!("../ddl/plugin.json"),
        include_str!("../ddl/puppet.json"),
        include_str!("../ddl/script.json"),
        include_str!("../ddl/service.json"),
        include_str!("../ddl/shell.json"),
    ];
    files.into_iter().map(|text| Ddl::parse(text).expect("a built-in description parses, as its test shows")).collect()
});

/// The descriptions of the built-in plugins, by name.
#[must_use]
pub fn builtin_ddls() -> &'static [Ddl] {
    &BUILTIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_parses_without_a_warning() {
        let names: Vec<_> = builtin_ddls().iter().map(|ddl| ddl.name().as_str()).collect();
        assert_eq!(names, ["file", "host", "package", "plugin", "puppet", "script", "service", "shell"]);
        for ddl in builtin_ddls() {
            assert_eq!(ddl.warnings(), Vec::<String>::new(), "{}", ddl.name());
        }
    }
}
