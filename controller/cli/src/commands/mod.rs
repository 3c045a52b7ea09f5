//! One module per noun or daily verb.

pub(crate) mod explain;
