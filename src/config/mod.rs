//! Configuration: TOML file, environment and flags become one checked [`Config`].
//!
//! Everything wrong is one [`Kind::Config`] error of one line that names the file, the line and the
//! key, or the flag or variable. Nothing is read but the file itself and what it names: certificate
//! and key files, and the output of secret commands. The process environment is a parameter.

mod document;
mod environment;
pub mod fstab;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod locate;
mod mount;
mod provider;
mod reference;
mod secrets;
mod settings;
pub mod units;

use std::path::Path;

use document::{Section, Source};

pub use environment::Environment;
pub use locate::{VARIABLE, is_there, locate, places};
pub use mount::{MountConfig, OnOpen};
pub use provider::{
    AliyunConfig, ArchiveFormat, AtlasAuth, AtlasConfig, BucketConfig, BucketService, CosConfig,
    Field, Folder, Layout, Names, Network, OssConfig, Pattern, ProviderConfig, ProviderKind,
    TencentConfig, UcloudConfig,
};
pub use reference::reference;
pub use settings::MountArgs;

use crate::error::{Error, Kind, Result};

/// A complete commented configuration file.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Everything the program is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to mount.
    pub mount: MountConfig,
    /// The accounts, in the order of the file; names are unique.
    pub providers: Vec<ProviderConfig>,
}

impl Config {
    /// Reads the file at `path` and lays the environment and `flags` over its `[mount]` table.
    pub fn load(path: &Path, flags: &MountArgs, environment: &Environment) -> Result<Self> {
        Self::read(&Source::read(path)?, flags, environment)
    }

    fn read(source: &Source, flags: &MountArgs, environment: &Environment) -> Result<Self> {
        let document = source.parse()?;
        let root = Section::root(source, &document);
        root.allow_only(&[&["mount", "provider"]])?;

        let mut mount = MountConfig::defaults(environment);
        if let Some(entry) = root.get("mount") {
            mount.apply_file(&entry.section()?.titled("[mount]".into()))?;
        }
        mount.apply_environment(environment)?;
        mount.apply_flags(flags)?;
        mount.check()?;

        let Some(entry) = root.get("provider") else {
            let path = source.shown();
            let words = "no [[provider]] is configured; `mongo-backupfs config example` shows how";
            return Err(Error::new(Kind::Config, format!("{path}: {words}")));
        };
        let providers = provider::read(entry.sections()?, environment)?;
        Ok(Config { mount, providers })
    }
}
