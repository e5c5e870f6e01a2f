//! A local directory as a bucket.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use mongo_backupfs::sim::Content;

use super::{ODD, error_of, fill, root, shown, world};
use crate::world::{World, attribute, digests, sh};

const LAYOUT: &str = "{instance}/{backup}/{shard}/";

fn mounted(directory: &Path) -> World {
    let mut world = world("fs", LAYOUT, &format!("root = \"{}\"", directory.display()));
    world.mount_keys.push("list_ttl = \"1ms\"".into());
    world.mount_keys.push("memory = \"32MiB\"".into());
    world.mount();
    world
}

fn shard(world: &World) -> PathBuf {
    root(world).join("c0/latest/rs0")
}

#[test]
fn files_of_a_directory_are_copied_equal() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("c0/2026-01-05/rs0");
    let mut expected = fill(&place, ODD);
    let large = Content::noise(1, 20_000_003);
    fs::write(place.join("large"), large.read(0..20_000_003).unwrap()).unwrap();
    expected.insert("large".into(), large.sha256().unwrap());
    let mut world = mounted(dir.path());
    assert_eq!(digests(&shard(&world)), shown(&expected));
    let file = shard(&world).join("large");
    assert_eq!(attribute(&file, "size"), "exact");
    let original = fs::metadata(place.join("large")).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mtime(), original.mtime());
    // rsync finds nothing to do the second time.
    let copy = dir.path().join("copy");
    let rsync = format!(
        "rsync -ai '{}/' '{}'",
        shard(&world).display(),
        copy.display()
    );
    assert!(sh(&rsync).contains("large"));
    assert_eq!(sh(&rsync), "");
    world.unmount();
}

#[test]
fn nothing_outside_the_directory_is_shown_or_read() {
    let around = tempfile::tempdir().unwrap();
    let dir = around.path().join("backups");
    let place = dir.join("c0/2026-01-05/rs0");
    fill(&place, ["inside", "swapped", "folder/x"]);
    fill(around.path(), ["secret/x", "secret/2026-01-05/rs0/y"]);
    symlink("../../../../secret/x", place.join("relative")).unwrap();
    symlink(around.path().join("secret/x"), place.join("absolute")).unwrap();
    symlink("../../../../secret", place.join("dir")).unwrap();
    symlink("../secret", dir.join("c9")).unwrap();
    symlink("inside", place.join("within")).unwrap();
    let mut world = mounted(&dir);
    assert!(!root(&world).join("c9").exists());
    let names: Vec<String> = digests(&shard(&world)).into_keys().collect();
    assert_eq!(names, ["folder/x", "inside", "swapped", "within"]);

    // What becomes a way out after it was listed.
    let (file, folder) = (
        shard(&world).join("swapped"),
        shard(&world).join("folder/x"),
    );
    for path in [&file, &folder] {
        fs::metadata(path).unwrap();
    }
    world.unmount();
    world.mount_keys.clear();
    fs::remove_dir_all(world.dir.path().join("cache")).unwrap();
    world.mount();
    for path in [&file, &folder] {
        fs::metadata(path).unwrap();
    }
    fs::remove_file(place.join("swapped")).unwrap();
    symlink(around.path().join("secret/x"), place.join("swapped")).unwrap();
    fs::remove_dir_all(place.join("folder")).unwrap();
    symlink(around.path().join("secret"), place.join("folder")).unwrap();
    for path in [&file, &folder] {
        assert_eq!(
            error_of(File::open(path)),
            libc::EACCES,
            "{}",
            path.display()
        );
    }
    world.unmount();
}

#[test]
fn a_file_changed_under_an_open_handle_is_stale() {
    const SIZE: u64 = 80 << 20;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("c0/2026-01-05/rs0");
    fill(&place, ["written", "replaced", "removed"]);
    for name in ["written", "replaced", "removed"] {
        File::create(place.join(name))
            .unwrap()
            .set_len(SIZE)
            .unwrap();
    }
    let mut world = mounted(dir.path());
    let open = |name: &str| {
        let file = File::open(shard(&world).join(name)).unwrap();
        file.read_exact_at(&mut [1; 4096], 0).unwrap();
        file
    };
    let files = ["written", "replaced", "removed"].map(open);
    let written = fs::OpenOptions::new()
        .write(true)
        .open(place.join("written"))
        .unwrap();
    written.write_all_at(b"new", SIZE - 3).unwrap();
    // However coarse the clock of the filesystem is.
    let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1));
    written.set_times(times).unwrap();
    File::create(place.join("new"))
        .unwrap()
        .set_len(SIZE)
        .unwrap();
    fs::rename(place.join("new"), place.join("replaced")).unwrap();
    fs::remove_file(place.join("removed")).unwrap();
    for file in &files {
        let read = file.read_exact_at(&mut [1; 4096], SIZE - 4096);
        assert_eq!(error_of(read), libc::ESTALE);
    }
    drop(files);
    // Opened again it is the new version.
    let file = File::open(shard(&world).join("written")).unwrap();
    let mut end = [0; 3];
    file.read_exact_at(&mut end, SIZE - 3).unwrap();
    assert_eq!(&end, b"new");
    drop(file);
    world.unmount();
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("c0/2026-01-05/rs0");
    fill(&place, ["private"]);
    let mut world = mounted(dir.path());
    let path = shard(&world).join("private");
    fs::set_permissions(place.join("private"), fs::Permissions::from_mode(0o000)).unwrap();
    // root may read it all the same.
    match fs::read(place.join("private")) {
        Ok(content) => assert_eq!(fs::read(&path).unwrap(), content),
        Err(_) => assert_eq!(error_of(File::open(&path)), libc::EACCES),
    }
    world.unmount();
}
