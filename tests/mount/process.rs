//! The process behind a mount: what it does when its surroundings die or refuse, and what of it can
//! be seen from outside.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mongo_backupfs::sim::Content;
use rustix::process::{Pid, Signal, kill_process};

use crate::mounted::{World, is_mounted, until, wait};
use crate::need_fuse;

const NOBODY: u32 = 65534;

fn world() -> World {
    World::new(vec![Content::noise(1, 1000)])
}

/// The command failed with exit code 1 and one line on stderr that holds all `words`.
#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn case_55_a_mount_outlives_its_parent_and_its_terminal() {
    need_fuse!();
    let world = world();
    let mut command = world.command("", &["mount", world.mountpoint().to_str().unwrap()]);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(ToOwned::to_owned)
        .collect();
    let log = fs::File::create(world.dir.path().join("log")).unwrap();
    command = Command::new("sh");
    command
        .args(["-c", "\"$@\" > /dev/null & echo $!", "sh"])
        .args(words)
        .stderr(log);
    // The shell ends at once: whoever started the mount is gone.
    let shell = command.output().unwrap();
    let pid: i32 = String::from_utf8(shell.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let process = Pid::from_raw(pid).unwrap();
    until("it is mounted", || is_mounted(&world.mountpoint()));
    kill_process(process, Signal::HUP).unwrap();
    until("it answers", || {
        fs::read_dir(world.mountpoint().join("atlas/c0")).is_ok_and(|backups| backups.count() == 2)
    });
    kill_process(process, Signal::TERM).unwrap();
    until("it has ended", || !is_mounted(&world.mountpoint()));
    // It is not a child of this process: it may be collected already, or wait for its new parent.
    until("its process has ended", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
    let log = fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(log.contains("the configuration was read again"), "{log}");
}

#[test]
fn case_55_a_symlink_names_the_directory_behind_it() {
    need_fuse!();
    let world = world();
    let place = world.mountpoint();
    let link = place.parent().unwrap().join("link");
    symlink("mnt", &link).unwrap();
    let mut mount = world
        .command("", &["mount", link.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it is mounted", || is_mounted(&place));
    assert!(link.is_symlink());
    let done = world
        .command("", &["unmount", link.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(!is_mounted(&place));
    assert!(wait(&mut mount, Duration::from_secs(10)).success());
}

/// Root of a container without CAP_SYS_ADMIN.
#[test]
fn case_55_root_without_the_right_to_mount_is_told_what_is_missing() {
    need_fuse!();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give up a capability of root");
        return;
    }
    let world = world();
    let place = world.mountpoint();
    let mount = world.command(
        "",
        &["--log-level", "error", "mount", place.to_str().unwrap()],
    );
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"])
        .arg(mount.get_program())
        .args(mount.get_args())
        .output()
        .unwrap();
    refused(&output, &["cannot mount", "--cap-add SYS_ADMIN"]);
    assert!(!is_mounted(&place));
}

#[test]
fn case_56_the_memory_of_a_mount_reaches_no_core_file() {
    need_fuse!();
    let core_limit = |debuggable: bool| {
        let world = world();
        let place = world.mountpoint();
        let mount = world.command("", &["mount", place.to_str().unwrap()]);
        // A limit of its own shows whether it was changed.
        let mut mount_process = Command::new("prlimit")
            .arg("--core=4096:4096")
            .arg(mount.get_program())
            .args(mount.get_args())
            .env(
                "MONGO_BACKUPFS_DEBUGGABLE",
                if debuggable { "1" } else { "" },
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("it is mounted", || is_mounted(&place));
        let limits = fs::read_to_string(format!("/proc/{}/limits", mount_process.id())).unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<String> = line
            .unwrap()
            .split_whitespace()
            .skip(4)
            .map(ToOwned::to_owned)
            .collect();
        kill_process(crate::mounted::pid(&mount_process), Signal::TERM).unwrap();
        assert!(wait(&mut mount_process, Duration::from_secs(10)).success());
        (words[0].clone(), words[1].clone())
    };
    let text = |soft: &str, hard: &str| (soft.to_owned(), hard.to_owned());
    assert_eq!(core_limit(false), text("0", "0"));
    assert_eq!(core_limit(true), text("4096", "4096"), "for debugging");
}

/// An ordinary user's directory with the program and a configuration, `home` of [`Self::run`].
struct User {
    home: tempfile::TempDir,
}

impl User {
    /// `None` where this process is an ordinary user itself: all tests here are then that user's.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can become somebody else");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let path = home.path();
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::copy(
            env!("CARGO_BIN_EXE_mongo-backupfs"),
            path.join("mongo-backupfs"),
        )
        .unwrap();
        let config = "[[provider]]\nname = \"a\"\nkind = \"atlas\"\nproject_id = \"571c390a7cea7e4dbf32b625\"\n\
                      public_key = \"p\"\nprivate_key = \"q\"\nendpoint = \"http://127.0.0.1:9\"\nallow_http = true\n";
        fs::write(path.join("config"), config).unwrap();
        fs::set_permissions(path.join("config"), fs::Permissions::from_mode(0o600)).unwrap();
        chown(path.join("config"), Some(NOBODY), None).unwrap();
        Some(User { home })
    }

    fn path(&self) -> PathBuf {
        fs::canonicalize(self.home.path()).unwrap()
    }

    /// Runs `script` as this user, after `before` as root, in a mount namespace of its own where
    /// everybody may open /dev/fuse, as is usual.
    fn run(&self, before: &str, script: &str) -> Output {
        let home = "export HOME=$PWD TMPDIR=$PWD MONGO_BACKUPFS_CONFIG=$PWD/config\n";
        fs::write(self.home.path().join("user"), format!("{home}{script}")).unwrap();
        let root = format!(
            "set -e; umask 0; cd \"$1\"; rm -f fuse; mknod fuse c 10 229; chmod 666 fuse\n\
             mount --bind fuse /dev/fuse; {before}\n\
             exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups sh user"
        );
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                &root,
                "sh",
            ])
            .arg(self.home.path());
        command.output().unwrap()
    }
}

#[test]
fn case_55_an_ordinary_user_mounts_through_fusermount3_and_shows_no_memory() {
    need_fuse!();
    let Some(user) = User::new() else { return };
    let output = user.run(
        "",
        "set -e; ./mongo-backupfs demo --check\n\
         mkdir mnt; mkfifo out; ./mongo-backupfs mount mnt > out & read line < out; echo $line\n\
         grep mongo-backupfs /proc/self/mountinfo; ls mnt\n\
         stat -c 'memory of user %u' /proc/$!/environ; ! cat /proc/$!/environ 2>/dev/null\n\
         ./mongo-backupfs unmount mnt; wait $!\n\
         ! grep mongo-backupfs /proc/self/mountinfo; rmdir mnt; echo all done\n",
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    // What the process holds is the kernel's, not its user's.
    for words in ["mnt is ready", "memory of user 0", "all done"] {
        assert!(said.contains(words), "no {words:?} in: {said}\n{errors}");
    }
}

#[test]
fn case_55_an_ordinary_user_is_told_what_the_machine_lacks() {
    need_fuse!();
    let Some(user) = User::new() else { return };
    fs::create_dir(user.path().join("mnt")).unwrap();
    chown(user.path().join("mnt"), Some(NOBODY), None).unwrap();
    let mount = "exec ./mongo-backupfs --log-level error mount";
    let no_fusermount = format!("PATH=$PWD/none {mount} mnt");
    refused(
        &user.run("", &no_fusermount),
        &["fusermount3 is not in PATH"],
    );
    let nobody_else = "mkdir -p etc; : > etc/fuse.conf; mount --bind etc/fuse.conf /etc/fuse.conf";
    refused(
        &user.run(nobody_else, &format!("{mount} --allow-other=true mnt")),
        &["user_allow_other", "/etc/fuse.conf"],
    );
    refused(
        &user.run("chmod 600 fuse", &format!("{mount} mnt")),
        &["/dev/fuse may not be opened by you"],
    );
    assert!(!is_mounted(&user.path().join("mnt")));
    assert_eq!(entries(&user.path().join("mnt")), 0);
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}
