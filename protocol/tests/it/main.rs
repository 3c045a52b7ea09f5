//! What the protocol promises, tested through its public interface.

mod expression;
