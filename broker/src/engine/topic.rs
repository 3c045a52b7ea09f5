//! Binding keys of a topic exchange, word by word in a tree, so that a routing key meets only the branches that can match.
//!
//! Matching keeps a set of places in the tree and moves all of them by one word at a time. It is bounded by words times
//! places, whatever the keys are: many `#` cannot make it worse.

use std::collections::HashMap;

use slotmap::{SlotMap, new_key_type};

use super::keys::Target;

new_key_type! {
    struct NodeKey;
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, NodeKey>,
    /// `*`: exactly one word.
    star: Option<NodeKey>,
    /// `#`: any number of words.
    hash: Option<NodeKey>,
    /// Whether this node is its parent's `#`.
    repeats: bool,
    parent: Option<NodeKey>,
    targets: Vec<Target>,
    /// The last step of a match that came here.
    mark: u64,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.children.is_empty() && self.star.is_none() && self.hash.is_none()
    }
}

/// The tree.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: SlotMap<NodeKey, Node>,
    root: NodeKey,
    step: u64,
    now: Vec<NodeKey>,
    next: Vec<NodeKey>,
}

impl Default for Tree {
    fn default() -> Self {
        let mut nodes = SlotMap::with_key();
        let root = nodes.insert(Node::default());
        Self { nodes, root, step: 0, now: Vec::new(), next: Vec::new() }
    }
}

impl Tree {
    /// The targets of a binding key, with a place made for them.
    pub(super) fn list(&mut self, key: &str) -> Option<&mut Vec<Target>> {
        let mut at = self.root;
        for word in words(key) {
            at = match self.child(at, word) {
                Some(child) => child,
                None => self.grow(at, word),
            };
        }
        self.nodes.get_mut(at).map(|node| &mut node.targets)
    }

    /// The targets of a binding key that has some.
    pub(super) fn existing(&mut self, key: &str) -> Option<&mut Vec<Target>> {
        let at = self.find(key)?;
        self.nodes.get_mut(at).map(|node| &mut node.targets)
    }

    /// Takes away what a binding key no longer needs.
    pub(super) fn prune(&mut self, key: &str) {
        let Some(mut at) = self.find(key) else { return };
        for word in words(key).rev() {
            let Some(node) = self.nodes.get(at) else { return };
            let Some(parent) = node.parent.filter(|_| node.is_empty()) else { return };
            self.nodes.remove(at);
            let Some(node) = self.nodes.get_mut(parent) else { return };
            match word {
                "*" => node.star = None,
                "#" => node.hash = None,
                _ => drop(node.children.remove(word)),
            }
            at = parent;
        }
    }

    /// All targets, in no order that means anything, perhaps more than once.
    pub(super) fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        self.nodes.values().flat_map(|node| node.targets.iter().copied())
    }

    /// Appends what the binding keys that match lead to; says how many keys matched.
    pub(super) fn matching(&mut self, key: &str, found: &mut Vec<Target>) -> usize {
        let (mut now, mut next) = (std::mem::take(&mut self.now), std::mem::take(&mut self.next));
        self.step += 1;
        self.enter(self.root, &mut now);
        for word in words(key) {
            self.step += 1;
            for at in now.drain(..) {
                let Some(node) = self.nodes.get(at) else { continue };
                let (child, star, repeats) = (node.children.get(word).copied(), node.star, node.repeats);
                if let Some(child) = child {
                    self.enter(child, &mut next);
                }
                if let Some(star) = star {
                    self.enter(star, &mut next);
                }
                if repeats {
                    self.enter(at, &mut next);
                }
            }
            std::mem::swap(&mut now, &mut next);
        }
        let mut keys = 0;
        for node in now.drain(..).filter_map(|at| self.nodes.get(at)).filter(|node| !node.targets.is_empty()) {
            found.extend_from_slice(&node.targets);
            keys += 1;
        }
        (self.now, self.next) = (now, next);
        keys
    }

    /// A place that is reached, and those behind it that need no word.
    fn enter(&mut self, at: NodeKey, reached: &mut Vec<NodeKey>) {
        let mut at = Some(at);
        while let Some(key) = at {
            let Some(node) = self.nodes.get_mut(key) else { return };
            if node.mark == self.step {
                return;
            }
            node.mark = self.step;
            reached.push(key);
            at = node.hash;
        }
    }

    fn child(&self, at: NodeKey, word: &str) -> Option<NodeKey> {
        let node = self.nodes.get(at)?;
        match word {
            "*" => node.star,
            "#" => node.hash,
            _ => node.children.get(word).copied(),
        }
    }

    fn grow(&mut self, at: NodeKey, word: &str) -> NodeKey {
        let child = self.nodes.insert(Node { parent: Some(at), repeats: word == "#", ..Node::default() });
        if let Some(node) = self.nodes.get_mut(at) {
            match word {
                "*" => node.star = Some(child),
                "#" => node.hash = Some(child),
                _ => drop(node.children.insert(word.into(), child)),
            }
        }
        child
    }

    fn find(&self, key: &str) -> Option<NodeKey> {
        words(key).try_fold(self.root, |at, word| self.child(at, word))
    }
}

/// The words of a key. An empty key has none, as with RabbitMQ.
fn words(key: &str) -> impl DoubleEndedIterator<Item = &str> {
    (!key.is_empty()).then(|| key.split('.')).into_iter().flatten()
}

#[cfg(test)]
mod tests;
