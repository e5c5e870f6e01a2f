//! Which configuration file is read: `--config`, then the environment, then the usual places.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Environment;
use crate::error::{Error, Kind, Result};
use crate::names;

/// The environment variable that names the file.
pub const VARIABLE: &str = "MONGO_BACKUPFS_CONFIG";

const SYSTEM: &str = "/etc/mongo-backupfs/config.toml";

/// The file to read: `flag` if it is given, else what [`VARIABLE`] names, else the first of
/// [`places`] that exists.
pub fn locate(flag: Option<&Path>, environment: &Environment) -> Result<PathBuf> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = environment.get(VARIABLE) {
        if path.is_empty() {
            return Err(Error::new(
                Kind::Config,
                format!("{VARIABLE} is empty; unset it or name a file"),
            ));
        }
        return Ok(path.into());
    }
    let places = places(environment);
    if let Some(found) = places.iter().find(|path| is_there(path)) {
        return Ok(found.clone());
    }
    let shown: Vec<String> = places
        .iter()
        .map(|path| names::display(&path.to_string_lossy()))
        .collect();
    Err(Error::new(
        Kind::Config,
        format!(
            "no configuration found at {}; `mongo-backupfs config example > config.toml` writes one to start from, `--config config.toml` reads it",
            shown.join(" or ")
        ),
    ))
}

/// The usual places, in the order they are tried; never none.
pub fn places(environment: &Environment) -> Vec<PathBuf> {
    let personal = environment
        .xdg("XDG_CONFIG_HOME", ".config")
        .map(|directory| directory.join("mongo-backupfs/config.toml"));
    personal.into_iter().chain([SYSTEM.into()]).collect()
}

/// Whether something stands at `path`. A place that may not be looked at counts: reading it will
/// say why, where passing it over would silently pick another file.
pub fn is_there(path: &Path) -> bool {
    !matches!(
        path.symlink_metadata().map_err(|error| error.kind()),
        Err(ErrorKind::NotFound | ErrorKind::NotADirectory)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_beats_environment_beats_usual_places() {
        let home = tempfile::tempdir().unwrap();
        let personal = home.path().join("mongo-backupfs/config.toml");
        std::fs::create_dir_all(personal.parent().unwrap()).unwrap();
        std::fs::write(&personal, "").unwrap();
        let bare = Environment::new([("XDG_CONFIG_HOME", home.path())], false);
        let named = Environment::new(
            [
                ("XDG_CONFIG_HOME", home.path()),
                (VARIABLE, Path::new("/named")),
            ],
            false,
        );

        assert_eq!(locate(None, &bare).unwrap(), personal);
        assert_eq!(locate(None, &named).unwrap(), Path::new("/named"));
        let flag = Some(Path::new("flag.toml"));
        assert_eq!(locate(flag, &named).unwrap(), Path::new("flag.toml"));
    }

    #[test]
    fn the_personal_place_is_below_home_unless_xdg_says_otherwise() {
        let home = Environment::new([("HOME", "/home/a")], false);
        let xdg = Environment::new([("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/x")], false);
        let relative = Environment::new([("HOME", "/home/a"), ("XDG_CONFIG_HOME", "x")], false);
        let personal = |environment| places(environment)[0].clone();
        let below_home = Path::new("/home/a/.config/mongo-backupfs/config.toml");
        assert_eq!(personal(&home), below_home);
        assert_eq!(personal(&xdg), Path::new("/x/mongo-backupfs/config.toml"));
        assert_eq!(personal(&relative), below_home);
        assert_eq!(personal(&Environment::default()), Path::new(SYSTEM));
    }

    #[test]
    fn an_empty_variable_is_an_error() {
        let environment = Environment::new([(VARIABLE, "")], false);
        let error = locate(None, &environment).unwrap_err();
        assert!(error.to_string().contains(VARIABLE), "{error}");
    }
}
