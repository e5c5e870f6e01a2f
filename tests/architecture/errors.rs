//! Every error text that `docs/troubleshooting.md` explains is one of the program's.

use super::{published, texts};

/// The texts that begin the rows of `page` and stand nowhere in `sources`.
fn unknown<'a>(page: &'a str, sources: &str) -> Vec<&'a str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split_once('`').unwrap().0)
        .filter(|text| !sources.contains(text))
        .collect()
}

/// All sources in one, with string literals of several lines joined.
fn sources() -> String {
    let texts = texts("src");
    let pieces = texts.values().flat_map(|text| text.split("\\\n"));
    pieces.map(str::trim_start).collect()
}

#[test]
fn every_error_that_is_explained_is_one_of_ours() {
    let page = published("docs/troubleshooting.md");
    assert!(page.matches("\n| `").count() > 40);
    assert_eq!(unknown(&page, &sources()), [""; 0]);
}

#[test]
fn a_planted_text_is_found() {
    let page =
        "| the line holds | it means |\n|---|---|\n| `is ours` | a |\n| `is nobody's` | b |\n";
    assert_eq!(unknown(page, "\"this is ours\""), ["is nobody's"]);
}
