//! Every error text that the documents explain, in tables that begin with [`HEADING`], is one of the
//! program's.

use super::documents::pages;
use super::{published, texts};

const HEADING: &str = "| the line holds |";

/// The texts that begin the rows of the tables of errors in `page`.
fn explained(page: &str) -> Vec<&str> {
    let mut errors = false;
    let rows = page.lines().filter_map(|line| {
        errors = line.starts_with(HEADING) || errors && line.starts_with('|');
        line.strip_prefix("| `").filter(|_| errors)
    });
    rows.map(|row| row.split_once('`').unwrap().0).collect()
}

/// Those that stand nowhere in `sources`.
fn unknown<'a>(page: &'a str, sources: &str) -> Vec<&'a str> {
    let texts = explained(page).into_iter();
    texts.filter(|text| !sources.contains(text)).collect()
}

/// All sources in one, with string literals of several lines joined.
fn sources() -> String {
    let texts = texts("src");
    let pieces = texts.values().flat_map(|text| text.split("\\\n"));
    pieces.map(str::trim_start).collect()
}

#[test]
fn every_error_that_is_explained_is_one_of_ours() {
    let sources = sources();
    let mut explanations = 0;
    for name in pages() {
        let page = published(&name);
        explanations += explained(&page).len();
        assert_eq!(unknown(&page, &sources), [""; 0], "{name}");
        let cloud = name.starts_with("docs/clouds/");
        assert!(
            !cloud || explained(&page).len() >= 3,
            "{name} explains no error"
        );
    }
    assert!(explanations > 80, "{explanations}");
}

#[test]
fn a_planted_text_is_found() {
    let page =
        "| the line holds | it means |\n|---|---|\n| `is ours` | a |\n| `is nobody's` | b |\n";
    assert_eq!(unknown(page, "\"this is ours\""), ["is nobody's"]);
    assert_eq!(unknown("| key |\n|---|\n| `is a key` |\n", ""), [""; 0]);
}
