//! The reference of the configuration, written from the tables that reading it goes by.

use std::fmt::Write as _;

use super::provider::{BucketService, keys, options_of};
use super::settings::SETTINGS;
use super::{Environment, MountConfig};
use keys::{Table, Unless};

const OPENING: &str = "\
# Configuration

Written by `mongo-backupfs config reference` from the tables that the program reads its configuration by.
`mongo-backupfs config example` prints a commented file, `mongo-backupfs config check` says what was understood.

The file is `--config FILE`, else `$MONGO_BACKUPFS_CONFIG`, else `$XDG_CONFIG_HOME/mongo-backupfs/config.toml`, else
`/etc/mongo-backupfs/config.toml`. An unknown key is an error.

* **Durations** are written `500ms`, `10s`, `5m`, `2h`, `1d`; **sizes** `64MiB`, `50GiB` (powers of 1024) or `500MB` (of 1000);
  **modes** in octal, as text.
* **Secrets** are `{ env = \"NAME\" }`, `{ file = \"/path\" }` (readable by its owner only), `{ command = \"…\" }` (a line for
  `sh`, or a list of words), or text, if only its owner can read the configuration file.

## `[mount]`

Each key is also a flag and an environment variable. The flag counts before the variable, the variable before the file.

| key | default | flag | environment | meaning |
|---|---|---|---|---|
";

/// The whole reference, as Markdown.
pub fn reference() -> String {
    let mut text = OPENING.to_owned();
    let mount = MountConfig::defaults(&root());
    for setting in &SETTINGS {
        row(
            &mut text,
            &[
                code(setting.key),
                code(&setting.shown(&mount)),
                code(&format!("--{}", setting.flag())),
                code(&setting.variable()),
                setting.help.to_owned(),
            ],
        );
    }
    text += "\nThe two directories are those of root; for others they are `mongo-backupfs` below `$XDG_CACHE_HOME` \
             (`~/.cache`) and\n`$XDG_STATE_HOME` (`~/.local/state`).\n\n## `[[provider]]`\n\nOne table for each account.\n";
    for table in [
        &keys::COMMON,
        &keys::ATLAS,
        &keys::TENCENT,
        &keys::COS,
        &keys::ALIYUN,
        &keys::OSS,
        &keys::UCLOUD,
        &keys::BUCKET,
    ] {
        section(&mut text, table);
    }
    for service in BucketService::ALL {
        heading(
            &mut text,
            &format!("`[provider.options]` of `{}`", service.word()),
            &["option", "holds"],
        );
        for (name, holds) in options_of(service) {
            row(&mut text, &[code(name), holds.to_owned()]);
        }
    }
    text
}

/// The directories of root are the same on every machine.
fn root() -> Environment {
    Environment::new([] as [(&str, &str); 0], true)
}

fn section(text: &mut String, table: &Table) {
    heading(text, table.title, &["key", "default", "meaning"]);
    for key in table.keys {
        let unless = match key.unless {
            Unless::Required => "required".to_owned(),
            Unless::Default(value) => code(value),
            Unless::Told(words) => words.to_owned(),
        };
        row(text, &[code(key.name), unless, key.help.to_owned()]);
    }
}

fn heading(text: &mut String, title: &str, columns: &[&str]) {
    let rule = "---|".repeat(columns.len());
    write!(
        text,
        "\n### {title}\n\n| {} |\n|{rule}\n",
        columns.join(" | ")
    )
    .expect("writing to a String cannot fail");
}

fn row(text: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(text, "| {} |", cells.join(" | ")).expect("writing to a String cannot fail");
}

fn code(words: &str) -> String {
    format!("`{words}`")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::super::{Config, MountArgs};
    use super::*;

    /// The reference in the repository; the message says how to renew it.
    #[test]
    fn the_published_reference_is_of_this_program() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let published = fs::read_to_string(place).unwrap_or_default();
        assert!(
            published == reference(),
            "run: cargo run -- config reference > docs/configuration.md"
        );
    }

    /// What a file with these tables is read as.
    fn read(document: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, document).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let config = Config::load(&path, &MountArgs::default(), &root()).unwrap();
        format!("{config:?}")
    }

    #[test]
    fn a_documented_default_is_what_holds_without_it() {
        let mount = MountConfig::defaults(&root());
        let account = "[[provider]]\nname = \"a\"\n";
        let keyed = "regions = [\"x\"]\n";
        let least = [
            (
                &keys::ATLAS,
                "kind = \"atlas\"\nproject_id = \"5d\"\npublic_key = \"a\"\nprivate_key = \"b\"\n"
                    .to_owned(),
            ),
            (
                &keys::TENCENT,
                format!("kind = \"tencent\"\n{keyed}secret_id = \"a\"\nsecret_key = \"b\"\n"),
            ),
            (
                &keys::ALIYUN,
                format!(
                    "kind = \"aliyun\"\n{keyed}access_key_id = \"a\"\naccess_key_secret = \"b\"\n"
                ),
            ),
            (
                &keys::UCLOUD,
                format!("kind = \"ucloud\"\n{keyed}public_key = \"a\"\nprivate_key = \"b\"\n"),
            ),
            (
                &keys::BUCKET,
                "kind = \"bucket\"\nservice = \"fs\"\noptions = { root = \"/\" }\n".to_owned(),
            ),
        ];
        for (table, needed) in least {
            let plain = format!("{account}{needed}");
            let meant = read(&plain);
            let settings = SETTINGS.iter().map(|s| (s.key, s.shown(&mount)));
            for (key, value) in settings {
                assert_eq!(
                    read(&format!("[mount]\n{key} = {value}\n{plain}")),
                    meant,
                    "{key}"
                );
            }
            for key in keys::COMMON.keys.iter().chain(table.keys) {
                if let Unless::Default(value) = key.unless {
                    let given = format!("{plain}{} = {value}\n", key.name);
                    assert_eq!(read(&given), meant, "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn every_documented_key_of_a_bucket_is_read_with_its_default() {
        for (kind, keys, table, rest) in [
            (
                "cos",
                &keys::COS,
                "tencent",
                "secret_id = \"a\"\nsecret_key = \"b\"\n",
            ),
            (
                "oss",
                &keys::OSS,
                "aliyun",
                "access_key_id = \"a\"\naccess_key_secret = \"b\"\n",
            ),
        ] {
            let plain = format!(
                "[[provider]]\nname = \"a\"\nkind = \"{table}\"\nregions = [\"x\"]\n{rest}\
                 [provider.{kind}]\nbucket = \"b\"\nregion = \"r\"\n"
            );
            let meant = read(&plain);
            for key in keys.keys {
                if let Unless::Default(value) = key.unless {
                    assert_eq!(read(&format!("{plain}{} = {value}\n", key.name)), meant);
                }
            }
        }
    }
}
