//! How many people have to have signed a command besides its caller, and who of them is missing.
//!
//! # Who counts
//!
//! A user who has signed the same bytes as the caller and is not the caller. A service does not: its key lies in a
//! file beside a program, and whoever has taken the controller may have that file too. Nobody counts twice: the
//! verification refuses a message that one identity, or one key, has signed twice.
//!
//! # One person, one place
//!
//! Each signature fills one place of one requirement. `[{ group = "sre" }, { count = 2 }]` takes three people, one of
//! them of group `sre`: whoever reads a policy adds the numbers up. Who fills which place is a matching problem: a
//! member of two groups must not be spent on a place that somebody else could fill. It is solved exactly (augmenting
//! paths over at most `APPROVERS_MAX` places), so no order of requirements or signatures ever matters, and one more
//! signature never makes more people missing.

use std::collections::BTreeSet;

use muster_pki::Signer;
use muster_protocol::limits::SIGNATURES_MAX;
use muster_protocol::{GroupName, Identity};
use serde::Serialize;

/// Most people who can approve one command: a message has so many signatures beside the caller's.
pub(crate) const APPROVERS_MAX: usize = SIGNATURES_MAX - 1;

/// Some people, of one group or of any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// The group in their certificates; anybody where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// How many of them.
    pub count: usize,
}

/// Who has to have signed besides the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Approvals {
    requirements: Vec<Requirement>,
}

/// People who are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// How many.
    pub count: usize,
    /// A member of one of these groups would do. Empty: any user would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupName>,
}

impl Shortfall {
    /// `1 more signature by a member of group sre, and 2 more by any other users`.
    #[must_use]
    pub fn sentence(missing: &[Self]) -> String {
        let mut sentence = String::new();
        for (index, one) in missing.iter().enumerate() {
            let more = match (index, one.count) {
                (0, 1) => "1 more signature".to_owned(),
                (0, count) => format!("{count} more signatures"),
                (_, count) => format!(", and {count} more"),
            };
            sentence.push_str(&more);
            let names: Vec<&str> = one.groups.iter().map(GroupName::as_str).collect();
            sentence.push_str(&match (names.as_slice(), one.count) {
                ([], 1) => " by another user".to_owned(),
                ([], _) => " by other users".to_owned(),
                (groups, 1) => format!(" by a member of group {}", groups.join(" or ")),
                (groups, _) => format!(" by members of group {}", groups.join(" or ")),
            });
        }
        sentence
    }
}

impl Approvals {
    /// These requirements, all of them.
    #[must_use]
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// Whether nobody has to approve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements as they were written.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// How many different people have to sign besides the caller.
    #[must_use]
    pub fn people(&self) -> usize {
        self.requirements.iter().fold(0, |sum, one| sum.saturating_add(one.count))
    }

    /// Who is missing if these have signed, the caller first. Nobody: it is approved.
    #[must_use]
    pub fn missing(&self, signers: &[Signer]) -> Vec<Shortfall> {
        let places: Vec<Option<&GroupName>> = self
            .requirements
            .iter()
            .flat_map(|one| std::iter::repeat_n(one.group.as_ref(), one.count.min(APPROVERS_MAX + 1)))
            .collect();
        let approvers = approvers(signers);
        let matching = Matching::of(&places, &approvers);
        let mut missing: Vec<Shortfall> = Vec::new();
        for place in matching.empty() {
            let groups = matching.who_would_do(place);
            match missing.iter_mut().find(|known| known.groups == groups) {
                Some(known) => known.count += 1,
                None => missing.push(Shortfall { count: 1, groups }),
            }
        }
        missing
    }
}

/// Those of the signers who count as approvers, each once.
fn approvers(signers: &[Signer]) -> Vec<&Signer> {
    let Some((caller, others)) = signers.split_first() else { return Vec::new() };
    let mut found: Vec<&Signer> = Vec::new();
    for signer in others {
        let counts = matches!(signer.identity, Identity::User(_)) && signer.identity != caller.identity;
        if counts && !found.iter().any(|known| known.identity == signer.identity) {
            found.push(signer);
        }
    }
    found
}

/// Who fills which place, as many places as possible.
struct Matching<'a> {
    places: &'a [Option<&'a GroupName>],
    approvers: &'a [&'a Signer],
    /// By place, the approver who fills it.
    filled: Vec<Option<usize>>,
}

impl<'a> Matching<'a> {
    fn of(places: &'a [Option<&'a GroupName>], approvers: &'a [&'a Signer]) -> Self {
        let mut matching = Self { places, approvers, filled: vec![None; places.len()] };
        for place in 0..places.len() {
            matching.fill(place, &mut vec![false; approvers.len()]);
        }
        matching
    }

    fn fits(&self, place: usize, approver: usize) -> bool {
        self.places[place].is_none_or(|group| self.approvers[approver].groups.contains(group))
    }

    fn place_of(&self, approver: usize) -> Option<usize> {
        self.filled.iter().position(|filled| *filled == Some(approver))
    }

    /// Fills a place, moving others to places that they fit as well. A place that is filled stays filled.
    fn fill(&mut self, place: usize, tried: &mut [bool]) -> bool {
        for approver in 0..self.approvers.len() {
            if tried[approver] || !self.fits(place, approver) {
                continue;
            }
            tried[approver] = true;
            let free = match self.place_of(approver) {
                None => true,
                Some(other) => self.fill(other, tried),
            };
            if free {
                self.filled[place] = Some(approver);
                return true;
            }
        }
        false
    }

    fn empty(&self) -> impl Iterator<Item = usize> {
        self.filled.iter().enumerate().filter(|(_, filled)| filled.is_none()).map(|(place, _)| place)
    }

    /// The groups of which one more member would fill an empty place, others moving if need be; empty for anybody.
    fn who_would_do(&self, place: usize) -> Vec<GroupName> {
        let mut reached = BTreeSet::from([place]);
        let mut next = vec![place];
        while let Some(place) = next.pop() {
            for approver in (0..self.approvers.len()).filter(|approver| self.fits(place, *approver)) {
                if let Some(other) = self.place_of(approver)
                    && reached.insert(other)
                {
                    next.push(other);
                }
            }
        }
        let groups: BTreeSet<Option<&GroupName>> = reached.into_iter().map(|place| self.places[place]).collect();
        if groups.contains(&None) {
            return Vec::new();
        }
        groups.into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
