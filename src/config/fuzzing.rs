//! A configuration file that was mistyped, or that somebody else wrote.

use toml::de::{DeTable, DeValue};

use super::document::Source;
use super::{Config, Environment, MountArgs, fstab};
use crate::fuzzing::assert_one_line;

/// A configuration, good or bad: each complaint is one line that names the file. Taken for a
/// secret in a good one, the same text is never shown.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let environment = Environment::new([("HOME", "/home/nobody")], false);
    if !DeTable::parse(&text).is_ok_and(|document| runs_commands(document.get_ref())) {
        let source = Source::of(&text);
        match Config::read(&source, &MountArgs::default(), &environment) {
            Ok(config) => {
                let mut names: Vec<&String> =
                    config.providers.iter().map(|one| &one.name).collect();
                assert!(!names.is_empty());
                names.sort_unstable();
                assert!(names.is_sorted_by(|a, b| a < b), "names are unique");
            }
            Err(error) => {
                let words = error.to_string();
                assert_one_line(&words);
                assert!(
                    words.contains("config.toml") || words.starts_with('['),
                    "{words}"
                );
            }
        }
    }
    let secret = format!("CANARY{text}");
    if !secret.contains("'''") && !secret.ends_with('\'') {
        let source = Source::of(&format!(
            "[[provider]]\nname = 'a'\nkind = 'atlas'\nproject_id = '571c390a7cea7e4dbf32b625'\n\
             public_key = 'k'\nprivate_key = '''{secret}'''\n"
        ));
        let shown = match Config::read(&source, &MountArgs::default(), &environment) {
            Ok(config) => format!("{config:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("CANARY"), "{shown}");
    }
}

/// The arguments of a mount helper, one on each line: what is made of them is a mount of the very
/// directory in the background, or a check of the configuration.
pub fn mount_options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let given: Vec<String> = text.split('\n').map(str::to_owned).collect();
    match fstab::arguments(&given) {
        Err(error) => assert_one_line(&error.to_string()),
        Ok(arguments) => {
            let at = arguments.iter().position(|word| !word.starts_with("--"));
            let (_, command) = arguments.split_at(at.expect("there is a command"));
            match command {
                [config, check] => assert_eq!([config.as_str(), check], ["config", "check"]),
                [mount, daemon, flags @ .., end, directory] => {
                    assert_eq!([mount.as_str(), daemon, end], ["mount", "--daemon", "--"]);
                    assert!(given.contains(directory));
                    assert!(flags.iter().all(|flag| flag.starts_with("--")), "{flags:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Whether reading it would run a program: that is for its owner, not for chance.
fn runs_commands(table: &DeTable<'_>) -> bool {
    fn inside(value: &DeValue<'_>) -> bool {
        match value {
            DeValue::Table(table) => runs_commands(table),
            DeValue::Array(items) => items.iter().any(|item| inside(item.get_ref())),
            _ => false,
        }
    }
    table
        .iter()
        .any(|(key, value)| key.get_ref() == "command" || inside(value.get_ref()))
}
