//! `--limit N|N%`: a part of the matched hosts, chosen by a seed so that it can be chosen again.

use std::str::FromStr;

use muster_protocol::HostName;

/// How many of the matched hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// This many.
    Count(u32),
    /// This many of a hundred, from 1 to 100; rounded up, so that a part of something is never nothing.
    Percent(u8),
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a number of hosts such as `10`, nor a part such as `25%` (1% to 100%)")]
pub struct AmountError {
    given: String,
}

impl Amount {
    /// The number of hosts out of `total`; never more than `total`.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(total),
            Self::Percent(percent) => total.saturating_mul(usize::from(percent)).div_ceil(100).min(total),
        }
    }
}

impl FromStr for Amount {
    type Err = AmountError;
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let wrong = || AmountError { given: text.to_owned() };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.strip_suffix('%') {
            Some(percent) if digits(percent) => match percent.parse::<u8>() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            },
            None if digits(text) => text.parse().map(Self::Count).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The chosen hosts, in the order of their names. Each host has a rank that only its name and the
/// seed decide, and the lowest ranks are taken: with the same seed a larger limit contains the
/// smaller one, and a host that came or went moves nobody else.
#[must_use]
pub fn choose(mut hosts: Vec<HostName>, amount: Amount, seed: u64) -> Vec<HostName> {
    hosts.sort();
    hosts.dedup();
    let count = amount.of(hosts.len());
    hosts.sort_by_cached_key(|host| (rank(host, seed), host.clone()));
    hosts.truncate(count);
    hosts.sort();
    hosts
}

/// The order in which hosts are taken for a seed: what `choose` takes first comes first.
#[must_use]
pub fn shuffled(mut hosts: Vec<HostName>, seed: u64) -> Vec<HostName> {
    hosts.sort_by_cached_key(|host| (rank(host, seed), host.clone()));
    hosts
}

/// FNV-1a over seed and name, then the finisher of SplitMix64 so that near names do not get near
/// ranks. Written out, because the ranks must be the same in every version and on every machine.
fn rank(host: &HostName, seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in seed.to_le_bytes().into_iter().chain(host.as_str().bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(count: usize) -> Vec<HostName> {
        (0..count).map(|n| HostName::new(format!("web{n}.example.com")).unwrap()).collect()
    }

    #[test]
    fn amounts_are_counts_or_parts() {
        for (text, total, expected) in
            [("10", 100, 10), ("10", 3, 3), ("0", 3, 0), ("25%", 10, 3), ("1%", 5, 1), ("100%", 7, 7), ("50%", 0, 0)]
        {
            let amount: Amount = text.parse().unwrap();
            assert_eq!((amount.of(total), amount.to_string().as_str()), (expected, text));
        }
        for bad in ["", "%", "-1", "+1", "0%", "101%", "1.5%", "ten", "5 %", "99999999999"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_choice_of_a_seed_never_changes() {
        let chosen: Vec<String> = choose(hosts(20), Amount::Count(3), 7).into_iter().map(String::from).collect();
        assert_eq!(chosen, ["web12.example.com", "web18.example.com", "web3.example.com"]);
    }

    #[test]
    fn every_host_gets_its_turn() {
        let mut taken = std::collections::BTreeMap::new();
        for seed in 0..2000 {
            for host in choose(hosts(10), Amount::Count(3), seed) {
                *taken.entry(host).or_insert(0) += 1;
            }
        }
        assert!(taken.len() == 10 && taken.values().all(|count| (480..720).contains(count)), "{taken:?}");
    }

    proptest! {
        #[test]
        fn a_larger_limit_contains_a_smaller_one(total in 0usize..60, a in 0u32..60, b in 0u32..60, seed in any::<u64>()) {
            let (small, large) = (a.min(b), a.max(b));
            let small = choose(hosts(total), Amount::Count(small), seed);
            let large = choose(hosts(total), Amount::Count(large), seed);
            prop_assert!(small.iter().all(|host| large.contains(host)));
            let mut reversed = hosts(total);
            reversed.reverse();
            prop_assert_eq!(choose(reversed, Amount::Count(b), seed).len(), (b as usize).min(total));
        }
    }
}
