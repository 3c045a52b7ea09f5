//! Why a condition came out as unknown: the values that were not there.

use muster_protocol::expr::{Expression, Node, Operand, Scope, Truth};
use serde::Serialize;

/// One comparison that kept a condition from coming out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// The name, as in `arg.name`.
    pub name: String,
    /// Whether it has a value after all, which cannot be compared with what the rule compares it with.
    pub has_value: bool,
    /// The comparison.
    pub comparison: String,
}

/// The comparisons because of which `condition` is unknown in `scope`, from left to right. Empty if it is not.
#[must_use]
pub fn missing(condition: &Expression, scope: &dyn Scope) -> Vec<Missing> {
    let mut found = Vec::new();
    collect(condition.root(), scope, &mut found);
    found.dedup();
    found
}

fn collect(node: &Node, scope: &dyn Scope, found: &mut Vec<Missing>) {
    // A part that came out one way or the other did not keep the whole from coming out.
    let Ok(part) = Expression::from_node(node.clone()) else { return };
    if part.evaluate(scope) != Truth::Unknown {
        return;
    }
    match node {
        Node::Constant(_) | Node::Has(_) => {}
        Node::And(parts) | Node::Or(parts) => parts.iter().for_each(|part| collect(part, scope, found)),
        Node::Not(part) => collect(part, scope, found),
        Node::Compare { operand, .. } => {
            let has_value = match operand {
                Operand::Path(path) => scope.get(path).is_some_and(|value| !value.is_null()),
                Operand::Call { .. } => false,
            };
            let name = match operand {
                Operand::Path(path) => path.to_string(),
                Operand::Call { call, .. } => call.to_string(),
            };
            found.push(Missing { name, has_value, comparison: part.to_string() });
        }
    }
}
