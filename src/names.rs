//! Remote text to path components and back: injective, safe, at most 255 bytes. Pure.
//!
//! Whoever names instances and backups must not be able to climb out of a directory, hide a file,
//! drive a terminal or shadow another entry. [`component`] therefore percent-escapes `/`, control
//! characters and a leading `.`. There are two marks besides: [`EMPTY`] for empty text and `%~`
//! with a digest behind a name that was cut or is a [duplicate](unique). A `%` stays as it is unless
//! it begins what could be taken for an escape or a mark: then it becomes `%25`. Own entries never
//! collide: `.backupfs` begins with a dot, and a [`backup_name`] begins with a date, unlike
//! `latest`.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Most bytes in one path component (`NAME_MAX`).
pub const MAX_BYTES: usize = 255;

/// The component of empty text.
pub const EMPTY: &str = "%empty";

/// What stands before the digest of a name that is not the whole escaped text.
const DIGEST_MARK: &str = "%~";

/// Digest bytes behind [`DIGEST_MARK`]: enough that nobody can construct two equal ones.
const DIGEST_BYTES: usize = 16;

/// The path component of a piece of remote text. Different texts have different components.
pub fn component(remote: &str) -> String {
    component_within(remote, MAX_BYTES)
}

/// The remote text of a component, unless it was cut or is not one that [`component`] makes.
pub fn original(component: &str) -> Option<String> {
    if component == EMPTY {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(component.len());
    let mut at = 0;
    while at < component.len() {
        let rest = &component[at..];
        if rest.starts_with("%25") && is_ambiguous(&rest[3..], at == 0) {
            bytes.push(b'%');
            at += 3;
        } else if let Some(byte) = escaped_byte(rest, at == 0) {
            bytes.push(byte);
            at += 3;
        } else {
            let c = rest.chars().next()?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            at += c.len_utf8();
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (self::component(&text) == component).then_some(text)
}

/// The directory name of a backup: `<YYYYMMDD>T<HHMMSS>Z-<escaped id>`, the start time in UTC.
pub fn backup_name(started: Timestamp, id: &str) -> String {
    let mut name = started.strftime("%Y%m%dT%H%M%SZ-").to_string();
    name.push_str(&component_within(id, MAX_BYTES - name.len()));
    name
}

/// Gives the entries of one directory unique names, whatever the order they were listed in.
///
/// Each entry is its component and its identity: remote text that tells entries of the same name
/// apart. Of several with the same name the one with the smallest identity keeps it; the others
/// get a suffix made of their identity. The answer is in the order of `entries`.
pub fn unique<N: AsRef<str>, I: AsRef<str>>(entries: &[(N, I)]) -> Vec<String> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&at| (entries[at].0.as_ref(), entries[at].1.as_ref()));

    let mut names = vec![String::new(); entries.len()];
    let mut seen: HashMap<&str, HashMap<&str, u64>> = HashMap::new();
    for at in order {
        let (name, identity) = (entries[at].0.as_ref(), entries[at].1.as_ref());
        let same_name = seen.entry(name).or_default();
        let first = same_name.is_empty();
        let copies = same_name.entry(identity).or_default();
        names[at] = if first {
            name.to_owned()
        } else {
            let length = (name.len() as u64).to_le_bytes();
            let suffix = digest_suffix(&[
                &length,
                name.as_bytes(),
                &copies.to_le_bytes(),
                identity.as_bytes(),
            ]);
            with_suffix(name, &suffix, MAX_BYTES)
        };
        *copies += 1;
    }
    names
}

/// Text as terminals and logs may show it: characters that move the cursor, reorder or hide
/// neighbours become `\u{…}`.
pub fn display(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Unicode's format characters: marks of direction, joiners, separators, tags.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{061C}' | '\u{180E}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

fn component_within(remote: &str, limit: usize) -> String {
    if remote.is_empty() {
        return EMPTY.to_owned();
    }
    let escaped = escape(remote);
    if escaped.len() <= limit {
        escaped
    } else {
        with_suffix(&escaped, &digest_suffix(&[remote.as_bytes()]), limit)
    }
}

fn escape(remote: &str) -> String {
    let mut escaped = String::with_capacity(remote.len());
    for (at, c) in remote.char_indices() {
        let marks = c == '%' && is_ambiguous(&remote[at + 1..], at == 0);
        if marks || c == '/' || c.is_control() || (c == '.' && at == 0) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                push_escaped(&mut escaped, byte);
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a `%` before `rest` could be taken for the beginning of an escape or a mark, perhaps
/// one whose own `%` is escaped; `first` when it begins the name.
fn is_ambiguous(rest: &str, first: bool) -> bool {
    let mut rest = rest;
    while let Some(inner) = rest.strip_prefix("25") {
        rest = inner;
    }
    let mark = rest.starts_with('~') || (first && rest == &EMPTY[1..]);
    mark || hex_byte(rest).is_some_and(|byte| is_escaped(byte, first))
}

/// The byte that `text` begins with an escape of; `first` when `text` begins the name.
fn escaped_byte(text: &str, first: bool) -> Option<u8> {
    hex_byte(text.strip_prefix('%')?).filter(|byte| is_escaped(*byte, first))
}

/// The byte that two upper-case hex digits at the beginning of `text` write.
fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.as_bytes().get(..2)?;
    let plain = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    let digits = std::str::from_utf8(digits)
        .ok()
        .filter(|_| digits.iter().all(plain))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Bytes that escaping writes: those of `/`, of control characters (ASCII's, and the second ones
/// of U+0080 to U+009F after 0xC2), and of a leading dot.
fn is_escaped(byte: u8, first: bool) -> bool {
    matches!(byte, b'/' | 0..=0x1F | 0x7F..=0x9F | 0xC2) || (byte == b'.' && first)
}

fn push_escaped(to: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    to.push('%');
    to.push(char::from(HEX[usize::from(byte >> 4)]));
    to.push(char::from(HEX[usize::from(byte & 15)]));
}

fn digest_suffix(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    let mut suffix = DIGEST_MARK.to_owned();
    for byte in &digest.finalize()[..DIGEST_BYTES] {
        write!(suffix, "{byte:02x}").expect("writing to a String cannot fail");
    }
    suffix
}

/// As much of `escaped` as fits before `suffix`, without splitting a character or an escape.
fn with_suffix(escaped: &str, suffix: &str, limit: usize) -> String {
    let mut keep = escaped.floor_char_boundary(limit - suffix.len());
    if keep < escaped.len() {
        let tail = &escaped.as_bytes()[keep.saturating_sub(2)..keep];
        if let Some(at) = tail.iter().position(|&byte| byte == b'%') {
            keep -= tail.len() - at;
        }
    }
    format!("{}{suffix}", &escaped[..keep])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in [
            "M2AWS",
            "my cluster-0",
            "a.b.tar.gz",
            "~",
            "-rf",
            "备份",
            "é",
        ] {
            assert_eq!(component(name), name);
        }
    }

    #[test]
    fn case_49_dangerous_text_is_escaped() {
        for (remote, expected) in [
            ("", "%empty"),
            (".", "%2E"),
            ("..", "%2E."),
            (".backupfs", "%2Ebackupfs"),
            ("../../etc", "%2E.%2F..%2Fetc"),
            ("a/b", "a%2Fb"),
            ("a\0b", "a%00b"),
            ("50%", "50%"),
            ("sp ace+plus%25.gz", "sp ace+plus%25.gz"),
            ("a%2Fb", "a%252Fb"),
            ("a%252Fb", "a%25252Fb"),
            ("a%2fb", "a%2fb"),
            ("%2Ea", "%252Ea"),
            ("a%2E", "a%2E"),
            ("a%~0", "a%25~0"),
            ("%empty", "%25empty"),
            ("a\nb\x1b[31m\x7f", "a%0Ab%1B[31m%7F"),
            ("\u{85}", "%C2%85"),
        ] {
            assert_eq!(component(remote), expected, "{remote:?}");
            assert_eq!(original(expected).as_deref(), Some(remote));
        }
    }

    #[test]
    fn only_what_component_makes_has_an_original() {
        for bad in ["", ".", "a/b", "%~00", "%C2", "%85"] {
            assert_eq!(original(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn long_names_are_cut_and_told_apart() {
        let (a, b) = ("x".repeat(300) + "a", "x".repeat(300) + "b");
        assert_eq!(component(&a).len(), MAX_BYTES);
        assert_ne!(component(&a), component(&b));
        assert_eq!(original(&component(&a)), None);
        // A cut name, taken for remote text, is not its own component.
        assert_ne!(component(&component(&a)), component(&a));
        assert_eq!(component(&"x".repeat(255)), "x".repeat(255));
    }

    #[test]
    fn a_backup_is_named_by_its_start_and_id() {
        let started: Timestamp = "2024-03-09T08:07:06.999Z".parse().unwrap();
        assert_eq!(
            backup_name(started, "65f/1"),
            "20240309T080706Z-65f%2F1",
            "UTC, whole seconds"
        );
        assert_eq!(backup_name(started, ""), "20240309T080706Z-%empty");
        assert_eq!(
            backup_name(started, &"i".repeat(400)).len(),
            MAX_BYTES,
            "the date counts"
        );
    }

    #[test]
    fn duplicates_get_a_suffix_that_does_not_depend_on_order() {
        let listed = [("a", "2"), ("b", ""), ("a", "1"), ("a", "3"), ("a", "3")];
        let names = unique(&listed);
        assert_eq!(names[1], "b");
        assert_eq!(names[2], "a", "the smallest identity keeps the name");
        assert!(names[0].starts_with("a%~"));
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 5);

        let mut reversed = listed;
        reversed.reverse();
        let mut again = unique(&reversed);
        again.reverse();
        assert_eq!(again[..3], names[..3]);
        assert_eq!(
            again[3..].iter().collect::<HashSet<_>>(),
            names[3..].iter().collect::<HashSet<_>>()
        );
    }

    #[test]
    fn display_hides_no_character() {
        assert_eq!(display("a\x1b[2J\u{202e}gpj"), "a\\u{1b}[2J\\u{202e}gpj");
        assert_eq!(display("M2 备份 é"), "M2 备份 é");
    }

    /// Text with many of the characters that matter, of all lengths around the cap.
    fn remote() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[./%~0-9a-f\u{0}-\u{20}\u{7f}-\u{a0}]{0,12}",
            "(%|25|2F|2E|C2|85|~|/|[.]|empty|a){0,6}",
            "[%/x]{60,130}",
            "[éx备/]{100,300}",
        ]
    }

    fn is_safe(name: &str) -> bool {
        !matches!(name, "" | "." | "..")
            && !name.starts_with('.')
            && !name.contains('/')
            && !name.chars().any(char::is_control)
            && name.len() <= MAX_BYTES
    }

    proptest! {
        #[test]
        fn components_are_safe_and_stable(remote in remote()) {
            let name = component(&remote);
            prop_assert!(is_safe(&name), "{:?}", name);
            prop_assert_eq!(&name, &component(&remote));
            if let Some(back) = original(&name) {
                prop_assert_eq!(back, remote);
            } else {
                prop_assert!(name.contains(DIGEST_MARK), "{:?}", name);
            }
        }

        #[test]
        fn case_49_components_are_injective(a in remote(), b in remote()) {
            prop_assert_eq!(a == b, component(&a) == component(&b));
        }

        #[test]
        fn an_original_comes_only_from_its_component(name in remote()) {
            if let Some(text) = original(&name) {
                prop_assert_eq!(component(&text), name);
            }
        }

        #[test]
        fn backup_names_are_safe(second in 0i64..4_102_444_800, id in remote()) {
            let started = Timestamp::from_second(second).unwrap();
            let name = backup_name(started, &id);
            prop_assert!(is_safe(&name), "{:?}", name);
            prop_assert_ne!(name, "latest");
        }

        #[test]
        fn case_49_unique_names_are_unique_and_safe(
            listed in proptest::collection::vec(("[ab]?", "[cd]?"), 0..8),
            long in proptest::bool::ANY,
        ) {
            let entries: Vec<(String, String)> = listed
                .into_iter()
                .map(|(name, identity)| {
                    let name = if long { name.repeat(400) } else { name };
                    (component(&name), identity)
                })
                .collect();
            let names = unique(&entries);
            prop_assert_eq!(names.len(), entries.len());
            prop_assert!(names.iter().all(|name| is_safe(name)));
            prop_assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        }

        #[test]
        fn display_is_one_visible_line(text in any::<String>()) {
            prop_assert!(!display(&text).chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }
}
