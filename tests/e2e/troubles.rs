//! Everything that can be wrong before or around a mount: one line, the exit code, nothing left.

use std::fs;
use std::process::Output;

use mongo_backupfs::sim::atlas::Project;
use mongo_backupfs::sim::{Content, SimBuilder};

use crate::world::{PROVIDER, World, is_mounted, sh};

fn world() -> World {
    World::with_content([Content::noise(1, 1000)])
}

/// The command failed with `code` and one line on stderr that holds `words`.
fn fails(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

fn mount_at(world: &World, place: &str) -> Output {
    world.run(&["--log-level", "error", "mount", place])
}

#[test]
fn case_55_a_missing_mountpoint_is_named() {
    let world = world();
    let place = world.dir.path().join("nowhere");
    fails(
        &mount_at(&world, place.to_str().unwrap()),
        1,
        &["nowhere", "mkdir"],
    );
    assert!(!place.exists());
}

#[test]
fn case_55_a_mountpoint_that_is_a_file_or_full_is_refused() {
    let world = world();
    let file = world.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    fails(
        &mount_at(&world, file.to_str().unwrap()),
        1,
        &["not a directory"],
    );
    let full = world.dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("x"), "x").unwrap();
    fails(&mount_at(&world, full.to_str().unwrap()), 1, &["not empty"]);
}

#[test]
fn case_55_a_mounted_mountpoint_is_refused_and_stays_mounted() {
    let mut world = world();
    world.mount();
    let place = world.mountpoint.to_str().unwrap().to_owned();
    fails(&mount_at(&world, &place), 1, &["already"]);
    assert!(is_mounted(&world.mountpoint));
    assert!(!world.latest_file().as_os_str().is_empty());
    world.unmount();
}

#[test]
fn case_45_a_second_mount_on_the_same_cache_names_the_first() {
    let mut world = world();
    world.mount();
    let other = world.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let pid = world.pid().to_string();
    fails(
        &mount_at(&world, other.to_str().unwrap()),
        1,
        &["cache", &pid],
    );
    assert!(!is_mounted(&other));
}

#[test]
fn wrong_configuration_exits_2_and_names_line_and_key() {
    let mut world = world();
    world.mount_keys.push("list_tll = \"1s\"".into());
    let place = world.mountpoint.to_str().unwrap().to_owned();
    fails(
        &mount_at(&world, &place),
        2,
        &["config.toml:4", "list_tll", "list_ttl"],
    );
}

#[test]
fn a_wrong_key_mounts_and_says_so_on_use() {
    let mut world = world();
    world.sim = world
        .runtime
        .block_on(mongo_backupfs::sim::Sim::start(
            SimBuilder::new()
                .keys("abcdefgh", "right")
                .project(Project::new("Shop")),
        ))
        .unwrap();
    world.mount();
    let config = world.dir.path().join("config.toml");
    world.unmount();
    let wrong = fs::read_to_string(&config)
        .unwrap()
        .replace("\"right\"", "\"wrong\"");
    fs::write(&config, wrong).unwrap();
    let listed = std::process::Command::new(crate::world::binary())
        .args(["--config", config.to_str().unwrap(), "ls", PROVIDER])
        .output()
        .unwrap();
    fails(&listed, 1, &[PROVIDER, "key"]);
    assert!(!String::from_utf8_lossy(&listed.stderr).contains("wrong\""));
}

#[test]
fn case_29_an_unreachable_host_is_an_error_not_an_empty_directory() {
    let mut world = world();
    world.provider_keys.push("retry_budget = \"1s\"".into());
    // A port that nobody listens on: bound once, then given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = world.write_config();
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace(world.sim.base_url(), &format!("http://{free}"));
    fs::write(&config, text).unwrap();
    let listed = std::process::Command::new(crate::world::binary())
        .args(["--config", config.to_str().unwrap(), "ls", PROVIDER])
        .output()
        .unwrap();
    fails(&listed, 1, &[PROVIDER, &free.to_string()]);
}

#[test]
fn an_empty_project_is_an_empty_directory() {
    let mut world = World::new(SimBuilder::new().project(Project::new("Empty")));
    world.mount();
    assert_eq!(
        sh(&format!(
            "ls -A '{}'",
            world.mountpoint.join(PROVIDER).display()
        )),
        ""
    );
    world.unmount();
}

#[test]
fn case_55_without_dev_fuse_the_line_says_what_to_do() {
    let world = world();
    let place = world.mountpoint.to_str().unwrap().to_owned();
    let config = world.write_config();
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "bash", "-c"])
        .arg(format!(
            "mount -t tmpfs none /dev && exec '{}' --config '{}' --log-level error mount '{place}'",
            crate::world::binary(),
            config.display(),
        ))
        .output()
        .unwrap();
    fails(&output, 1, &["/dev/fuse"]);
}

#[test]
fn unmount_ends_the_process() {
    let mut world = world();
    world.mount();
    let place = world.mountpoint.to_str().unwrap().to_owned();
    let pid = world.pid();
    let output = world.run(&["unmount", &place]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!is_mounted(&world.mountpoint));
    // It has ended; only this process has not reaped it yet.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(stat.contains(") Z "), "{stat}");
    fails(&world.run(&["unmount", &place]), 1, &["not mounted"]);
}

#[test]
fn case_55_a_dead_mount_says_enotconn_until_it_is_unmounted() {
    let mut world = world();
    world.mount();
    let place = world.mountpoint.to_str().unwrap().to_owned();
    let pid = world.pid();
    crate::world::kill(pid, libc::SIGKILL);
    crate::world::eventually("the mount is dead", || {
        fs::read_dir(&place).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
    });
    fails(&mount_at(&world, &place), 1, &["unmount"]);
    let output = world.run(&["unmount", &place]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!is_mounted(&world.mountpoint));
}
