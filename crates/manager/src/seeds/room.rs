//! Which seeds give way: to others, for want of room, and to nobody, for want of use. Pure.

use std::time::Duration;

/// Seeds of sizes that clients chose. Each takes some 80 MB of disk.
pub(super) const MAX_CHOSEN: usize = 8;

/// A seed that was not used for so long is not needed: one of a size that a client chose is removed, one of the size that
/// every image gets makes room for others.
const UNUSED_LIMIT: Duration = Duration::from_secs(14 * 24 * 3600);

/// What matters of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing<T> {
    /// Whose it is.
    pub(super) seed: T,
    /// Whether a client chose its size.
    pub(super) chosen: bool,
    /// How long it was not used.
    pub(super) idle: Duration,
    /// What it takes on the disk.
    pub(super) bytes: u64,
}

impl<T> Standing<T> {
    /// Whether it is to go though there is room.
    pub(super) fn is_unused(&self) -> bool {
        self.chosen && self.idle > UNUSED_LIMIT
    }

    fn may_give_way(&self) -> bool {
        self.chosen || self.idle > UNUSED_LIMIT
    }
}

/// The seeds to remove, least recently used first, so that there are `needed` bytes where `free` are, and room for one more
/// seed if it is of a size that a client `chose`. `None` if that cannot be had: then nothing is to be removed.
pub(super) fn to_remove<T>(seeds: Vec<Standing<T>>, chose: bool, free: u64, needed: u64) -> Option<Vec<T>> {
    let mut surplus = match chose {
        true => (seeds.iter().filter(|seed| seed.chosen).count() + 1).saturating_sub(MAX_CHOSEN),
        false => 0,
    };
    let mut lacking = needed.saturating_sub(free);
    let mut candidates: Vec<_> = seeds.into_iter().filter(Standing::may_give_way).collect();
    candidates.sort_by_key(|seed| std::cmp::Reverse(seed.idle));
    let mut removed = Vec::new();
    for seed in candidates {
        if lacking == 0 && (surplus == 0 || !seed.chosen) {
            continue;
        }
        lacking = lacking.saturating_sub(seed.bytes);
        surplus = surplus.saturating_sub(usize::from(seed.chosen));
        removed.push(seed.seed);
    }
    (lacking == 0).then_some(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    /// A seed of 80 bytes that was used so many days ago.
    fn seed(name: u64, chosen: bool, days: u64) -> Standing<u64> {
        Standing { seed: name, chosen, idle: Duration::from_secs(days * DAY), bytes: 80 }
    }

    #[test]
    fn nothing_is_removed_unless_that_makes_enough_room() {
        let eight = || (0..8).map(|name| seed(name, true, name)).collect::<Vec<_>>();
        assert_eq!(to_remove(eight(), false, 10, 3000), None);
        assert_eq!(to_remove(eight(), false, 10, 650), Some((0..8).rev().collect()));
        assert_eq!(to_remove(eight(), false, 10, 651), None);
        assert_eq!(to_remove(eight(), false, 10, 100), Some(vec![7, 6]));
        assert_eq!(to_remove(eight(), false, 100, 100), Some(vec![]));
    }

    #[test]
    fn there_are_only_so_many_of_sizes_that_clients_chose() {
        let seeds = || (0..8).map(|name| seed(name, true, name)).chain([seed(8, false, 100)]).collect::<Vec<_>>();
        assert_eq!(to_remove(seeds(), true, 100, 100), Some(vec![7]));
        assert_eq!(to_remove(seeds(), false, 100, 100), Some(vec![]));
        assert_eq!(to_remove(seeds().split_off(1), true, 100, 100), Some(vec![]));
        // What gives way for room counts.
        assert_eq!(to_remove(seeds(), true, 0, 160), Some(vec![8, 7]));
    }

    #[test]
    fn the_size_that_every_image_gets_gives_way_when_it_is_not_used() {
        let seeds = || vec![seed(0, false, 13), seed(1, false, 15), seed(2, true, 3)];
        assert_eq!(to_remove(seeds(), false, 0, 80), Some(vec![1]));
        assert_eq!(to_remove(seeds(), false, 0, 100), Some(vec![1, 2]));
        assert_eq!(to_remove(seeds(), false, 0, 161), None);
        let unused = |seed: Standing<u64>| seed.is_unused();
        assert!(unused(seed(0, true, 15)) && !unused(seed(0, true, 13)) && !unused(seed(0, false, 15)));
    }
}
