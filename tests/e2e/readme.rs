//! Every command that README.md shows after a `$` runs, in its order, in one home directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use mongo_backupfs::sim::demo_clouds;

use crate::world::{PROVIDER, World, binary};

#[test]
fn the_session_in_the_readme_runs() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    assert!(commands.len() >= 10, "{commands:?}");

    let world = World::new(demo_clouds());
    let home = world.dir.path().join("home");
    let places = home.join(".config/mongo-backupfs");
    fs::create_dir_all(&places).unwrap();
    let config = fs::read_to_string(world.write_config()).unwrap();
    let provider = &config[config.find("[[provider]]").unwrap()..];
    let place = places.join("config.toml");
    fs::write(&place, provider.replace(PROVIDER, "atlas-prod")).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();

    let mut script =
        String::from("set -euo pipefail\ntrap 'umount -l ~/backups 2>/dev/null || true' EXIT\n");
    for command in commands {
        script += &format!("echo {}\n{command}\n", shell_word(&format!("$ {command}")));
        if command.ends_with('&') {
            script += "until mountpoint -q ~/backups; do kill -0 $!; sleep 0.05; done\n";
        }
    }
    script += "wait\n";
    let path = format!(
        "{}:{}",
        Path::new(binary()).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .current_dir(&home)
        .env("HOME", &home)
        .env("PATH", path)
        .env("MONGO_BACKUPFS_CACHE_DIR", home.join("cache"))
        .env("MONGO_BACKUPFS_STATE_DIR", home.join("state"))
        .env_remove("MONGO_BACKUPFS_CONFIG")
        .env_remove("XDG_CONFIG_HOME")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("is ready (1 provider)"));
}

/// `text` as one word for a shell.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
