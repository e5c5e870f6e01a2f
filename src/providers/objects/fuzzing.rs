//! A listing that a store, or whoever stands in its place, may send.

use http::StatusCode;

use super::listing;
use crate::providers::fuzzing::{answer, assert_told};

/// A page of a list: the next one begins behind this one, or there is none.
pub fn listings(data: &[u8]) {
    let page = match listing::read(&answer(StatusCode::OK, data)) {
        Ok(page) => page,
        Err(error) => return assert_told(&error),
    };
    for from in ["", "m", "p/"] {
        if let Ok(Some(next)) = page.next(from, false) {
            assert!(next.as_str() > from, "{next:?} is not behind {from:?}");
        }
        if let Ok(Some(next)) = page.next(from, true) {
            assert_ne!(next, from);
        }
    }
}
