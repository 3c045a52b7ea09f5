//! The keys of a context, in one table: name, variable, what it is.

use std::fmt;

/// A key of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ContextKey {
    /// Broker addresses.
    Broker,
    /// Collective.
    Collective,
    /// CA certificate.
    Ca,
    /// Revocation list.
    Crl,
    /// Certificate.
    Certificate,
    /// Private key.
    PrivateKey,
    /// Confirmation guard.
    ConfirmAbove,
    /// Production mark.
    Production,
    /// Further plugin descriptions.
    DdlDirectory,
}

/// One row of the table of keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRow {
    /// The key.
    pub(crate) key: ContextKey,
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// The variable that overrides it.
    pub(crate) variable: &'static str,
    /// What it is.
    pub(crate) what: &'static str,
    /// Whether nothing works without it.
    pub(crate) required: bool,
}

/// All keys, in the order in which they are shown.
pub(crate) const KEYS: &[KeyRow] = &[
    row(ContextKey::Broker, "broker", "MUSTER_BROKER", "broker addresses: amqps://HOST[:PORT][/VHOST]", true),
    row(ContextKey::Collective, "collective", "MUSTER_COLLECTIVE", "the part of the fleet that is asked", false),
    row(ContextKey::Ca, "ca", "MUSTER_CA", "file with the CA's certificate", true),
    row(ContextKey::Crl, "crl", "MUSTER_CRL", "file with the CA's revocation list", false),
    row(ContextKey::Certificate, "certificate", "MUSTER_CERTIFICATE", "file with your certificate", true),
    row(ContextKey::PrivateKey, "key", "MUSTER_KEY", "file with your private key, mode 0600", true),
    row(ContextKey::ConfirmAbove, "confirm_above", "MUSTER_CONFIRM_ABOVE", "hosts above which `run` asks first", false),
    row(ContextKey::Production, "production", "MUSTER_PRODUCTION", "whether the name is shown with PRODUCTION", false),
    row(
        ContextKey::DdlDirectory,
        "ddl_directory",
        "MUSTER_DDL_DIRECTORY",
        "directory with descriptions of more plugins",
        false,
    ),
];

const fn row(
    key: ContextKey,
    name: &'static str,
    variable: &'static str,
    what: &'static str,
    required: bool,
) -> KeyRow {
    KeyRow { key, name, variable, what, required }
}

impl ContextKey {
    /// Its row of the table.
    pub(crate) fn row(self) -> &'static KeyRow {
        // The rows stand in the order of the variants, which a test holds them to.
        &KEYS[self as usize]
    }
}

impl fmt::Display for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_finds_its_own_row() {
        for (index, row) in KEYS.iter().enumerate() {
            assert_eq!(row.key as usize, index);
            assert_eq!(row.variable, format!("MUSTER_{}", row.name.to_uppercase()));
        }
    }
}
