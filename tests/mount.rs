//! The binary mounted for real over simulated clouds: life and death of a mount, what programs do
//! with its files, and signals to those who wait.

#[path = "support/canary.rs"]
mod canary;
#[path = "support/mounted.rs"]
mod mounted;
#[path = "mount/process.rs"]
mod process;
#[path = "mount/service.rs"]
mod service;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use mongo_backupfs::sim::{Content, Fault, Rule, Side};
use mounted::{World, is_mounted, pid, until, wait};
use rustix::process::{Signal, kill_process};

/// Neither a multiple of a page nor of a block of any kind.
const SIZE: u64 = 300_001;

fn noise() -> (Content, Vec<u8>) {
    let content = Content::noise(1, SIZE);
    let bytes = content.read(0..SIZE).unwrap().to_vec();
    (content, bytes)
}

/// A world whose download tasks take an hour, and a `cat` that waits for one.
fn waiting_cat(world: &World) -> (mounted::Mounted, Child) {
    world
        .sim
        .adjust(|knobs| knobs.task_time = SignedDuration::from_hours(1));
    let mount = world.mount("");
    let cat = cat(&mount.files()[0]);
    until("the task is requested", || {
        world.sim.bill().tasks_created == 1
    });
    (mount, cat)
}

fn cat(path: &Path) -> Child {
    let mut command = Command::new("cat");
    command
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // What nohup or a shell's background job hands down as ignored would rightly not interrupt.
    // SAFETY: signal(2) is async-signal-safe and touches nothing but the child's own dispositions.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        })
    };
    command.spawn().unwrap()
}

#[test]
fn case_55_a_mount_says_when_it_is_ready_and_unmounts_on_sigterm() {
    need_fuse!();
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::new(vec![noise().0]);
        let mut mount = world.mount("");
        let line = format!(
            "mongo-backupfs: {} is ready (1 provider)\n",
            mount.place().display()
        );
        assert_eq!(mount.ready, line);
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let shown = format!(
            "{} ro,nosuid,nodev,noexec,noatime ",
            mount.place().display()
        );
        let entry = table
            .lines()
            .find(|entry| entry.contains(&shown))
            .expect(&table);
        assert!(
            entry.contains(" fuse.mongo-backupfs mongo-backupfs "),
            "{entry}"
        );
        assert!(entry.contains("default_permissions"), "{entry}");

        mount.signal(Signal::HUP);
        mount.files();
        let asked = Instant::now();
        mount.signal(signal);
        let (status, log) = mount.wait(Duration::from_secs(5));
        assert!(status.success(), "{status}: {log}");
        assert!(
            asked.elapsed() < Duration::from_secs(3),
            "{:?}",
            asked.elapsed()
        );
        assert!(!mount.is_mounted());
        assert_eq!(fs::read_dir(mount.place()).unwrap().count(), 0);
    }
}

#[test]
fn case_55_a_mount_ends_when_anybody_unmounts_it() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let mut mount = world.mount("");
    let place = mount.place().to_owned();
    assert!(mounted::unmount(&place, &[]));
    assert!(mount.wait(Duration::from_secs(5)).0.success());

    let mut mount = world.mount("");
    let done = world
        .command("", &["unmount", place.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(!is_mounted(&place));
    assert!(
        mount.wait(Duration::from_millis(100)).0.success(),
        "unmount waits for the process"
    );

    let again = world
        .command("", &["unmount", place.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    let words = String::from_utf8(again.stderr).unwrap();
    assert!(
        words.contains("is not mounted") && words.lines().count() == 1,
        "{words}"
    );
}

#[test]
fn case_55_a_busy_mount_is_detached_and_its_process_ends_within_ten_seconds() {
    need_fuse!();
    let (content, bytes) = noise();
    let world = World::new(vec![content]);
    let mut mount = world.mount("");
    let held = File::open(&mount.files()[0]).unwrap();
    let asked = Instant::now();
    mount.signal(Signal::TERM);
    until("the name is gone", || !mount.is_mounted());
    let mut start = vec![0; 1000];
    held.read_exact_at(&mut start, 0)
        .expect("served a little longer");
    assert_eq!(start, bytes[..1000]);
    let (status, log) = mount.wait(Duration::from_secs(10));
    assert!(status.success(), "{status}: {log}");
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[test]
fn case_55_waiting_openers_do_not_keep_a_mount_from_ending() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let (mut mount, mut cat) = waiting_cat(&world);
    let asked = Instant::now();
    mount.signal(Signal::TERM);
    assert!(!wait(&mut cat, Duration::from_secs(5)).success());
    assert!(mount.wait(Duration::from_secs(5)).0.success());
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "no lazy detach: {:?}",
        asked.elapsed()
    );
}

#[test]
fn case_55_after_a_crash_the_mountpoint_is_dead_rather_than_empty_and_can_be_freed() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let mut mount = world.mount("");
    let place = mount.place().to_owned();
    mount.signal(Signal::KILL);
    mount.wait(Duration::from_secs(5));
    let error = fs::read_dir(&place).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));

    let place_text = place.to_str().unwrap();
    let refused = world.command("", &["mount", place_text]).output().unwrap();
    let words = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let cure = format!("run `mongo-backupfs unmount {place_text}`");
    assert!(
        words.contains("dead mount") && words.contains(&cure),
        "{words}"
    );
    assert_eq!(words.lines().count(), 1, "{words}");

    let freed = world
        .command("", &["unmount", place_text])
        .output()
        .unwrap();
    assert!(freed.status.success(), "{freed:?}");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    world.mount("");
}

#[test]
fn case_55_what_is_unfit_for_mounting_is_one_line_and_leaves_nothing_behind() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let base = world.mountpoint().parent().unwrap().to_owned();
    fs::write(base.join("file"), "").unwrap();
    fs::create_dir_all(base.join("full/x")).unwrap();
    fs::create_dir_all(base.join("cache/inside")).unwrap();
    for (place, words) in [
        ("missing", "does not exist: create it with `mkdir -p"),
        ("file", "is not a directory"),
        ("full", "is not empty"),
        ("cache/inside", "cache_dir"),
    ] {
        let path = base.join(place);
        let refused = world
            .command("", &["mount", path.to_str().unwrap()])
            .output()
            .unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{place}: {said}");
        assert!(
            said.contains(words) && said.lines().count() == 1,
            "{place}: {said}"
        );
        assert!(refused.stdout.is_empty());
    }
    let _mount = world.mount("");
    let place = world.mountpoint();
    let refused = world
        .command("", &["mount", place.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("already mounted by mongo-backupfs"), "{said}");
    assert!(!base.join("state").join("x").exists() && world.sim.bill().api_requests() == 0);
}

#[test]
fn every_way_of_reading_gets_the_same_bytes() {
    need_fuse!();
    let (content, bytes) = noise();
    let others = (2..8).map(|seed| Content::noise(seed, SIZE + seed));
    let world = World::new(std::iter::once(content).chain(others).collect());
    let mount = world.mount("");
    let files = mount.files();
    let path = files[0].as_path();

    let shell = |script: &str| {
        let script = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(path)
            .output()
            .unwrap();
        assert!(script.status.success(), "{script:?}");
        script.stdout
    };
    assert!(shell("cat \"$1\"") == bytes);
    assert!(shell("dd if=\"$1\" bs=7 status=none") == bytes);
    assert!(shell("dd if=\"$1\" bs=64k iflag=direct status=none") == bytes);
    assert!(shell("tail -c 10 \"$1\"") == bytes[bytes.len() - 10..]);
    assert!(shell("tar c -C \"$(dirname \"$1\")\" --to-stdout . 2>/dev/null | wc -c").len() > 1);

    let metadata = fs::metadata(path).unwrap();
    assert_eq!(
        (metadata.len(), metadata.blocks()),
        (SIZE, SIZE.div_ceil(512))
    );
    assert_eq!(metadata.blksize(), 1 << 20);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o400);

    let mut file = File::open(path).unwrap();
    let mut state = 88172645463325252_u64;
    for _ in 0..2000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state % (SIZE + 1000);
        let mut piece = vec![0; (state >> 40) as usize % 9000];
        let got = file.read_at(&mut piece, at).unwrap();
        let (start, end) = (
            at.min(SIZE) as usize,
            (at + piece.len() as u64).min(SIZE) as usize,
        );
        assert!(piece[..got] == bytes[start..end.max(start)], "{at} {got}");
    }
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), SIZE);
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(17)).unwrap();
    assert_eq!((hole, data), (SIZE, 17));
    for flags in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
        assert!(mapped(&file, flags) == bytes);
    }
}

/// The whole file through a mapping.
fn mapped(file: &File, flags: i32) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    let length = SIZE as usize;
    // SAFETY: a fresh read-only mapping of a file that nothing can truncate, unmapped below.
    unsafe {
        let fd = file.as_raw_fd();
        let at = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, fd, 0);
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let bytes = std::slice::from_raw_parts(at.cast::<u8>(), length).to_vec();
        assert_eq!(libc::munmap(at, length), 0);
        bytes
    }
}

/// Nothing asks for the size between open and use, and it was unknown before the open.
#[test]
fn the_first_opener_needs_no_stat_to_see_all_of_a_file() {
    need_fuse!();
    let (content, bytes) = noise();
    let world = World::new(vec![
        content,
        Content::noise(2, SIZE),
        Content::noise(3, SIZE),
    ]);
    let mount = world.mount("");
    let files = mount.files();
    for path in &files {
        assert_eq!(fs::metadata(path).unwrap().len(), 0, "unknown yet");
    }

    let file = File::open(&files[0]).unwrap();
    let target = tempfile::tempfile().unwrap();
    let mut offset = 0;
    loop {
        let sent = rustix::fs::sendfile(&target, &file, Some(&mut offset), 1 << 20).unwrap();
        if sent == 0 {
            break;
        }
    }
    let mut sent = vec![0; SIZE as usize];
    target.read_exact_at(&mut sent, 0).unwrap();
    assert!(sent == bytes, "sendfile");

    let file = File::open(&files[1]).unwrap();
    assert!(mapped(&file, libc::MAP_SHARED) == Content::noise(2, SIZE).read(0..SIZE).unwrap());

    let file = File::open(&files[2]).unwrap();
    assert_eq!(
        rustix::fs::fstat(file.as_fd()).unwrap().st_size as u64,
        SIZE
    );
    assert_eq!(world.sim.bill().tasks_created, 3);
}

/// The kernel keeps pages and size by file, not by handle, while versions differ by handle.
#[test]
fn a_reader_of_a_replaced_file_never_gets_bytes_or_the_end_of_the_new_one() {
    need_fuse!();
    let size = 24 << 20;
    for new_size in [size, 1 << 20, size + 4097] {
        let world = World::new(vec![Content::noise(1, size)]);
        let mount = world.mount("");
        let path = mount.files()[0].clone();
        let old = File::open(&path).unwrap();
        old.read_exact_at(&mut [0; 4096], 0).unwrap();

        let snapshot = world.sim.snapshot_ids("c0").remove(0);
        let new = Content::noise(2, new_size);
        assert!(world.sim.replace_artifact("c0", &snapshot, new.clone()));
        // Somebody has to run into it before anybody can know.
        let stale = |file: &File, at: u64| {
            let error = file.read_at(&mut [0; 4096], at).err();
            error.and_then(|error| error.raw_os_error()) == Some(libc::ESTALE)
        };
        assert!(stale(&old, size - 4096));

        assert!(
            fs::read(&path).unwrap() == new.read(0..new_size).unwrap(),
            "{new_size}"
        );
        let beside = File::open(&path).unwrap();
        assert_eq!(beside.metadata().unwrap().len(), new_size);
        beside.read_exact_at(&mut [0; 4096], 8192).unwrap();
        for at in [0, 8192, 100_000, new_size.min(size) - 1, size - 4096] {
            assert!(stale(&old, at), "new size {new_size}, read at {at}");
        }
        drop(old);
        assert!(
            fs::read(&path).unwrap() == new.read(0..new_size).unwrap(),
            "{new_size}"
        );
    }
}

#[test]
fn directories_can_be_read_on_from_any_place() {
    need_fuse!();
    let contents = (0..7).map(|seed| Content::noise(seed, 10)).collect();
    let world = World::new(contents);
    let mount = world.mount("");
    let directory = File::open(mount.place().join("atlas/c0")).unwrap();
    let read = |from: u64| {
        rustix::fs::seek(&directory, rustix::fs::SeekFrom::Start(from)).unwrap();
        // Small enough for several calls.
        let mut buffer = Vec::with_capacity(120);
        let mut entries = rustix::fs::RawDir::new(&directory, buffer.spare_capacity_mut());
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            found.push((
                entry.file_name().to_owned(),
                entry.ino(),
                entry.next_entry_cookie(),
            ));
        }
        found
    };
    let all = read(0);
    assert_eq!(all.len(), 2 + 7 + 1, "dots, backups, latest: {all:?}");
    for (at, (_, _, cookie)) in all.iter().enumerate() {
        assert_eq!(read(*cookie), all[at + 1..], "from {at}");
    }
    for (name, ino, _) in all.iter().skip(2) {
        let path = mount.place().join("atlas/c0").join(name.to_str().unwrap());
        assert_eq!(fs::symlink_metadata(path).unwrap().ino(), *ino);
    }
}

#[test]
fn nothing_can_be_changed() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let mount = world.mount("");
    let file = mount.files()[0].clone();
    let dir = file.parent().unwrap();
    let new = dir.join("new");
    let name = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    let set_xattr = || {
        let set = rustix::fs::setxattr(&*name, "user.x", b"1", rustix::fs::XattrFlags::empty());
        set.map_err(std::io::Error::from)
    };
    let open = |options: &mut fs::OpenOptions| options.open(&file).map(drop);
    let attempts: Vec<(&str, std::io::Result<()>)> = vec![
        ("write", open(File::options().write(true))),
        (
            "read and write",
            open(File::options().read(true).write(true)),
        ),
        ("append", open(File::options().append(true))),
        ("truncate", open(File::options().write(true).truncate(true))),
        ("create", File::create(&new).map(drop)),
        ("unlink", fs::remove_file(&file)),
        ("rename", fs::rename(&file, &new)),
        ("mkdir", fs::create_dir(&new)),
        ("rmdir", fs::remove_dir(dir)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("x", &new)),
        (
            "chmod",
            fs::set_permissions(&file, fs::Permissions::from_mode(0o777)),
        ),
        ("chown", std::os::unix::fs::chown(&file, Some(1), None)),
        ("setxattr", set_xattr()),
    ];
    for (what, result) in attempts {
        assert_eq!(
            result.unwrap_err().raw_os_error(),
            Some(libc::EROFS),
            "{what}"
        );
    }
    let unknown = fs::metadata(dir.join("no such name")).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    assert_eq!(world.sim.bill().tasks_created, 0);
}

#[test]
fn attributes_follow_the_size_protocol() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let mount = world.mount("");
    let file = mount.files()[0].clone();
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(&file, "user.backupfs.state", &mut value).unwrap();
    assert_eq!(&value[..length], b"none");
    let path = CString::new(file.to_str().unwrap()).unwrap();
    // SAFETY: two strings that live long enough, and no buffer.
    let asked = unsafe {
        let name = c"user.backupfs.state".as_ptr();
        libc::getxattr(path.as_ptr(), name, std::ptr::null_mut(), 0)
    };
    assert_eq!(asked, 4, "size 0 asks for the length");
    let short = rustix::fs::getxattr(&file, "user.backupfs.state", &mut [0; 2]);
    assert_eq!(short, Err(rustix::io::Errno::RANGE));
    let unknown = rustix::fs::getxattr(&file, "user.nothing", &mut value);
    assert_eq!(unknown, Err(rustix::io::Errno::NODATA));
    let foreign = rustix::fs::getxattr(&file, "security.selinux", &mut value);
    assert_eq!(foreign, Err(rustix::io::Errno::OPNOTSUPP));
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(&file, &mut names).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    assert!(
        names.split('\0').any(|name| name == "user.backupfs.size"),
        "{names:?}"
    );
    assert_eq!(
        rustix::fs::listxattr(&file, &mut [0; 3]),
        Err(rustix::io::Errno::RANGE)
    );
}

/// Sends each waiting reader its signal: all end, and most within a second even on a machine that
/// stands still now and then.
fn end_soon(readers: &mut [(Signal, Child)]) {
    let mut took: Vec<Duration> = Vec::new();
    for (signal, reader) in readers {
        let sent = Instant::now();
        kill_process(pid(reader), *signal).unwrap();
        let status = wait(reader, Duration::from_secs(5));
        assert!(!status.success(), "{signal:?}: {status}");
        took.push(sent.elapsed());
    }
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_signal_ends_a_waiting_reader_within_a_second_and_the_mount_lives_on() {
    need_fuse!();
    let (content, bytes) = noise();
    let world = World::new(vec![content]);
    let (mount, first) = waiting_cat(&world);
    let mut readers = vec![(Signal::INT, first)];
    for signal in [Signal::TERM, Signal::KILL, Signal::HUP, Signal::QUIT] {
        readers.push((signal, cat(&mount.files()[0])));
    }
    until("all wait", || mount.waiting() == 5);
    end_soon(&mut readers);
    world.sim.advance(SignedDuration::from_hours(2));
    assert!(fs::read(&mount.files()[0]).unwrap() == bytes);
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_signal_ends_a_reader_that_waits_for_the_network() {
    need_fuse!();
    let (content, bytes) = noise();
    let world = World::new(vec![content]);
    let mount = world.mount("");
    let file = mount.files()[0].clone();
    // The version is known as long as somebody has it open, so that opening needs no data.
    let known = File::open(&file).unwrap();
    world
        .sim
        .faults()
        .add(Rule::new(Fault::Latency { ms: 8_000 }).on(Side::Data));
    let caught = "import signal, sys; f = open(sys.argv[1], 'rb', 0)\n\
                  signal.signal(signal.SIGINT, signal.default_int_handler)\n\
                  f.seek(-10, 2)\n\
                  f.read(10)";
    let python = Command::new("python3")
        .args(["-c", caught])
        .arg(&file)
        .stderr(Stdio::null())
        .spawn();
    let mut readers = vec![
        (Signal::INT, cat(&file)),
        (Signal::TERM, cat(&file)),
        (Signal::KILL, cat(&file)),
        (Signal::INT, python.unwrap()),
    ];
    let open_files = || mount.status()["open_files"].as_u64();
    until("all are reading", || open_files() == Some(5));
    end_soon(&mut readers);
    world.sim.faults().clear();
    drop(known);
    assert!(fs::read(&file).unwrap() == bytes);
}

#[test]
fn ignored_and_harmless_signals_leave_a_waiting_reader_alone() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let (mount, mut first) = waiting_cat(&world);
    let script = "trap '' INT; exec cat \"$1\" > /dev/null";
    let mut deaf = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(&mount.files()[0])
        .spawn()
        .unwrap();
    until("the shell became cat", || {
        fs::read_to_string(format!("/proc/{}/comm", deaf.id())).unwrap() == "cat\n"
    });
    kill_process(pid(&deaf), Signal::INT).unwrap();
    for signal in [
        Signal::WINCH,
        Signal::CHILD,
        Signal::URG,
        Signal::STOP,
        Signal::CONT,
    ] {
        kill_process(pid(&first), signal).unwrap();
    }
    // Several looks of the watcher.
    std::thread::sleep(Duration::from_millis(600));
    assert!(first.try_wait().unwrap().is_none() && deaf.try_wait().unwrap().is_none());
    world.sim.advance(SignedDuration::from_hours(2));
    assert!(wait(&mut first, Duration::from_secs(10)).success());
    assert!(wait(&mut deaf, Duration::from_secs(10)).success());
}

#[test]
fn a_hundred_waiting_openers_cost_one_task_and_end_together() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    let (mount, first) = waiting_cat(&world);
    let file = mount.files()[0].clone();
    let mut readers: Vec<Child> = (0..99).map(|_| cat(&file)).collect();
    readers.push(first);
    until("all wait for the task", || mount.waiting() == 100);
    for reader in &readers {
        kill_process(pid(reader), Signal::INT).unwrap();
    }
    let sent = Instant::now();
    for reader in &mut readers {
        wait(reader, Duration::from_secs(2));
    }
    assert!(
        sent.elapsed() < Duration::from_secs(2),
        "{:?}",
        sent.elapsed()
    );
    until("nobody waits", || mount.waiting() == 0);
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn an_open_that_may_not_wait_starts_the_task_and_says_to_come_again() {
    need_fuse!();
    let (content, bytes) = noise();
    let world = World::new(vec![content]);
    world
        .sim
        .adjust(|knobs| knobs.task_time = SignedDuration::from_hours(1));
    let mount = world.mount("");
    let file = mount.files()[0].clone();
    let open = || {
        File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&file)
    };
    assert_eq!(open().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    until("the task is requested", || {
        world.sim.bill().tasks_created == 1
    });
    assert_eq!(open().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    world.sim.advance(SignedDuration::from_hours(2));
    until("it is ready", || open().is_ok());
    let mut read = Vec::new();
    open().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn an_operation_ends_by_its_deadline() {
    need_fuse!();
    let world = World::new(vec![noise().0]);
    world
        .sim
        .adjust(|knobs| knobs.task_time = SignedDuration::from_hours(1));
    let mount = world.mount("task_wait = \"1s\"\nop_timeout = \"1s\"");
    let asked = Instant::now();
    let error = fs::read(&mount.files()[0]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn the_demo_makes_the_whole_journey() {
    need_fuse!();
    let demo = Command::new(env!("CARGO_BIN_EXE_mongo-backupfs"))
        .args(["demo", "--check"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stdout);
    assert!(
        demo.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&demo.stderr)
    );
    assert!(said.contains("0 tasks created, 0 data requests"), "{said}");
    assert!(!said.contains("FAIL"), "{said}");
}

#[test]
fn a_demo_that_nobody_listens_to_leaves_no_mount_behind() {
    need_fuse!();
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_mongo-backupfs"))
        .arg("demo")
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(demo.stdout.take());
    wait(&mut demo, Duration::from_secs(20));
    assert!(!is_mounted(&fs::canonicalize(dir.path()).unwrap()));
}
