//! Which seeds there are, which are to be made, and which could not be. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::key::Key;
use super::{Seed, Size, Status, Unfinished};
use crate::clock::now_ms;

/// How long a seed that could not be made is not tried again for another start of a VM.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// A seed that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub(super) image_id: String,
    pub(super) size: Size,
}

impl Wish {
    pub(super) fn new(image_id: &str, size: Size) -> Self {
        Self { image_id: image_id.to_owned(), size }
    }
}

/// A seed that could not be made.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// From which files; `None` if that is not known.
    pub(super) key: Option<Key>,
    /// Milliseconds since 1970.
    pub(super) at: i64,
    pub(super) instant: Instant,
    /// For clients.
    pub(super) why: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) ready: HashMap<Key, Seed>,
    pub(super) failed: HashMap<Wish, Failure>,
    building: Option<Noted>,
    wishes: VecDeque<Noted>,
}

#[derive(Debug, Clone)]
struct Noted {
    wish: Wish,
    /// Milliseconds since 1970.
    at: i64,
}

impl Desk {
    /// Notes a wish after a start of a VM; false if it is noted already or has just failed.
    pub(super) fn wish(&mut self, image_id: &str, size: Size) -> bool {
        let wish = Wish::new(image_id, size);
        if self.failed.get(&wish).is_some_and(|failure| failure.instant.elapsed() < RETRY_AFTER) {
            return false;
        }
        self.add(wish)
    }

    /// Notes a wish; false if it is noted already.
    pub(super) fn add(&mut self, wish: Wish) -> bool {
        if self.is_noted(&wish) {
            return false;
        }
        self.wishes.push_back(Noted { wish, at: now_ms() });
        true
    }

    fn noted(&self) -> impl Iterator<Item = &Noted> {
        self.building.iter().chain(&self.wishes)
    }

    fn is_noted(&self, wish: &Wish) -> bool {
        self.noted().any(|noted| noted.wish == *wish)
    }

    /// Takes the next wish to work on it.
    pub(super) fn next(&mut self) -> Option<Wish> {
        self.building = self.wishes.pop_front();
        self.building.as_ref().map(|noted| noted.wish.clone())
    }

    /// Ends the work on a wish.
    pub(super) fn done(&mut self, wish: &Wish, outcome: Option<Result<Seed, Failure>>) {
        self.building = None;
        self.failed.remove(wish);
        match outcome {
            Some(Ok(seed)) => {
                self.ready.insert(seed.key.clone(), seed);
            }
            Some(Err(failure)) => {
                self.failed.insert(wish.clone(), failure);
            }
            None => {}
        }
    }

    pub(super) fn status(&self, image_id: &str, size: Size) -> Status {
        let wish = Wish::new(image_id, size);
        if self.is_noted(&wish) {
            return Status::Building;
        }
        let mut ready = self.ready.values().filter(|seed| seed.image_id == image_id && seed.size == size);
        match (ready.next(), self.failed.get(&wish)) {
            (Some(seed), _) => Status::Ready { at: seed.created_at, bytes: seed.bytes },
            (None, Some(failure)) => Status::Failed { at: failure.at, why: failure.why.to_owned() },
            (None, None) => Status::None,
        }
    }

    /// What is noted, and what failed and is not noted again.
    pub(super) fn unfinished(&self) -> Vec<Unfinished> {
        let unfinished =
            |wish: &Wish, at, why| Unfinished { image_id: wish.image_id.clone(), size: wish.size, at, why };
        let failed = self.failed.iter().filter(|(wish, _)| !self.is_noted(wish));
        let failed = failed.map(|(wish, failure)| unfinished(wish, failure.at, Some(failure.why)));
        self.noted().map(|noted| unfinished(&noted.wish, noted.at, None)).chain(failed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { vcpus: 1, mem_mib: 256 };

    fn failure() -> Failure {
        Failure { key: None, at: 7, instant: Instant::now(), why: "no" }
    }

    #[test]
    fn a_wish_is_noted_once_and_a_failure_is_not_repeated_at_once() {
        let mut desk = Desk::default();
        assert_eq!(desk.status("img-a", SIZE), Status::None);
        assert!(desk.wish("img-a", SIZE) && !desk.wish("img-a", SIZE));
        assert_eq!(desk.status("img-a", SIZE), Status::Building);
        let wish = desk.next().unwrap();
        assert!(!desk.wish("img-a", SIZE) && desk.next_is_none());
        assert_eq!(desk.unfinished().iter().map(|seed| seed.why).collect::<Vec<_>>(), [None]);
        desk.done(&wish, Some(Err(failure())));
        assert_eq!(desk.status("img-a", SIZE), Status::Failed { at: 7, why: "no".into() });
        assert!(!desk.wish("img-a", SIZE) && desk.wish("img-b", SIZE));
        let unfinished = desk.unfinished();
        let shown: Vec<_> = unfinished.iter().map(|seed| (seed.image_id.as_str(), seed.why)).collect();
        assert_eq!(shown, [("img-b", None), ("img-a", Some("no"))]);
        assert!(desk.add(wish), "other files may do better");
        assert!(desk.unfinished().iter().all(|seed| seed.why.is_none()));
    }

    impl Desk {
        fn next_is_none(&self) -> bool {
            self.wishes.is_empty()
        }
    }
}
