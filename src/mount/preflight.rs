//! What must hold before anything is mounted, asked before any secret is used or host contacted.
//!
//! Each failure is one line that names the cure. Nothing is changed or created. What is looked at
//! besides the mountpoint is in [`Machine`], so that tests can describe another one.

use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::Access;

use super::mountinfo::{self, MountEntry};
use crate::config::MountConfig;
use crate::error::{Error, Kind, Result};

/// How long a mount may take to say that it is alive.
const PROBE: Duration = Duration::from_secs(2);

/// What mounting needs of the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Effective user id of this process.
    uid: u32,
    /// `PATH`.
    search_path: OsString,
    /// The FUSE device.
    device: PathBuf,
    /// fusermount3's configuration.
    fuse_conf: PathBuf,
}

impl Machine {
    /// The one we run on.
    pub(crate) fn this() -> Self {
        Machine {
            uid: rustix::process::geteuid().as_raw(),
            search_path: std::env::var_os("PATH").unwrap_or_default(),
            device: "/dev/fuse".into(),
            fuse_conf: "/etc/fuse.conf".into(),
        }
    }

    fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// The mountpoint without symlinks, if everything is fit for mounting there.
pub(crate) fn check(config: &MountConfig, mountpoint: &Path, machine: &Machine) -> Result<PathBuf> {
    let place = mountinfo::resolve(mountpoint)?;
    if let Some(entry) = mountinfo::mount_at(&place)? {
        return Err(occupied(&entry));
    }
    let metadata = directory(&place)?;
    for (key, dir) in [
        ("cache_dir", &config.cache_dir),
        ("state_dir", &config.state_dir),
    ] {
        apart(&place, key, dir)?;
    }
    device(machine)?;
    if !machine.is_root() {
        fusermount(machine)?;
        owned(&place, &metadata, machine)?;
        if config.allow_other {
            other_users(machine)?;
        }
    }
    Ok(place)
}

/// What mounting anywhere needs of this machine, each by its name with what was found.
pub fn fitness(config: &MountConfig) -> Vec<(&'static str, Result<String>)> {
    let machine = &Machine::this();
    let mut found = vec![(
        "/dev/fuse",
        device(machine).map(|()| "can be opened".to_owned()),
    )];
    if machine.is_root() {
        found.push((
            "fusermount3",
            Ok("not needed: root mounts by itself".to_owned()),
        ));
        return found;
    }
    let there = fusermount(machine).map(|()| "is in PATH".to_owned());
    found.push(("fusermount3", there));
    if config.allow_other {
        let allowed = other_users(machine).map(|()| "user_allow_other is set".to_owned());
        found.push(("allow_other", allowed));
    }
    found
}

/// The mounts of this program whose process is gone.
pub fn dead() -> Result<Vec<PathBuf>> {
    let ours = mountinfo::mounts()?.into_iter().filter(MountEntry::is_ours);
    let places = ours.map(|entry| entry.mountpoint);
    Ok(places.filter(|place| is_dead(place)).collect())
}

/// The type of the filesystem that `path` is on, or will be.
pub fn filesystem_of(path: &Path) -> Option<String> {
    let path = nearest(path);
    let above = mountinfo::mounts().ok()?.into_iter();
    let above = above.filter(|entry| path.starts_with(&entry.mountpoint));
    let entry = above.max_by_key(|entry| entry.mountpoint.components().count())?;
    Some(entry.kind)
}

/// Whether the kernel can read whole files of a cache in `cache_dir` by itself, or why not.
pub fn passthrough(cache_dir: &Path) -> std::result::Result<(), String> {
    /// The first Linux with FUSE passthrough.
    const FIRST: (u32, u32) = (6, 9);
    if !Machine::this().is_root() {
        return Err("only root may lend files to the kernel".to_owned());
    }
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < FIRST {
        return Err(format!("Linux {release} lacks it, 6.9 has it"));
    }
    match filesystem_of(cache_dir).as_deref() {
        Some(kind @ ("overlay" | "ecryptfs")) => Err(format!(
            "cache_dir is on {kind}, which lies on another filesystem itself"
        )),
        _ => Ok(()),
    }
}

/// Takes over the FUSE device that whoever started us left open as `number`.
pub(crate) fn connection(number: i32) -> Result<OwnedFd> {
    let refused = || {
        refuse(format!(
            "/dev/fd/{number} is not an open FUSE device: open /dev/fuse, and hand it down without O_CLOEXEC"
        ))
    };
    let device = fs::metadata(format!("/proc/self/fd/{number}")).map_err(|_| refused())?;
    // Character device 10:229 (the kernel's list of devices).
    let is_fuse = device.file_type().is_char_device()
        && device.rdev() == rustix::fs::makedev(10, 229)
        && number > 2;
    if !is_fuse {
        return Err(refused());
    }
    // SAFETY: it is open, as just seen, and named on the command line to be given to us; nothing else
    // in this process uses a descriptor by its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether the process behind a FUSE mount is gone. One that merely does not answer is alive.
pub(crate) fn is_dead(mountpoint: &Path) -> bool {
    let path = mountpoint.to_owned();
    let (send, receive) = mpsc::channel();
    // Its own thread, left behind if the mount hangs.
    let probe = std::thread::Builder::new().spawn(move || {
        // Nobody listens any more when the time is over.
        let _ = send.send(rustix::fs::statfs(&path));
    });
    probe.is_ok()
        && matches!(
            receive.recv_timeout(PROBE),
            Ok(Err(rustix::io::Errno::NOTCONN))
        )
}

fn refuse(words: String) -> Error {
    Error::new(Kind::Environment, words)
}

fn occupied(entry: &MountEntry) -> Error {
    let place = entry.mountpoint.display();
    refuse(match entry.is_ours() {
        true if is_dead(&entry.mountpoint) => format!(
            "{place} is a dead mount, its process is gone: run `mongo-backupfs unmount {place}` and mount again, or mount with `--replace-stale`"
        ),
        true => format!(
            "{place} is already mounted by mongo-backupfs: choose another directory, or run `mongo-backupfs unmount {place}` first"
        ),
        false => format!(
            "{place} is already a mountpoint (of type {}): choose another directory, or unmount it first",
            entry.kind
        ),
    })
}

fn directory(place: &Path) -> Result<Metadata> {
    let shown = place.display();
    let metadata = fs::metadata(place).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse(format!(
            "mountpoint {shown} does not exist: create it with `mkdir -p {shown}`"
        )),
        _ => refuse(format!("mountpoint {shown} cannot be used")).with_source(error),
    })?;
    if !metadata.is_dir() {
        return Err(refuse(format!(
            "mountpoint {shown} is not a directory: choose an empty directory"
        )));
    }
    let mut entries = fs::read_dir(place).map_err(|error| {
        refuse(format!(
            "mountpoint {shown} cannot be read: choose a directory of your own"
        ))
        .with_source(error)
    })?;
    if entries.next().is_some() {
        return Err(refuse(format!(
            "mountpoint {shown} is not empty: choose an empty directory, a mount would hide its files"
        )));
    }
    Ok(metadata)
}

/// The mount must not serve the files it is made of, nor hide them.
fn apart(place: &Path, key: &str, dir: &Path) -> Result<()> {
    let dir = nearest(dir);
    if place.starts_with(&dir) || dir.starts_with(place) {
        return Err(refuse(format!(
            "mountpoint {} and {key} {} lie inside each other: choose another mountpoint or {key}",
            place.display(),
            dir.display()
        )));
    }
    Ok(())
}

/// `path` without symlinks as far as it exists.
fn nearest(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.ancestors()
        .find_map(|ancestor| {
            let real = fs::canonicalize(ancestor).ok()?;
            Some(real.join(path.strip_prefix(ancestor).ok()?))
        })
        .unwrap_or(path)
}

fn device(machine: &Machine) -> Result<()> {
    let device = machine.device.display();
    match OpenOptions::new().read(true).write(true).open(&machine.device) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(refuse(format!(
            "{device} may not be opened by you: as root run `chmod 0666 {device}`, or mount as root"
        ))),
        Err(error) => Err(refuse(format!(
            "{device} cannot be opened: install fuse3 and run `modprobe fuse` as root; in a container pass `--device /dev/fuse --cap-add SYS_ADMIN`"
        ))
        .with_source(error)),
    }
}

fn fusermount(machine: &Machine) -> Result<()> {
    let found = std::env::split_paths(&machine.search_path)
        .flat_map(|dir| ["fusermount3", "fusermount"].map(|name| dir.join(name)))
        .any(|path| rustix::fs::access(&path, Access::EXEC_OK).is_ok());
    if found {
        return Ok(());
    }
    Err(refuse(
        "fusermount3 is not in PATH, and only root can mount without it: install the package fuse3"
            .to_owned(),
    ))
}

/// fusermount3's own rule: the directory must be writable, and owned where it is sticky.
fn owned(place: &Path, metadata: &Metadata, machine: &Machine) -> Result<()> {
    let sticky = metadata.mode() & libc::S_ISVTX != 0;
    let writable = rustix::fs::access(place, Access::WRITE_OK).is_ok();
    if metadata.uid() == machine.uid || writable && !sticky {
        return Ok(());
    }
    let place = place.display();
    Err(refuse(format!(
        "mountpoint {place} belongs to another user: choose a directory of your own, or mount as root"
    )))
}

fn other_users(machine: &Machine) -> Result<()> {
    let allowed = fs::read_to_string(&machine.fuse_conf)
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
    if allowed {
        return Ok(());
    }
    Err(refuse(format!(
        "allow_other needs a line `user_allow_other` in {}: have root add it, or set allow_other = false",
        machine.fuse_conf.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnOpen;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Scene {
        dir: tempfile::TempDir,
        config: MountConfig,
        machine: Machine,
    }

    impl Scene {
        /// An ordinary user who may do everything.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let base = fs::canonicalize(dir.path()).unwrap();
            for name in ["mnt", "bin", "full", "cache"] {
                fs::create_dir(base.join(name)).unwrap();
            }
            for name in ["bin/fusermount3", "file", "full/x", "device"] {
                fs::write(base.join(name), "").unwrap();
            }
            fs::write(
                base.join("fuse.conf"),
                "# user_allow_other\n\nmount_max = 10\n",
            )
            .unwrap();
            fs::set_permissions(
                base.join("bin/fusermount3"),
                fs::Permissions::from_mode(0o755),
            )
            .unwrap();
            let config = MountConfig {
                cache_dir: base.join("cache"),
                state_dir: base.join("state/not/yet/there"),
                cache_size: 1 << 30,
                memory: 1 << 28,
                list_ttl: Duration::from_secs(60),
                on_open: OnOpen::Create,
                deny_processes: Vec::new(),
                spend_uids: Vec::new(),
                recreate_expired: true,
                max_tasks_per_day: 0,
                task_wait: Duration::from_secs(3600),
                op_timeout: Duration::from_secs(60),
                allow_other: false,
                file_mode: 0o400,
                dir_mode: 0o500,
                metrics: None,
            };
            let machine = Machine {
                uid: fs::metadata(&base).unwrap().uid(),
                search_path: std::env::join_paths([base.join("nothing"), base.join("bin")])
                    .unwrap(),
                device: base.join("device"),
                fuse_conf: base.join("fuse.conf"),
            };
            let mut scene = Scene {
                dir,
                config,
                machine,
            };
            if scene.machine.uid == 0 {
                // The rules for ordinary users shall be tested by root as well.
                scene.machine.uid = 1;
                std::os::unix::fs::chown(base.join("mnt"), Some(1), None).unwrap();
            }
            scene
        }

        fn path(&self, name: &str) -> PathBuf {
            fs::canonicalize(self.dir.path()).unwrap().join(name)
        }

        fn check(&self, mountpoint: &str) -> Result<PathBuf> {
            check(&self.config, &self.path(mountpoint), &self.machine)
        }

        #[track_caller]
        fn refuses(&self, mountpoint: &str, words: &[&str]) {
            let error = self.check(mountpoint).expect_err(mountpoint);
            assert_eq!(error.kind().exit_code(), 1);
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word), "`{word}` is not in: {text}");
            }
        }
    }

    #[test]
    fn a_fit_directory_passes_also_behind_a_symlink() {
        let scene = Scene::new();
        assert_eq!(scene.check("mnt").unwrap(), scene.path("mnt"));
        symlink("mnt", scene.path("link")).unwrap();
        assert_eq!(scene.check("link").unwrap(), scene.path("mnt"));
    }

    #[test]
    fn an_unfit_directory_is_named_with_its_cure() {
        let scene = Scene::new();
        scene.refuses("missing", &["missing does not exist", "mkdir -p"]);
        scene.refuses("missing/too", &["does not exist"]);
        scene.refuses("file", &["file is not a directory"]);
        scene.refuses("full", &["full is not empty"]);
        let error = check(&scene.config, Path::new("/proc"), &scene.machine).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/proc is already a mountpoint (of type proc)"),
            "{error}"
        );
    }

    #[test]
    fn our_own_directories_are_kept_out() {
        let mut scene = Scene::new();
        scene.refuses("cache", &["cache_dir", "inside each other"]);
        scene.config.state_dir = scene.path("mnt/below/state");
        scene.refuses("mnt", &["state_dir", "inside each other"]);
        symlink("mnt", scene.path("elsewhere")).unwrap();
        scene.config.state_dir = scene.path("elsewhere/state");
        scene.refuses("mnt", &["state_dir", "inside each other"]);
        scene.config.state_dir = scene.path("mnt-state");
        scene.check("mnt").unwrap();
    }

    #[test]
    fn the_machine_must_be_able_to_mount() {
        let mut scene = Scene::new();
        scene.machine.device = scene.path("no-device");
        scene.refuses(
            "mnt",
            &[
                "no-device cannot be opened",
                "modprobe fuse",
                "--device /dev/fuse",
            ],
        );
        scene.machine.device = scene.path("device");
        scene.machine.search_path = scene.path("nothing").into();
        scene.refuses(
            "mnt",
            &["fusermount3 is not in PATH", "install the package fuse3"],
        );
        scene.machine.uid = 0;
        scene.check("mnt").expect("root needs no fusermount3");
    }

    #[test]
    fn a_strangers_directory_is_refused_to_ordinary_users() {
        let mut scene = Scene::new();
        scene.machine.uid = 12345;
        fs::set_permissions(scene.path("mnt"), fs::Permissions::from_mode(0o1777)).unwrap();
        scene.refuses("mnt", &["belongs to another user"]);
        fs::set_permissions(scene.path("mnt"), fs::Permissions::from_mode(0o777)).unwrap();
        scene
            .check("mnt")
            .expect("writable and not sticky is what fusermount3 asks for");
    }

    #[test]
    fn allow_other_needs_the_line_in_fuse_conf() {
        let mut scene = Scene::new();
        scene.config.allow_other = true;
        scene.refuses(
            "mnt",
            &["user_allow_other", "fuse.conf", "allow_other = false"],
        );
        fs::write(scene.path("fuse.conf"), "mount_max = 1\nuser_allow_other\n").unwrap();
        scene.check("mnt").unwrap();
        fs::remove_file(scene.path("fuse.conf")).unwrap();
        scene.machine.uid = 0;
        scene.check("mnt").expect("root may");
    }

    #[test]
    fn a_living_filesystem_is_not_dead() {
        assert!(!is_dead(Path::new("/")));
    }
}
