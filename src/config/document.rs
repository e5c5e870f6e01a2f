//! A configuration file as text with places: every complaint names file, line and key.
//!
//! [`Source`] is the file, [`Section`] one of its tables and [`Entry`] one key with its value.
//! Reading never prints a value: it may be a secret, also in the wrong place.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::error::{Error, Kind, Result};
use crate::names;

/// Permission bits of everyone but the owner.
pub(super) const OTHERS: u32 = 0o077;

/// A configuration file that was read.
pub(super) struct Source {
    path: PathBuf,
    mode: u32,
    text: String,
}

impl Source {
    /// A file `config.toml` of `text` that only its owner may read.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(text: &str) -> Self {
        Source {
            path: "config.toml".into(),
            mode: 0o600,
            text: text.to_owned(),
        }
    }

    /// Where it lies, as it is shown.
    pub(super) fn shown(&self) -> String {
        names::display(&self.path.to_string_lossy())
    }

    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let shown = names::display(&path.to_string_lossy());
        let failed = |error: std::io::Error| {
            Error::new(
                Kind::Config,
                format!("cannot read the configuration {shown}"),
            )
            .with_source(error)
        };
        let mut file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
            Error::new(Kind::Config, format!("{shown}:{line}: not UTF-8 text"))
        })?;
        Ok(Source {
            path: path.to_owned(),
            mode,
            text,
        })
    }

    /// Its tables.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'_>>> {
        DeTable::parse(&self.text).map_err(|error| {
            // Only the message: the error's Display repeats the line, which may hold a secret.
            let at = error.span().map_or(self.text.len(), |span| span.start);
            let key = match self.key_on_line(at) {
                Some(key) => format!("key `{key}`: "),
                None => String::new(),
            };
            self.error(at, &format!("{key}not valid TOML: {}", error.message()))
        })
    }

    /// `words` about the byte at `at`.
    fn error(&self, at: usize, words: &str) -> Error {
        let line = line_of(self.text.as_bytes(), at);
        let path = self.shown();
        Error::new(Kind::Config, format!("{path}:{line}: {words}"))
    }

    /// The bare key before the `=` on the line of the byte at `at`.
    fn key_on_line(&self, at: usize) -> Option<&str> {
        let start = self.text[..self.text.floor_char_boundary(at)]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let (key, _) = self.text[start..].lines().next()?.split_once('=')?;
        let key = key.trim();
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        (!key.is_empty() && key.chars().all(bare)).then_some(key)
    }

    /// `path` as written in the file: relative to the file's directory.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

fn line_of(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

/// One table of the file.
#[derive(Clone)]
pub(super) struct Section<'a> {
    source: &'a Source,
    title: String,
    table: &'a DeTable<'a>,
    at: usize,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(source: &'a Source, document: &'a Spanned<DeTable<'a>>) -> Self {
        Section {
            source,
            title: String::new(),
            table: document.get_ref(),
            at: 0,
        }
    }

    /// The same table under the name that its complaints shall carry.
    pub(super) fn titled(mut self, title: String) -> Self {
        self.title = title;
        self
    }

    /// The same table, as the value of `key`.
    pub(super) fn below(mut self, key: &str) -> Self {
        let outer = if self.title.is_empty() { "" } else { ": " };
        self.title.push_str(&format!("{outer}key `{key}`"));
        self
    }

    /// Complains about the first key that is not one of `known`.
    pub(super) fn allow_only(&self, known: &[&[&str]]) -> Result<()> {
        let known = || known.iter().copied().flatten().copied();
        let unknown = self
            .table
            .keys()
            .filter(|key| known().all(|name| name != key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        let Some(key) = unknown else { return Ok(()) };
        let name = key.get_ref().as_ref();
        let mut words = format!("unknown key `{}`", names::display(name));
        if let Some(similar) = closest(name, known()) {
            words.push_str(&format!("; did you mean `{similar}`?"));
        }
        Err(self.complain(key.span().start, &words))
    }

    /// The entry of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<Entry<'_, 'a>> {
        let (name, value) = self.table.get_key_value(key)?;
        Some(Entry {
            section: self,
            key,
            at: name.span().start,
            value: value.get_ref(),
        })
    }

    /// The entry of `key`, which must be there.
    pub(super) fn require(&self, key: &'static str) -> Result<Entry<'_, 'a>> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    /// That `key` must be there.
    pub(super) fn missing(&self, key: &str) -> Error {
        self.complain(self.at, &format!("key `{key}` is missing"))
    }

    /// All keys with their values, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'_, 'a>> {
        self.table.iter().map(|(key, value)| Entry {
            section: self,
            key: key.get_ref().as_ref(),
            at: key.span().start,
            value: value.get_ref(),
        })
    }

    fn complain(&self, at: usize, words: &str) -> Error {
        if self.title.is_empty() {
            self.source.error(at, words)
        } else {
            self.source.error(at, &format!("{}: {words}", self.title))
        }
    }
}

/// The known key that `name` was probably meant to be.
pub(super) fn closest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|&(likeness, _)| likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// One key and its value.
pub(super) struct Entry<'s, 'a> {
    section: &'s Section<'a>,
    key: &'s str,
    at: usize,
    value: &'a DeValue<'a>,
}

impl<'s, 'a> Entry<'s, 'a> {
    /// The key.
    pub(super) fn key(&self) -> &'s str {
        self.key
    }

    /// The value.
    pub(super) fn value(&self) -> &'a DeValue<'a> {
        self.value
    }

    /// The file it stands in.
    pub(super) fn source(&self) -> &'a Source {
        self.section.source
    }

    /// What is wrong with this key. `words` must not repeat a value that may be secret.
    pub(super) fn error(&self, words: &str) -> Error {
        self.section
            .complain(self.at, &format!("key `{}`: {words}", self.key))
    }

    /// Another type was expected.
    pub(super) fn expected(&self, what: &str) -> Error {
        self.error(&format!("expected {what}, found {}", type_of(self.value)))
    }

    /// The value as text.
    pub(super) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// The value as text with something in it.
    pub(super) fn filled_text(&self) -> Result<&'a str> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return Err(self.error("must not be empty"));
        }
        Ok(text)
    }

    /// The value as true or false.
    pub(super) fn boolean(&self) -> Result<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    /// The value as read by one of [`super::units`].
    pub(super) fn measure<T>(&self, read: fn(&str) -> Result<T, &'static str>) -> Result<T> {
        read(self.text()?).map_err(|expected| self.error(expected))
    }

    /// The value as a list of non-empty strings.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        let DeValue::Array(items) = self.value else {
            return Err(self.expected("a list of strings"));
        };
        texts(items).ok_or_else(|| self.error("expected a list of non-empty strings"))
    }

    /// The value as one of `words`, given with what they mean.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Result<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|&(_, meaning)| meaning).ok_or_else(|| {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.error(&format!("expected one of {}", all.join(", ")))
        })
    }

    /// The value as a table of its own.
    pub(super) fn section(&self) -> Result<Section<'a>> {
        let DeValue::Table(table) = self.value else {
            return Err(self.expected("a table"));
        };
        Ok(self.subsection(self.at, table))
    }

    /// The value as an array of tables.
    pub(super) fn sections(&self) -> Result<Vec<Section<'a>>> {
        let wanted = || self.expected(&format!("tables [[{}]]", self.key));
        let DeValue::Array(items) = self.value else {
            return Err(wanted());
        };
        items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Table(table) => Ok(self.subsection(item.span().start, table)),
                _ => Err(wanted()),
            })
            .collect()
    }

    fn subsection(&self, at: usize, table: &'a DeTable<'a>) -> Section<'a> {
        Section {
            source: self.section.source,
            title: self.section.title.clone(),
            table,
            at,
        }
    }
}

impl Source {
    /// That `entry` holds a secret in plain text and this file may be read by others.
    pub(super) fn demand_private(&self, entry: &Entry<'_, '_>) -> Result<()> {
        if self.mode & OTHERS == 0 {
            return Ok(());
        }
        Err(entry.error(&format!(
            "a plain-text secret in a file that others can read (mode {:04o}); run `chmod 600` on it, or use {{ env }}, {{ file }} or {{ command }}",
            self.mode & 0o7777
        )))
    }
}

/// The non-empty strings of an array, if it holds nothing else.
pub(super) fn texts(items: &DeArray<'_>) -> Option<Vec<String>> {
    items
        .iter()
        .map(|item| {
            let text = item.get_ref().as_str()?;
            (!text.trim().is_empty()).then(|| text.to_owned())
        })
        .collect()
}

/// The type of a value, in the words of a sentence.
pub(super) fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
