//! A mount as a service: in the background, from fstab, under a service manager, on a connection
//! that somebody else mounts; and what signals make it do.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::MountFlags;
use rustix::process::{Signal, geteuid, kill_process};

use crate::mounted::{World, is_mounted, pid, unmount, until, wait};
use crate::{need_fuse, noise};

/// Takes away what a test mounted in the background.
struct Freed(PathBuf);

impl Drop for Freed {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            unmount(&self.0, &["-z"]);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Mounts in the background, with a log file.
fn daemon(world: &World, settings: &str, more: &[&str]) -> (Output, PathBuf) {
    let (place, log) = (world.mountpoint(), world.dir.path().join("log"));
    let output = world
        .command(
            settings,
            &["--log-file", log.to_str().unwrap(), "mount", "--daemon"],
        )
        .args(more)
        .arg(place)
        .output()
        .unwrap();
    (output, log)
}

#[test]
fn in_the_background_it_is_mounted_when_the_caller_returns() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let place = world.mountpoint();
    let _freed = Freed(place.clone());
    let (output, log) = daemon(&world, "", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        Default::default()
    );
    assert_eq!(fs::read_dir(place.join("atlas/c0")).unwrap().count(), 2);
    assert_eq!(
        fs::metadata(&log).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let ended = world
        .command("", &["unmount", place.to_str().unwrap()])
        .output();
    assert!(ended.unwrap().status.success());
    assert!(!is_mounted(&place));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("unmounting"), "{log}");
}

#[test]
fn what_fails_in_the_background_is_told_as_in_the_foreground() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let place = world.mountpoint();
    for (settings, place, code, words) in [
        ("", place.join("missing"), 1, "does not exist"),
        (
            "cache_sise = \"1GiB\"",
            place.clone(),
            2,
            "unknown key `cache_sise`",
        ),
        ("cache_dir = \"/dev/null/x\"", place, 2, "duplicate key"),
    ] {
        let output = world
            .command(settings, &["mount", "--daemon"])
            .arg(&place)
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!is_mounted(&place));
    }
}

#[test]
fn a_dead_mount_is_replaced_and_a_living_one_is_not() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let mut mount = world.mount("");
    let place = mount.place().to_owned();
    let again = |more: &[&str]| daemon(&world, "", more).0;
    let refused = again(&["--replace-stale"]);
    let said = text(&refused.stderr);
    assert!(
        said.contains("is already mounted by mongo-backupfs"),
        "{said}"
    );
    assert_eq!(mount.files().len(), 1, "it goes on");

    mount.signal(Signal::KILL);
    mount.wait(Duration::from_secs(5));
    let refused = text(&again(&[]).stderr);
    assert!(
        refused.contains("mount with `--replace-stale`"),
        "{refused}"
    );
    let output = again(&["--replace-stale"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mount.files().len(), 1);
    unmount(&place, &[]);
}

#[test]
fn a_line_of_fstab_mounts() {
    need_fuse!();
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root mounts by mount(8)");
    }
    let world = World::new(vec![noise().0]);
    let helpers = world.dir.path().join("sbin");
    fs::create_dir(&helpers).unwrap();
    symlink(
        env!("CARGO_BIN_EXE_mongo-backupfs"),
        helpers.join("mount.mongo-backupfs"),
    )
    .unwrap();
    let config = world.config("");
    let (place, log) = (world.mountpoint(), world.dir.path().join("log"));
    // In a mount namespace of its own: nothing of it is left, whatever happens.
    let script = format!(
        "set -e\n\
         mount --bind '{helpers}' /sbin\n\
         PATH=/bin:/usr/bin\n\
         printf '%s %s mongo-backupfs noauto,_netdev,list_ttl=5m,log_file=%s 0 0\\n' '{config}' '{place}' '{log}' > '{dir}/fstab'\n\
         mount --fstab '{dir}/fstab' '{place}'\n\
         ls '{place}/atlas/c0'\n\
         grep -c ' {place} .*fuse.mongo-backupfs' /proc/self/mountinfo\n\
         umount '{place}'\n\
         ! mount -t mongo-backupfs '{config}' '{place}' -o cache_sise=1GiB\n\
         printf 'mongo-backupfs %s mongo-backupfs config=%s,_netdev,log_file=%s 0 0\\n' '{place}' '{config}' '{log}' > '{dir}/fstab'\n\
         mount --all --fstab '{dir}/fstab'\n\
         mount --all --fstab '{dir}/fstab'\n\
         grep -c ' {place} .*fuse.mongo-backupfs' /proc/self/mountinfo\n\
         umount '{place}'\n",
        helpers = helpers.display(),
        config = config.display(),
        place = place.display(),
        log = log.display(),
        dir = world.dir.path().display(),
    );
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .output()
        .unwrap();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    let lines: Vec<&str> = said.lines().collect();
    let mounted = lines.iter().filter(|line| **line == "1").count();
    assert!(lines.contains(&"latest") && mounted == 2, "{said}");
    assert!(
        errors.contains("unknown option cache_sise; did you mean cache_size?"),
        "{errors}"
    );
}

#[test]
fn a_connection_that_somebody_else_mounts_is_served() {
    need_fuse!();
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root mounts by mount(2)");
    }
    let world = World::new(vec![noise().0]);
    let place = world.mountpoint();
    let _freed = Freed(place.clone());
    let device = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    fcntl_setfd(&device, FdFlags::empty()).unwrap();
    let number = device.as_raw_fd();
    let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0,default_permissions");
    let options = CString::new(options).unwrap();
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(
        "b",
        &place,
        "fuse.mongo-backupfs",
        flags,
        options.as_c_str(),
    )
    .unwrap();
    let mut child = world
        .command("", &["mount", &format!("/dev/fd/{number}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(device);
    assert_eq!(fs::read_dir(place.join("atlas/c0")).unwrap().count(), 2);
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert!(wait(&mut child, Duration::from_secs(10)).success());

    let refused = world
        .command("", &["mount", "/dev/fd/7777"])
        .output()
        .unwrap();
    let said = text(&refused.stderr);
    assert!(said.contains("is not an open FUSE device"), "{said}");
}

/// Waits until the file at `log` holds `words`.
#[track_caller]
fn logged(log: &Path, words: &str) {
    until(words, || {
        fs::read_to_string(log).is_ok_and(|log| log.contains(words))
    });
}

#[test]
fn signals_renew_the_accounts_and_the_log_and_tell_the_status() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let config = world.config("");
    let good = fs::read_to_string(&config).unwrap();
    let bad = good.replace(world.sim.private_key(), "not-the-key");
    fs::write(&config, &bad).unwrap();
    let (place, log) = (world.mountpoint(), world.dir.path().join("log"));
    let _freed = Freed(place.clone());
    let mut child = Command::new(env!("CARGO_BIN_EXE_mongo-backupfs"))
        .arg("--config")
        .arg(&config)
        .arg("--log-file")
        .arg(&log)
        .arg("mount")
        .arg(&place)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("it is mounted", || is_mounted(&place));
    let tree = place.join("atlas");
    assert!(fs::read_dir(&tree).is_err(), "the key is wrong");

    let old = world.dir.path().join("log.1");
    fs::rename(&log, &old).unwrap();
    fs::write(&config, good.replace("kind", "kimd")).unwrap();
    kill_process(pid(&child), Signal::HUP).unwrap();
    logged(&log, "the old one holds");
    logged(&log, "unknown key `kimd`");
    assert!(fs::read_dir(&tree).is_err());

    let changed = good.replace("retry_budget = \"10s\"", "retry_budget = \"7s\"");
    let also = format!(
        "{changed}[[provider]]\nname = \"more\"\nkind = \"bucket\"\nservice = \"fs\"\nlayout = \"pbm\"\noptions = {{ root = \"/tmp\" }}\n"
    );
    fs::write(&config, also).unwrap();
    kill_process(pid(&child), Signal::HUP).unwrap();
    logged(&log, "the configuration was read again");
    logged(&log, "more was added");
    logged(&log, "how atlas fetches data was changed");
    until("the new key lists", || {
        fs::read_dir(&tree).is_ok_and(|entries| entries.count() == 1)
    });

    kill_process(pid(&child), Signal::USR1).unwrap();
    logged(&log, "SIGUSR1");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("open_files") && !said.contains(world.sim.private_key()));
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert!(wait(&mut child, Duration::from_secs(10)).success());
}

#[test]
fn the_service_manager_is_told_that_it_serves_lives_and_ends() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let socket = world.dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let heard = |words: &str| loop {
        let mut message = [0; 1024];
        let length = manager
            .recv(&mut message)
            .unwrap_or_else(|_| panic!("no {words}"));
        if text(&message[..length]).contains(words) {
            break;
        }
    };
    let place = world.mountpoint();
    let _freed = Freed(place.clone());
    let mut child = world
        .command("", &["mount", place.to_str().unwrap()])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "200000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    heard("READY=1");
    assert!(is_mounted(&place));
    heard("WATCHDOG=1");
    heard("WATCHDOG=1");
    kill_process(pid(&child), Signal::HUP).unwrap();
    heard("RELOADING=1");
    heard("READY=1");
    kill_process(pid(&child), Signal::TERM).unwrap();
    heard("STOPPING=1");
    assert!(wait(&mut child, Duration::from_secs(10)).success());
}
