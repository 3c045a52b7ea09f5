//! One module per noun or daily verb.

pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod explain;
