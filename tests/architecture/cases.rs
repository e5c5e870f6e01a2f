//! The map of the cases in `tests/README.md` is true: each number has its row, each place that a row
//! names has a test of that number, and each test named after a number is on the map.

use std::collections::BTreeSet;

use super::{published, texts};

/// How many cases there are.
const CASES: u32 = 56;

/// What a row says instead of places.
const EXEMPT: &str = "does not apply: ";

/// A case and a file that has a test of it.
type Proof = (u32, String);

/// What is wrong with `map`, where `proofs` are the tests that there are.
fn mistakes(map: &str, proofs: &BTreeSet<Proof>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    let mut rows = BTreeSet::new();
    for line in map.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", number, case, places, ""] = cells[..] else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else {
            continue;
        };
        if !rows.insert(number) {
            wrong.push(format!("case {number} has two rows"));
        }
        if case.is_empty() {
            wrong.push(format!("case {number} says nothing"));
        }
        // Every other piece between backticks is quoted.
        let files: Vec<&str> = places.split('`').skip(1).step_by(2).collect();
        let exempt = places
            .strip_prefix(EXEMPT)
            .is_some_and(|why| !why.is_empty());
        if files.is_empty() && !exempt {
            wrong.push(format!("case {number} is neither tested nor exempt"));
        }
        named.extend(files.into_iter().map(|file| (number, file.to_owned())));
    }
    for number in 1..=CASES {
        if !rows.remove(&number) {
            wrong.push(format!("case {number} has no row"));
        }
    }
    wrong.extend(
        rows.iter()
            .map(|number| format!("there is no case {number}")),
    );
    let absent = named.difference(proofs);
    wrong.extend(absent.map(|(number, file)| format!("{file} has no test of case {number}")));
    let unnamed = proofs.difference(&named);
    wrong.extend(unnamed.map(|(number, file)| format!("case {number}: {file} is not on the map")));
    wrong
}

/// The numbers of the tests `case_NN_…` in `text`.
fn cases_in(text: &str) -> BTreeSet<u32> {
    let (mark, digits) = ("fn case_", 2);
    text.match_indices(mark)
        .filter_map(|(at, _)| text[at + mark.len()..].get(..digits)?.parse().ok())
        .collect()
}

/// All tests named after a case, by their files below the root of the project.
fn proofs() -> BTreeSet<Proof> {
    let mut proofs = BTreeSet::new();
    for directory in ["src", "tests"] {
        for (path, text) in texts(directory) {
            let cases = cases_in(&text).into_iter();
            proofs.extend(cases.map(|number| (number, format!("{directory}/{path}"))));
        }
    }
    // What this file plants.
    proofs.retain(|(_, file)| file != "tests/architecture/cases.rs");
    proofs
}

#[test]
fn every_case_is_on_the_map() {
    let wrong = mistakes(&published("tests/README.md"), &proofs());
    assert!(wrong.is_empty(), "tests/README.md:\n{}", wrong.join("\n"));
}

#[test]
fn a_planted_mistake_of_the_map_is_found() {
    let right: String = (1..=CASES)
        .map(|number| match number {
            7 => "| 7 | odd | does not apply: there is no such thing |\n".to_owned(),
            _ => format!("| {number} | it breaks | `tests/a.rs`, `src/b.rs` |\n"),
        })
        .collect();
    let proofs: BTreeSet<Proof> = (1..=CASES)
        .filter(|number| *number != 7)
        .flat_map(|number| ["tests/a.rs", "src/b.rs"].map(|file| (number, file.to_owned())))
        .collect();
    assert_eq!(mistakes(&right, &proofs), Vec::<String>::new());
    for (from, to) in [
        ("| 3 | it breaks | `tests/a.rs`, `src/b.rs` |\n", ""),
        ("| 3 | it breaks |", "| 57 | it breaks |"),
        ("| 3 | it breaks |", "| 4 | it breaks |"),
        ("| 3 | it breaks |", "| 3 | |"),
        ("| 3 | it breaks | `tests/a.rs`,", "| 3 | it breaks |"),
        (
            "| 3 | it breaks | `tests/a.rs`",
            "| 3 | it breaks | `tests/c.rs`",
        ),
        ("does not apply: there is no such thing", "later"),
    ] {
        let spoilt = right.replacen(from, to, 1);
        assert_ne!(spoilt, right);
        assert!(!mistakes(&spoilt, &proofs).is_empty(), "{from} -> {to}");
    }
    let text = "async fn case_08_x() {}\n    fn case_12_y(n in 0..1) {}\nfn case_x() {}";
    assert_eq!(cases_in(text), BTreeSet::from([8, 12]));
}
