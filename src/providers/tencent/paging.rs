//! Putting a list together from pages, and knowing when it is complete. Pure.
//!
//! A [`Listing`] goes by record offset. It is complete when as many different items were seen as the
//! API announces; without an announcement, at the first page that brings nothing new. When the
//! announced number changes on the way, items may have moved past the offset: the list is asked for
//! from its beginning again. A [`Search`] goes by an offset of which it is not documented what it
//! counts.

use std::collections::HashSet;

use crate::error::{Error, Kind, Result};

/// Items asked for per page: the most that the API gives.
pub(super) const PAGE: usize = 100;
/// The largest offset that the API accepts.
const LARGEST_OFFSET: usize = 10_000;
/// How often a list that changes while it is read is begun again.
const RESTARTS: u32 = 5;

/// What tells an item from its neighbours.
pub(super) trait Keyed {
    fn key(&self) -> String;
}

/// A list under construction.
#[derive(Debug)]
pub(super) struct Listing<T> {
    pub(super) items: Vec<T>,
    seen: HashSet<String>,
    offset: usize,
    total: Option<usize>,
    restarts: u32,
}

impl<T: Keyed> Listing<T> {
    pub(super) fn new() -> Self {
        Listing {
            items: Vec::new(),
            seen: HashSet::new(),
            offset: 0,
            total: None,
            restarts: 0,
        }
    }

    /// Where the next page begins.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Takes the next page. Whether another must be asked for.
    pub(super) fn add(&mut self, total: Option<i64>, page: Vec<T>) -> Result<bool> {
        let total = total.and_then(|total| usize::try_from(total).ok());
        let changed = self.offset > 0 && total != self.total;
        if changed && self.restarts < RESTARTS {
            self.restarts += 1;
            self.items.clear();
            self.seen.clear();
            self.offset = 0;
            return Ok(true);
        }
        self.total = total;
        self.offset += page.len();
        let before = self.items.len();
        for item in page {
            if self.seen.insert(item.key()) {
                self.items.push(item);
            }
        }
        let have = self.items.len();
        let news = have > before;
        let complete = match total {
            Some(total) => have >= total,
            None => !news,
        };
        if complete {
            return Ok(false);
        }
        if !news || self.offset > LARGEST_OFFSET {
            let announced = total.map_or("no end".to_owned(), |total| format!("{total} items"));
            return Err(Error::new(
                Kind::Protocol,
                format!("Tencent Cloud announced a list of {announced} but gave {have}"),
            ));
        }
        Ok(true)
    }
}

/// A list under construction whose offset counts records, or pages: the documents of
/// DescribeBackupDownloadTask say pages, those of its siblings records.
///
/// It goes by records until a page brings nothing new, then by pages to the end: whichever is meant,
/// nothing is left then. One page is enough where the announced number says so.
#[derive(Debug)]
pub(super) struct Search<T> {
    pub(super) items: Vec<T>,
    seen: HashSet<String>,
    /// The number of the next page, once the offset is taken for one.
    page: Option<usize>,
}

impl<T: Keyed> Search<T> {
    pub(super) fn new() -> Self {
        Search {
            items: Vec::new(),
            seen: HashSet::new(),
            page: None,
        }
    }

    /// The offset to ask with next.
    pub(super) fn offset(&self) -> usize {
        self.page.unwrap_or(self.items.len())
    }

    /// Takes the next page. Whether another must be asked for.
    pub(super) fn add(&mut self, total: Option<i64>, page: Vec<T>) -> bool {
        let begins = page.first().map(T::key);
        let before = self.items.len();
        // Only pages overlap: two items of one page are two, even if they look alike.
        let seen = &self.seen;
        let unseen = page.into_iter().filter(|item| !seen.contains(&item.key()));
        self.items.extend(unseen);
        self.seen.extend(self.items[before..].iter().map(T::key));
        let have = self.items.len();
        if have == 0 || total.is_some_and(|total| have as i64 >= total) {
            return false;
        }
        self.page = match self.page {
            None if have > before => None,
            None => Some(1),
            Some(page) => {
                // A page by number does not begin where the first one does, nor one record on.
                let first: Vec<String> = self.items.iter().take(2).map(T::key).collect();
                if begins.is_none_or(|begins| first.contains(&begins)) {
                    return false;
                }
                Some(page + 1)
            }
        };
        self.offset() <= LARGEST_OFFSET
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    impl Keyed for usize {
        fn key(&self) -> String {
            self.to_string()
        }
    }

    /// Reads a list of the given pages: its length and the pages it took.
    fn read(pages: &[(Option<i64>, Range<usize>)]) -> Result<(usize, usize)> {
        let mut listing = Listing::new();
        for (number, (total, items)) in pages.iter().enumerate() {
            if !listing.add(*total, items.clone().collect())? {
                return Ok((listing.items.len(), number + 1));
            }
        }
        panic!("wanted more than {} pages", pages.len());
    }

    #[test]
    fn a_list_ends_where_its_count_is_reached() {
        assert_eq!(read(&[(Some(0), 0..0)]).unwrap(), (0, 1));
        assert_eq!(read(&[(Some(3), 0..3)]).unwrap(), (3, 1));
        let pages = [
            (Some(250), 0..100),
            (Some(250), 100..200),
            (Some(250), 200..250),
        ];
        assert_eq!(read(&pages).unwrap(), (250, 3));
        let smaller = [(Some(30), 0..20), (Some(30), 20..30)];
        assert_eq!(
            read(&smaller).unwrap(),
            (30, 2),
            "pages may be smaller than asked"
        );
    }

    #[test]
    fn without_a_count_it_ends_where_nothing_new_comes() {
        assert_eq!(read(&[(None, 0..5), (None, 5..5)]).unwrap(), (5, 2));
        assert_eq!(
            read(&[(None, 0..5), (None, 0..5)]).unwrap(),
            (5, 2),
            "not paged at all"
        );
    }

    #[test]
    fn a_list_that_changes_is_read_again() {
        let pages = [
            (Some(150), 0..100),
            (Some(149), 101..150),
            (Some(149), 1..101),
            (Some(149), 101..150),
        ];
        assert_eq!(read(&pages).unwrap(), (149, 4));
    }

    #[test]
    fn a_list_short_of_its_count_is_an_error() {
        let error = read(&[(Some(5), 0..3), (Some(5), 3..3)]).unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol);
        let repeated = read(&[(Some(150), 0..100), (Some(150), 0..100)]);
        assert_eq!(repeated.unwrap_err().kind(), Kind::Protocol);
    }

    /// Searches a list that `answer`s offsets: how much was found, and the offsets asked with.
    fn searched_by(
        answer: impl Fn(usize) -> Range<usize>,
        total: Option<i64>,
    ) -> (usize, Vec<usize>) {
        let (mut search, mut asked) = (Search::new(), Vec::new());
        loop {
            asked.push(search.offset());
            if !search.add(total, answer(search.offset()).collect()) {
                return (search.items.len(), asked);
            }
        }
    }

    /// The same for `count` items, of which a page holds `size`.
    fn searched(count: usize, size: usize, pages: bool, told: bool) -> (usize, Vec<usize>) {
        let answer = |offset: usize| {
            let start = if pages { offset * size } else { offset };
            start.min(count)..count.min(start + size)
        };
        searched_by(answer, told.then_some(count as i64))
    }

    #[test]
    fn a_search_finds_everything_whatever_its_offset_counts() {
        assert_eq!(searched(3, 100, false, true), (3, vec![0]));
        assert_eq!(searched(0, 100, true, false), (0, vec![0]));
        assert_eq!(searched(250, 100, false, true), (250, vec![0, 100, 200]));
        assert_eq!(searched(250, 100, true, true), (250, vec![0, 100, 1, 2]));
        let ignored = searched_by(|_| 0..3, None);
        assert_eq!(ignored, (3, vec![0, 3, 1]), "an offset without effect");
        assert_eq!(searched(3, 100, false, false), (3, vec![0, 3, 1]));
        for (count, size) in [(1, 1), (7, 1), (7, 2), (40, 20), (101, 20)] {
            for (pages, told) in [(false, false), (false, true), (true, false), (true, true)] {
                let found = searched(count, size, pages, told);
                assert_eq!(found.0, count, "{size} {pages} {told}: {found:?}");
            }
        }
    }
}
