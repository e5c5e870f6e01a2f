//! What a process is given besides its arguments, as a parameter.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

/// Environment variables and whether we are root. Values may be secrets: they are not shown.
#[derive(Clone, Default)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
    root: bool,
}

impl Environment {
    /// An environment of `variables`, for root or for an ordinary user.
    pub fn new<K, V>(variables: impl IntoIterator<Item = (K, V)>, root: bool) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        Environment {
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            root,
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
    }

    /// Whether we are root.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// A directory of the XDG base directory specification: `variable` if it is an absolute path,
    /// else `fallback` below the home directory.
    pub(super) fn xdg(&self, variable: &str, fallback: &str) -> Option<PathBuf> {
        let absolute = |name| {
            self.get(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(fallback)))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.variables.keys().collect();
        names.sort();
        f.debug_struct("Environment")
            .field("variables", &names)
            .field("root", &self.root)
            .finish()
    }
}
