//! What the packages are made of agrees: the list in Cargo.toml, the unit, the maintainer scripts, the
//! image, the README and the program's own defaults. `scripts/package --check` and
//! `scripts/service-check` try them for real.

use std::path::Path;

use super::published;

const UNIT: &str = "packaging/systemd/mongo-backupfs@.service";

/// What a unit must not say, or its mount is in a namespace of its own, for nobody else to see
/// (systemd.exec(5), "the mount propagation").
const APART: &[&str] = &[
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "InaccessiblePaths",
    "LoadCredential",
    "MountFlags",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RootDirectory",
    "RootImage",
    "TemporaryFileSystem",
];

/// A file or symlink of the Debian package.
#[derive(Debug, PartialEq)]
struct Asset {
    /// The file in the project, or where the symlink leads.
    source: String,
    /// Where it is installed, without the first slash.
    place: String,
    is_link: bool,
}

fn assets() -> Vec<Asset> {
    let manifest: toml::Table = published("Cargo.toml").parse().unwrap();
    let listed = manifest["package"]["metadata"]["deb"]["assets"].clone();
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let one = |asset: &toml::Value| match asset.as_array() {
        None => Asset {
            source: text(&asset["link_name"]),
            place: text(&asset["dest"]),
            is_link: true,
        },
        Some(parts) => {
            let (source, mut place) = (text(&parts[0]), text(&parts[1]));
            if place.ends_with('/') {
                place.push_str(source.rsplit('/').next().unwrap());
            }
            Asset {
                source,
                place,
                is_link: false,
            }
        }
    };
    listed.as_array().unwrap().iter().map(one).collect()
}

/// The values of `key` in the unit.
fn said(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    let values = lines.filter(|(name, _)| *name == key);
    values.map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn what_is_packed_is_there() {
    let (root, script) = (
        Path::new(env!("CARGO_MANIFEST_DIR")),
        published("scripts/package"),
    );
    let assets = assets();
    assert!(assets.len() > 10);
    for asset in assets.iter().filter(|asset| !asset.is_link) {
        let source = &asset.source;
        if let Some(made) = source.strip_prefix("target/package/share/") {
            let made = made.strip_suffix("/*.1").unwrap_or(made);
            assert!(script.contains(&format!("$share/{made}")), "{source}");
        } else if source != "target/release/mongo-backupfs" {
            let path = source.split("/*").next().unwrap();
            assert!(root.join(path).exists(), "{source}");
        }
    }
    for name in ["postinst", "prerm", "postrm"] {
        published(&format!("packaging/debian/{name}"));
    }
}

#[test]
fn what_names_an_installed_file_names_its_place() {
    let (assets, unit) = (assets(), published(UNIT));
    let place = |source: &str| {
        let found = assets.iter().find(|asset| asset.source == source);
        found.map(|asset| format!("/{}", asset.place)).unwrap()
    };
    let program = place("target/release/mongo-backupfs");
    assert!(said(&unit, "ExecStart")[0].starts_with(&format!("{program} ")));
    assert_eq!(
        place(UNIT),
        "/usr/lib/systemd/system/mongo-backupfs@.service"
    );
    let helper = assets.iter().find(|asset| asset.is_link).unwrap();
    assert_eq!(helper.place, "usr/sbin/mount.mongo-backupfs");
    assert_eq!(helper.source, "../bin/mongo-backupfs");
    let image = published("Containerfile");
    assert!(image.contains(&format!("ENTRYPOINT [\"{program}\"]")));
}

#[test]
fn all_agree_on_the_directories_and_versions() {
    let (unit, purge) = (published(UNIT), published("packaging/debian/postrm"));
    let example = published("src/config/example.toml");
    for (key, setting, above) in [
        ("StateDirectory", "state_dir", "/var/lib"),
        ("CacheDirectory", "cache_dir", "/var/cache"),
    ] {
        let place = format!("{above}/{}", said(&unit, key)[0]);
        assert!(
            example.contains(&format!("{setting} = \"{place}\"")),
            "{place}"
        );
        assert!(purge.contains(&format!("={place} ")), "{place}");
    }
    let manifest: toml::Table = published("Cargo.toml").parse().unwrap();
    let rust = manifest["package"]["rust-version"].as_str().unwrap();
    let image = published("Containerfile");
    assert!(image.contains(&format!("rust:{rust}-")), "{rust}");
    assert!(published("README.md").contains("scripts/package"));
}

/// What is wrong with a unit that mounts for others.
fn apart(unit: &str) -> Vec<&str> {
    let keys = unit.lines().filter_map(|line| line.split_once('='));
    let keys = keys.map(|(key, _)| key);
    keys.filter(|key| APART.contains(key)).collect()
}

#[test]
fn the_service_mounts_for_everybody() {
    assert_eq!(apart(&published(UNIT)), [""; 0]);
    assert_eq!(
        apart("[Service]\nPrivateTmp=yes\nType=notify"),
        ["PrivateTmp"]
    );
}
