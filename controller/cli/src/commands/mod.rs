//! One module per noun or daily verb.

pub(crate) mod approve;
pub(crate) mod broker;
pub(crate) mod cancel;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod find;
pub(crate) mod host;
pub(crate) mod pend;
pub(crate) mod pending;
pub(crate) mod ping;
pub(crate) mod pki;
pub(crate) mod plugin;
pub(crate) mod request;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod watch;
