//! Who may do what: `muster-broker-config`'s answer, asked once for a connection and kept with it.
