//! One module per noun or daily verb.

pub(crate) mod broker;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod explain;
pub(crate) mod host;
pub(crate) mod plugin;
