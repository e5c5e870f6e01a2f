//! Putting a paged list together, and knowing when it is complete. Pure.
//!
//! Pages are counted here rather than followed by `next`, whose host the server chooses. The list
//! ends where no `next` is announced and `totalCount` is reached; without either, at the first page
//! that brings nothing new, for the server may give fewer items per page than it was asked for. A list that ends short of its own count is an error: a partial listing would
//! make backups disappear.

use std::collections::HashSet;

use super::cloud::{CloudSnapshot, Job};
use super::wire::{Cluster, Page, Restore, Snapshot};
use crate::error::{Error, Kind, Result};

/// Items asked for per page: the most that Atlas gives.
pub(super) const PAGE_SIZE: usize = 500;
/// More pages than any project has.
const MOST_PAGES: u32 = 1000;

/// What tells an item from its neighbours, so that one that moved to the next page counts once.
pub(super) trait Keyed {
    fn key(&self) -> Option<&str>;
}

impl Keyed for Cluster {
    /// By id: a deleted cluster may be listed beside one that has its name now.
    fn key(&self) -> Option<&str> {
        self.id.as_deref().or(Some(&self.name))
    }
}

impl Keyed for Snapshot {
    fn key(&self) -> Option<&str> {
        Some(&self.id)
    }
}

impl Keyed for CloudSnapshot {
    fn key(&self) -> Option<&str> {
        Some(&self.id)
    }
}

impl Keyed for Job {
    fn key(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

impl Keyed for Restore {
    fn key(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// A list under construction.
#[derive(Debug)]
pub(super) struct Listing<T> {
    pub(super) items: Vec<T>,
    seen: HashSet<String>,
    pages: u32,
    /// Whether the server splits this list at all.
    paged: bool,
}

impl<T: Keyed> Listing<T> {
    pub(super) fn new(paged: bool) -> Self {
        Listing {
            paged,
            items: Vec::new(),
            seen: HashSet::new(),
            pages: 0,
        }
    }

    /// The number of the page to ask for, from 1.
    pub(super) fn next_page(&self) -> u32 {
        self.pages + 1
    }

    /// Takes the next page. Whether another must be asked for.
    pub(super) fn add(&mut self, page: Page<T>) -> Result<bool> {
        let next = page.announces_next();
        let before = self.items.len();
        for item in page.results {
            let known = item.key().map(|key| !self.seen.insert(key.to_owned()));
            if known != Some(true) {
                self.items.push(item);
            }
        }
        self.pages += 1;
        let have = self.items.len();
        let missing = page.total_count.is_some_and(|total| (have as u64) < total);
        let more = match (next, page.total_count) {
            (Some(true), _) => true,
            (_, Some(_)) => missing,
            (Some(false), None) => false,
            (None, None) => self.paged && have > before,
        };
        let complete = !more || (page.total_count.is_some() && !missing && have == before);
        if complete {
            return Ok(false);
        }
        if have == before || self.pages >= MOST_PAGES {
            return Err(Error::new(
                Kind::Protocol,
                match page.total_count {
                    Some(total) => format!(
                        "Atlas announced a list of {total} but gave {have} in {} pages",
                        self.pages
                    ),
                    None => format!("Atlas gave {} pages of a list without end", self.pages),
                },
            ));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn page(names: Range<usize>, rest: &str) -> Page<Cluster> {
        let results: Vec<String> = names.map(|n| format!(r#"{{"name":"c{n}"}}"#)).collect();
        let json = format!(r#"{{"results":[{}]{rest}}}"#, results.join(","));
        serde_json::from_str(&json).unwrap()
    }

    /// Adds pages until the listing is complete; its length and the pages it took.
    fn read(pages: Vec<Page<Cluster>>) -> Result<(usize, usize)> {
        let mut listing = Listing::new(true);
        let given = pages.len();
        for (n, page) in pages.into_iter().enumerate() {
            if !listing.add(page)? {
                return Ok((listing.items.len(), n + 1));
            }
        }
        panic!("wanted more than {given} pages");
    }

    const SELF: &str = r#","links":[{"rel":"self"}]"#;
    const NEXT: &str = r#","links":[{"rel":"self"},{"rel":"next"}]"#;

    #[test]
    fn links_count_and_a_page_without_news_each_end_a_list() {
        assert_eq!(read(vec![page(0..0, "")]).unwrap(), (0, 1));
        let bare = |ranges: &[Range<usize>]| {
            let pages = ranges.iter().map(|names| page(names.clone(), ""));
            read(pages.collect()).unwrap()
        };
        assert_eq!(bare(&[0..50, 50..99, 99..99]), (99, 3));
        assert_eq!(bare(&[0..3, 0..3]), (3, 2), "not split after all");
        assert!(!Listing::new(false).add(page(0..500, "")).unwrap());
        let linked = read(vec![page(0..2, NEXT), page(2..4, NEXT), page(4..5, SELF)]).unwrap();
        assert_eq!(linked, (5, 3), "pages may be smaller than asked");
        let counted = read(vec![
            page(0..2, r#","totalCount":3"#),
            page(2..3, r#","totalCount":3"#),
        ]);
        assert_eq!(counted.unwrap(), (3, 2));
    }

    #[test]
    fn an_item_that_moved_between_pages_counts_once() {
        let read = read(vec![
            page(0..3, r#","totalCount":5,"links":[{"rel":"next"}]"#),
            page(2..5, r#","totalCount":5,"links":[{"rel":"self"}]"#),
        ]);
        assert_eq!(read.unwrap(), (5, 2));
    }

    #[test]
    fn a_list_that_ends_short_of_its_count_is_an_error() {
        let short = read(vec![
            page(0..2, r#","totalCount":4"#),
            page(0..0, r#","totalCount":4"#),
        ]);
        assert_eq!(short.unwrap_err().kind(), Kind::Protocol);
    }

    #[test]
    fn a_list_without_end_is_an_error() {
        let again = read(vec![page(0..2, NEXT), page(0..2, NEXT)]);
        assert_eq!(again.unwrap_err().kind(), Kind::Protocol);
        let mut endless = Listing::new(true);
        let error = (0..)
            .find_map(|n| endless.add(page(n..n + 1, NEXT)).err())
            .unwrap();
        assert_eq!(error.kind(), Kind::Protocol);
    }
}
