//! Everyday tools read the mount and get exactly the artifact's bytes; nothing can be changed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mongo_backupfs::sim::Content;

use crate::world::{World, sh, sha256, sha256_of};

/// Neither a multiple of the block size nor of the page size.
const SIZE: u64 = (9 << 20) + 12_345;

fn mounted() -> (World, std::path::PathBuf, String) {
    let mut world = World::with_content([Content::noise(7, SIZE)]);
    world.mount();
    let file = world.latest_file();
    let digest = world.latest_sha256();
    (world, file, digest)
}

/// Each script prints the file's bytes; `$f` is the file, `$d` a scratch directory.
fn prints_the_artifact(scripts: &[&str]) {
    let (world, file, digest) = mounted();
    prints(&file, &digest, scripts);
    assert_eq!(world.sim.bill().tasks_created, 1);
}

fn prints(file: &Path, digest: &str, scripts: &[&str]) {
    for script in scripts {
        let scratch = tempfile::tempdir().unwrap();
        let got = sh(&format!(
            "set -o pipefail; f='{}'; d='{}'; ({script}) | sha256sum | cut -d' ' -f1",
            file.display(),
            scratch.path().display(),
        ));
        assert_eq!(got.trim(), digest, "{script}");
    }
}

#[test]
fn case_50_copying_tools_get_every_byte() {
    prints_the_artifact(&[
        "cp \"$f\" $d/x && cat $d/x",
        "cp --sparse=always \"$f\" $d/x && cat $d/x",
        "cat \"$f\"",
        "rsync -a --checksum \"$f\" $d/x && cat $d/x",
        "tar -C \"$(dirname \"$f\")\" -c . | tar -x -O",
        "dd if=\"$f\" bs=7 count=100000 status=none; dd if=\"$f\" bs=1M skip=700000 iflag=skip_bytes status=none",
        "dd if=\"$f\" iflag=direct bs=1M status=none",
        "tail -c 100 \"$f\" >/dev/null; cat \"$f\"",
    ]);
}

#[test]
fn case_50_zeros_are_no_holes_to_whoever_looks_for_some() {
    let mut bytes = Content::noise(7, SIZE).read(0..SIZE).unwrap().to_vec();
    bytes[1 << 20..3 << 20].fill(0);
    bytes[SIZE as usize - 70_000..].fill(0);
    let mut world = World::with_content([Content::bytes(bytes)]);
    world.mount();
    let file = world.latest_file();
    let digest = world.latest_sha256();
    // Before anything of the middle was read, and with all of it cached.
    let seek = "import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
stat = os.fstat(f)
assert stat.st_blocks == -(-stat.st_size // 512), stat
for offset in 0, 1 << 20, (1 << 20) + 1, stat.st_size - 1:
    assert os.lseek(f, offset, os.SEEK_HOLE) == stat.st_size, offset
    assert os.lseek(f, offset, os.SEEK_DATA) == offset, offset";
    let seek = format!("python3 -c '{seek}' '{}'", file.display());
    sh(&seek);
    let tools = [
        "cp --sparse=always \"$f\" $d/x && cat $d/x",
        "cp --sparse=auto \"$f\" $d/x && cat $d/x",
        "tar -S -C \"$(dirname \"$f\")\" -c . | tar -x -O",
        "rsync -S \"$f\" $d/x && cat $d/x",
        "dd if=\"$f\" of=$d/x bs=64K conv=sparse status=none && truncate -r \"$f\" $d/x && cat $d/x",
    ];
    prints(&file, &digest, &tools);
    sh(&seek);
}

#[test]
fn case_53_a_database_is_opened_in_place() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("made.db");
    sh(&format!(
        "python3 -c 'import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute(\"create table t (n integer primary key, word text)\")
db.executemany(\"insert into t values (?, ?)\", ((n, \"word %d\" % n) for n in range(20000)))
db.commit()' '{}'",
        path.display()
    ));
    let mut world = World::with_content([Content::file(&path).unwrap()]);
    world.mount();
    let found = sh(&format!(
        "python3 -c 'import fcntl, mmap, os, sqlite3, sys
path = sys.argv[1]
db = sqlite3.connect(\"file:%s?mode=ro\" % path, uri=True)
print(db.execute(\"pragma integrity_check\").fetchone()[0])
print(db.execute(\"select sum(n) from t\").fetchone()[0])
try:
    db.execute(\"delete from t\")
except sqlite3.OperationalError as error:
    print(error)
f = open(path, \"rb\")
fcntl.flock(f, fcntl.LOCK_SH)
fcntl.lockf(f, fcntl.LOCK_SH)
try:
    mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_WRITE)
except PermissionError:
    print(\"not writable\")' '{}'",
        world.latest_file().display()
    ));
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [
            "ok",
            "199990000",
            "attempt to write a readonly database",
            "not writable"
        ]
    );
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn case_53_mappings_and_sendfile_get_every_byte() {
    let python = |flags: &str| {
        format!(
            "python3 -c 'import mmap,os,sys; f=os.open(sys.argv[1],os.O_RDONLY); \
             m=mmap.mmap(f,0,{flags},mmap.PROT_READ); sys.stdout.buffer.write(m)' \"$f\""
        )
    };
    let sendfile =
        "python3 -c 'import os,sys; f=os.open(sys.argv[1],os.O_RDONLY); n=os.fstat(f).st_size; o=0
while o<n: o+=os.sendfile(1,f,o,n-o)' \"$f\"";
    let blind = "python3 -c 'import os,sys; f=os.open(sys.argv[1],os.O_RDONLY)
while True:
    b=os.read(f,100003)
    if not b: break
    sys.stdout.buffer.write(b)' \"$f\"";
    let (shared, private) = (python("mmap.MAP_SHARED"), python("mmap.MAP_PRIVATE"));
    for script in [shared.as_str(), &private, sendfile, blind] {
        // Each on a fresh mount: the size is not known before the open.
        prints_the_artifact(&[script]);
    }
}

#[test]
fn two_thousand_random_reads_are_exact() {
    let (world, path, _) = mounted();
    let content = Content::noise(7, SIZE);
    let file = File::open(&path).unwrap();
    let mut seed = 0_u64;
    let mut random = |below: u64| {
        // SplitMix64: the same places in every run.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % below
    };
    for _ in 0..2000 {
        let offset = random(SIZE + 4096);
        let mut buffer = vec![0; 1 + random(300_000) as usize];
        let mut read = 0;
        while read < buffer.len() {
            match file
                .read_at(&mut buffer[read..], offset + read as u64)
                .unwrap()
            {
                0 => break,
                n => read += n,
            }
        }
        let end = (offset + buffer.len() as u64).min(SIZE).max(offset);
        assert_eq!(read as u64, end - offset, "length at {offset}");
        if read > 0 {
            let expected = content.read(offset..end).unwrap();
            assert_eq!(
                sha256(&buffer[..read]),
                sha256(&expected),
                "bytes at {offset}"
            );
        }
    }
    drop(file);
    drop(world);
}

#[test]
fn a_second_rsync_copies_nothing_also_after_a_remount() {
    let mut world = World::with_content((0..3).map(|day| Content::noise(day, 1 << 20)));
    world.mount();
    let copy = tempfile::tempdir().unwrap();
    let rsync = |world: &World| {
        sh(&format!(
            "rsync -a --itemize-changes '{}/' '{}/'",
            world.cluster().display(),
            copy.path().display()
        ))
    };
    assert!(rsync(&world).contains(">f"));
    let first = world.sim.bill();
    assert_eq!(rsync(&world), "");
    world.unmount();
    world.mount();
    assert_eq!(rsync(&world), "");
    let last = world.sim.bill();
    assert_eq!(last.data_requests(), first.data_requests());
    assert_eq!(last.tasks_created, 3);
}

#[test]
fn attributes_are_the_same_after_a_remount() {
    let mut world = World::with_content([Content::noise(7, SIZE)]);
    world.mount();
    let stat = |world: &World| {
        sh(&format!(
            "cd '{}'; find . -not -path . | sort | xargs stat -c '%n %i %s %b %Y %Z %a'",
            world.mountpoint.display()
        ))
    };
    sha256_of(&world.latest_file());
    let before = stat(&world);
    world.unmount();
    world.mount();
    assert_eq!(stat(&world), before);
    let line = before
        .lines()
        .find(|line| line.contains(&format!(" {SIZE} ")))
        .unwrap();
    assert!(
        line.contains(&format!(" {} ", SIZE.div_ceil(512))),
        "{line}"
    );
}

#[test]
fn a_complete_file_needs_neither_network_nor_task_after_a_remount() {
    let (mut world, file, digest) = mounted();
    assert_eq!(sha256_of(&file), digest);
    world.unmount();
    world.mount();
    let before = world.sim.bill();
    assert_eq!(sha256_of(&world.latest_file()), digest);
    let after = world.sim.bill();
    assert_eq!(after.data_requests(), before.data_requests());
    assert_eq!(after.tasks_created, 1);
}

#[test]
fn case_53_every_change_is_refused_with_erofs() {
    let (world, file, _) = mounted();
    let dir = file.parent().unwrap();
    let script = r#"
import os, sys, errno
f, d = sys.argv[1:3]
n = os.path.join(d, "new")
tries = {
    "open w": lambda: os.open(f, os.O_WRONLY),
    "open rw": lambda: os.open(f, os.O_RDWR),
    "open trunc": lambda: os.open(f, os.O_WRONLY | os.O_TRUNC),
    "open append": lambda: os.open(f, os.O_WRONLY | os.O_APPEND),
    "create": lambda: os.open(n, os.O_CREAT | os.O_WRONLY),
    "truncate": lambda: os.truncate(f, 0),
    "unlink": lambda: os.unlink(f),
    "rename": lambda: os.rename(f, n),
    "mkdir": lambda: os.mkdir(n),
    "rmdir": lambda: os.rmdir(d),
    "link": lambda: os.link(f, n),
    "symlink": lambda: os.symlink("x", n),
    "mknod": lambda: os.mknod(n),
    "mkfifo": lambda: os.mkfifo(n),
    "chmod": lambda: os.chmod(f, 0o600),
    "chown": lambda: os.chown(f, 1, 1),
    "utime": lambda: os.utime(f),
    "setxattr": lambda: os.setxattr(f, "user.x", b"1"),
    "removexattr": lambda: os.removexattr(f, "user.backupfs.state"),
}
for name, attempt in tries.items():
    try:
        attempt()
    except OSError as e:
        if e.errno != errno.EROFS:
            sys.exit(f"{name}: {e}")
    else:
        sys.exit(f"{name} succeeded")
print(len(tries))
"#;
    let run = |dir: &Path| {
        sh(&format!(
            "python3 -c '{script}' '{}' '{}'",
            file.display(),
            dir.display()
        ))
    };
    assert_eq!(run(dir).trim(), "19");
    assert_eq!(world.sim.bill().tasks_created, 0);
}

#[test]
fn small_and_empty_artifacts_are_whole() {
    for size in [0, 1, 4095, 4096, 131_071, 131_072, 131_073] {
        let mut world = World::with_content([Content::noise(size, size)]);
        world.mount();
        let bytes = fs::read(world.latest_file()).unwrap();
        assert_eq!(bytes.len() as u64, size);
        assert_eq!(sha256(&bytes), world.latest_sha256(), "{size} bytes");
        world.unmount();
    }
}

#[test]
fn parallel_readers_share_every_fetched_byte() {
    let (world, file, digest) = mounted();
    const READERS: u64 = 8;
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let file = file.clone();
            std::thread::spawn(move || sha256_of(&file))
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), digest);
    }
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 1);
    // An open may prove the version it pins by one byte; the content itself is fetched once.
    assert!(
        bill.bytes_served <= SIZE + READERS,
        "{} of {SIZE}",
        bill.bytes_served
    );
}
