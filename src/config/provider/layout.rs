//! Where backups lie in a bucket: in folders such as `{instance}/{backup}/{shard}/`, or as a known
//! tool puts them there. Pure.

use std::fmt;

/// What the folders of a bucket mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// As Percona Backup for MongoDB writes them.
    Pbm,
    /// Folders named by instance, backup and shard.
    Folders(Pattern),
}

/// What a folder's name may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `{instance}`
    Instance,
    /// `{backup}`
    Backup,
    /// `{shard}`
    Shard,
}

impl Field {
    /// Every field.
    pub const EACH: [Field; 3] = [Field::Instance, Field::Backup, Field::Shard];

    const ALL: [(&'static str, Field); 3] = [
        ("{instance}", Field::Instance),
        ("{backup}", Field::Backup),
        ("{shard}", Field::Shard),
    ];
}

/// The names that are known on the way down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names([Option<String>; Field::ALL.len()]);

impl Names {
    /// What `field` is, if that is known.
    pub fn get(&self, field: Field) -> Option<&str> {
        self.0[field as usize].as_deref()
    }

    /// The same, and `field` is `name`.
    #[must_use]
    pub fn with(&self, field: Field, name: &str) -> Self {
        let mut names = self.clone();
        names.0[field as usize] = Some(name.to_owned());
        names
    }
}

/// Folders below each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Folder>);

/// The name of one folder: text and fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

/// `{instance}/{backup}/{shard}/`
impl Default for Layout {
    fn default() -> Self {
        let folders = Field::ALL.map(|(_, field)| Folder(vec![Piece::Field(field)]));
        Layout::Folders(Pattern(folders.into()))
    }
}

impl Layout {
    /// What `text` in the configuration means, or what is wrong with it. Slashes at its ends do not
    /// matter.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "pbm" => Ok(Layout::Pbm),
            _ => Pattern::parse(text).map(Layout::Folders),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layout::Pbm => f.write_str("pbm"),
            Layout::Folders(Pattern(folders)) => {
                folders.iter().try_for_each(|folder| write!(f, "{folder}/"))
            }
        }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Field(field) => f.write_str(Field::ALL[*field as usize].0),
        })
    }
}

impl Pattern {
    /// Reads `text` with `{backup}` once and the other fields at most once.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        for (word, field) in Field::ALL {
            let often = text.matches(word).count();
            if often > 1 || (often == 0 && field == Field::Backup) {
                return Err(
                    "expected `{backup}` once, and `{instance}` and `{shard}` at most once; or `pbm`",
                );
            }
        }
        let folders = text.trim_matches('/').split('/').map(Folder::parse);
        folders.collect::<Result<_, _>>().map(Pattern)
    }

    /// The folders, outermost first.
    pub fn folders(&self) -> &[Folder] {
        &self.0
    }

    /// Whether a folder is named by `field`.
    pub fn has(&self, field: Field) -> bool {
        self.depth(&[field]) > 0
    }

    /// How many folders deep all of `fields` are known; those that name no folder do not count.
    pub fn depth(&self, fields: &[Field]) -> usize {
        let names = |folder: &Folder| {
            let mut pieces = folder.0.iter();
            pieces.any(|piece| matches!(piece, Piece::Field(field) if fields.contains(field)))
        };
        self.0.iter().rposition(names).map_or(0, |last| last + 1)
    }
}

impl Folder {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if matches!(text, "" | "." | "..") {
            return Err("a folder must have a name, other than `.` and `..`");
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let field = Field::ALL.iter().find(|(word, _)| rest.starts_with(word));
            if let Some((word, field)) = field {
                if let Some(Piece::Field(_)) = pieces.last() {
                    return Err("two names need a text or a slash between them");
                }
                pieces.push(Piece::Field(*field));
                rest = &rest[word.len()..];
                continue;
            }
            let next = rest.char_indices().skip(1).find(|(_, c)| *c == '{');
            let end = next.map_or(rest.len(), |(at, _)| at);
            let (text, later) = rest.split_at(end);
            if text.contains(['{', '}']) {
                return Err("only `{instance}`, `{backup}` and `{shard}` are known");
            }
            pieces.push(Piece::Text(text.to_owned()));
            rest = later;
        }
        Ok(Folder(pieces))
    }

    /// Its name, if `known` has all that it is made of; else what that name begins with.
    pub fn name(&self, known: &Names) -> Result<String, String> {
        let mut name = String::new();
        for piece in &self.0 {
            match piece.text(known) {
                Some(text) => name.push_str(text),
                None => return Err(name),
            }
        }
        Ok(name)
    }

    /// What `name` tells beyond `known`; `None` for a folder that does not fit. Of two fields the
    /// first gets as much of the name as it can.
    pub fn read(&self, name: &str, known: &Names) -> Option<Names> {
        read(&self.0, name, known)
    }
}

impl Piece {
    fn text<'a>(&'a self, known: &'a Names) -> Option<&'a str> {
        match self {
            Piece::Text(text) => Some(text),
            Piece::Field(field) => known.get(*field),
        }
    }
}

fn read(pieces: &[Piece], name: &str, known: &Names) -> Option<Names> {
    let Some((first, later)) = pieces.split_first() else {
        return name.is_empty().then(|| known.clone());
    };
    match (first.text(known), first) {
        (Some(text), _) => read(later, name.strip_prefix(text)?, known),
        (None, Piece::Field(field)) => {
            let ends = (1..=name.len()).rev();
            let mut splits = ends.filter_map(|end| name.split_at_checked(end));
            splits.find_map(|(own, rest)| read(later, rest, &known.with(*field, own)))
        }
        (None, Piece::Text(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn told(text: &str, name: &str) -> Option<[Option<String>; 3]> {
        let names = pattern(text).0[0].read(name, &Names::default());
        names.map(|names| names.0)
    }

    #[test]
    fn layouts_are_read() {
        assert_eq!(Layout::parse("pbm"), Ok(Layout::Pbm));
        for text in [
            "pbm",
            "{instance}/{backup}/{shard}/",
            "a/{instance}.x{backup}/b/",
        ] {
            assert_eq!(Layout::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Layout::default().to_string(),
            "{instance}/{backup}/{shard}/"
        );
        let deep = pattern("/a/{instance}/x-{backup}/{shard}/data");
        assert_eq!(deep.folders().len(), 5);
        assert_eq!(deep.depth(&[Field::Instance]), 2);
        assert_eq!(deep.depth(&[Field::Backup, Field::Shard]), 4);
        let flat = pattern("{backup}");
        assert!(flat.has(Field::Backup) && !flat.has(Field::Shard));
        assert_eq!(flat, pattern("{backup}/"));
        for (text, word) in [
            ("", "expected `{backup}` once"),
            ("{instance}/{shard}/", "expected `{backup}` once"),
            ("{backup}/{backup}/", "expected `{backup}` once"),
            ("{backup}/{node}/", "are known"),
            ("{backup}/a}b/", "are known"),
            ("{backup}/{", "are known"),
            ("{instance}{backup}/", "between"),
            ("{backup}//{shard}", "must have a name"),
            ("../{backup}", "must have a name"),
        ] {
            let why = Layout::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    #[test]
    fn names_are_read_from_folders() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told("{backup}", "x"), Some([None, some("x"), None]));
        assert_eq!(
            told("d-{backup}.d", "d-x.d.d"),
            Some([None, some("x.d"), None])
        );
        assert_eq!(told("d-{backup}", "e-x"), None);
        assert_eq!(told("d-{backup}", "d-"), None, "a name is never empty");
        assert_eq!(
            told("{backup}-{shard}", "2026-01-05-rs0"),
            Some([None, some("2026-01-05"), some("rs0")])
        );
        assert_eq!(
            told("{instance}目{backup}", "é目ü"),
            Some([some("é"), some("ü"), None])
        );
    }

    #[test]
    fn what_is_known_is_not_read_but_compared() {
        let folder = &pattern("{instance}_{backup}").0[0];
        let known = Names::default().with(Field::Instance, "a_b");
        assert_eq!(folder.name(&known), Err("a_b_".to_owned()));
        assert_eq!(
            folder.read("a_b_c", &known).unwrap().get(Field::Backup),
            Some("c")
        );
        assert_eq!(folder.read("a_c_b", &known), None);
        let known = known.with(Field::Backup, "c");
        assert_eq!(folder.name(&known), Ok("a_b_c".to_owned()));
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_what_it_was_made_of(
            backup in "[^/]{1,12}", shard in "[^/~]{1,12}", text in "[a-z.=-]{0,4}"
        ) {
            let pattern = pattern(&format!("{text}{{backup}}~{{shard}}{text}"));
            let names = Names::default().with(Field::Backup, &backup).with(Field::Shard, &shard);
            let name = pattern.0[0].name(&names).unwrap();
            prop_assert_eq!(pattern.0[0].read(&name, &Names::default()), Some(names));
        }

        #[test]
        fn no_text_is_too_strange(layout in ".{0,40}", name in ".{0,40}") {
            if let Ok(pattern) = Pattern::parse(&layout) {
                for folder in pattern.folders() {
                    if let Some(names) = folder.read(&name, &Names::default()) {
                        prop_assert_eq!(folder.name(&names), Ok(name.clone()));
                    }
                }
            }
        }
    }
}
