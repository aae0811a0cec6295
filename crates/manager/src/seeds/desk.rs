//! Which seeds there are, which are to be made, and which could not be. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::key::Key;
use super::{Seed, Size, Status};

/// How long a seed that could not be made is not tried again for another start of a VM.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// A seed that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub(super) image_id: String,
    pub(super) size: Size,
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
    building: Option<Wish>,
    wishes: VecDeque<Wish>,
}

impl Desk {
    /// Notes a wish after a start of a VM; false if it is noted already or has just failed.
    pub(super) fn wish(&mut self, image_id: &str, size: Size) -> bool {
        let wish = Wish { image_id: image_id.to_owned(), size };
        if self.failed.get(&wish).is_some_and(|failure| failure.instant.elapsed() < RETRY_AFTER) {
            return false;
        }
        self.add(wish)
    }

    /// Notes a wish; false if it is noted already.
    pub(super) fn add(&mut self, wish: Wish) -> bool {
        if self.building.as_ref() == Some(&wish) || self.wishes.contains(&wish) {
            return false;
        }
        self.wishes.push_back(wish);
        true
    }

    /// Takes the next wish to work on it.
    pub(super) fn next(&mut self) -> Option<Wish> {
        self.building = self.wishes.pop_front();
        self.building.clone()
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
        let wish = Wish { image_id: image_id.to_owned(), size };
        if self.building.as_ref() == Some(&wish) || self.wishes.contains(&wish) {
            return Status::Building;
        }
        let mut ready = self.ready.values().filter(|seed| seed.image_id == image_id && seed.size == size);
        match (ready.next(), self.failed.get(&wish)) {
            (Some(seed), _) => Status::Ready(seed.created_at),
            (None, Some(failure)) => Status::Failed { at: failure.at, why: failure.why.to_owned() },
            (None, None) => Status::None,
        }
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
        desk.building = Some(wish.clone());
        desk.done(&wish, Some(Err(failure())));
        assert_eq!(desk.status("img-a", SIZE), Status::Failed { at: 7, why: "no".into() });
        assert!(!desk.wish("img-a", SIZE) && desk.wish("img-b", SIZE));
        assert!(desk.add(wish), "other files may do better");
    }

    impl Desk {
        fn next_is_none(&self) -> bool {
            self.wishes.is_empty()
        }
    }
}
