//! What the documents name exists: files and headings that they link to, attributes, errors of system
//! calls, signals.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::published;

/// All pages, by their paths below the root of the project.
pub fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    for directory in ["", "docs", "docs/clouds", "tests"] {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        for entry in fs::read_dir(place).unwrap() {
            let path = PathBuf::from(directory).join(entry.unwrap().file_name());
            if path.extension().is_some_and(|kind| kind == "md") {
                pages.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    pages
}

/// Where the links of `page` lead that are not to other sites.
fn links(page: &str) -> Vec<&str> {
    let mut code = false;
    let prose = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !fence && !code
    });
    let targets = prose.flat_map(|line| {
        let rests = line.split("](").skip(1);
        rests.filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
    });
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors of a page: its headings, as forges name them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || "- _".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// `target` as seen from the page at `from`: a path below the root of the project, and an anchor.
fn resolved<'a>(from: &str, target: &'a str) -> (PathBuf, Option<&'a str>) {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    if path.is_empty() {
        return (from.into(), anchor);
    }
    let mut place = PathBuf::new();
    let whole = Path::new(from).parent().unwrap().join(path);
    for part in whole.components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            part => place.push(part),
        }
    }
    (place, anchor)
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 12, "{pages:?}");
    let mut dead = Vec::new();
    for page in &pages {
        for link in links(&published(page)) {
            let (place, anchor) = resolved(page, link);
            let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(&place).exists();
            let place = place.to_str().unwrap();
            let found =
                there && anchor.is_none_or(|anchor| anchors(&published(place)).contains(anchor));
            if !found {
                dead.push(format!("{page}: {link}"));
            }
        }
    }
    assert_eq!(dead, [""; 0]);
}

/// The words of `text` that begin with `prefix`, without it.
fn words_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let rests = text.split(prefix).skip(1);
    let words = rests.map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        rest[..end.unwrap_or(rest.len())]
            .trim_end_matches('-')
            .to_owned()
    });
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn the_attributes_are_those_that_are_documented() {
    let prefix = "user.backupfs.";
    let source = published("src/fs/xattr.rs");
    let shown = words_after(&source, &format!("\"{prefix}"));
    assert!(shown.len() > 12, "{shown:?}");
    let rows: String = published("docs/semantics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `user.backupfs."))
        .map(|row| format!("{prefix}{row}\n"))
        .collect();
    assert_eq!(words_after(&rows, prefix), shown);
    for page in pages() {
        let named = words_after(&published(&page), prefix);
        let unknown: Vec<_> = named.difference(&shown).collect();
        assert!(unknown.is_empty(), "{page}: {unknown:?}");
    }
}

#[test]
fn the_errors_of_system_calls_are_those_that_are_documented() {
    let code = published("src/error.rs");
    let answered = words_after(&code, "=> libc::");
    assert!(answered.len() > 12, "{answered:?}");
    let readme = published("README.md");
    let table = readme.split("| errno | means |").nth(1).unwrap();
    let table = table.split("\n\n").take(2).collect::<String>();
    let documented = words_after(&table, "`E")
        .into_iter()
        .map(|word| format!("E{word}"));
    assert_eq!(documented.collect::<BTreeSet<_>>(), answered);
}

#[test]
fn the_signals_are_those_that_are_documented() {
    let listened = words_after(&published("src/mount/signals.rs"), "listen(SignalKind::");
    let names = listened.iter().map(|kind| match kind.as_str() {
        "terminate" => "SIGTERM",
        "interrupt" => "SIGINT",
        "hangup" => "SIGHUP",
        "user" => "SIGUSR1",
        other => panic!("what is {other} called?"),
    });
    let readme = published("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| SIG"));
    let first = rows.map(|row| row.split('|').next().unwrap());
    let documented: BTreeSet<String> = first
        .flat_map(|cell| cell.split(", SIG"))
        .map(|name| format!("SIG{}", name.trim()))
        .collect();
    assert_eq!(documented, names.map(str::to_owned).collect());
}

#[test]
fn planted_links_are_taken_apart() {
    let page = "See [a](b.md#c), [d](../e.md) and [f](https://g/h).\n```\n[i](j)\n```\n";
    assert_eq!(links(page), ["b.md#c", "../e.md"]);
    assert_eq!(
        resolved("docs/x.md", "b.md#c"),
        ("docs/b.md".into(), Some("c"))
    );
    assert_eq!(resolved("docs/x/y.md", "../../e.md"), ("e.md".into(), None));
    assert_eq!(
        resolved("docs/x.md", "#here"),
        ("docs/x.md".into(), Some("here"))
    );
    let found = anchors("# A: b-c, `d_e`\ntext\n## What it costs\n");
    assert_eq!(
        found,
        BTreeSet::from(["a-b-c-d_e".to_owned(), "what-it-costs".to_owned()])
    );
    let words = words_after("`x.state`, x.source-name; x.", "x.");
    assert_eq!(
        words,
        BTreeSet::from(["source-name".to_owned(), "state".to_owned()])
    );
}
