//! Backups that already lie in a bucket, on real mounts: a real S3 server, which
//! `scripts/real-tools` brings, and local directories.

mod directory;
mod pbm;
mod s3;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use mongo_backupfs::sim::{Content, SimBuilder};

use self::s3::{BUCKET, KEY, S3};
use crate::world::{World, attribute, digests, eventually, sh, sha256};

/// The configured name of the bucket.
const NAME: &str = "bucket-test";

/// Names that a path, an address or a signature could get wrong.
const ODD: [&str; 10] = [
    "plain.bson",
    "sp ace +plus%25&amp;=?#.gz",
    "目录/备份 é.bson",
    "..data/.hidden",
    "a'b(c)!*~\"<>|.bson",
    "back\\slash;semi:colon,comma@",
    "trailing blank ",
    "deep/er/and/deep/er/still/x",
    "100%/50%2F",
    "empty",
];

/// A world whose only account is the bucket that `options` describe.
fn world(service: &str, layout: &str, options: &str) -> World {
    let mut world = World::new(SimBuilder::new());
    world.sim.secrets().add(s3::KEY);
    world.account = Some(format!(
        "[[provider]]\nname = \"{NAME}\"\nkind = \"bucket\"\nservice = \"{service}\"\n\
         allow_http = true\nretry_budget = \"3s\"\nlayout = \"{layout}\"\n\
         options = {{ {options} }}\n"
    ));
    world
}

fn root(world: &World) -> PathBuf {
    world.mountpoint.join(NAME)
}

/// Writes files below `place`, each with its own name as content but for the last of [`ODD`].
fn fill(
    place: &Path,
    names: impl IntoIterator<Item = impl AsRef<str>>,
) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    for name in names {
        let name = name.as_ref();
        let content = if name.ends_with("empty") { "" } else { name };
        let path = place.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        expected.insert(name.to_owned(), sha256(content.as_bytes()));
    }
    expected
}

/// The digests of `expected` under the names that the tree gives them.
fn shown(expected: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let escaped = |name: &String| {
        name.replace("..data/.hidden", "%2E.data/%2Ehidden")
            .replace("100%/50%2F", "100%/50%252F")
    };
    let pairs = expected
        .iter()
        .map(|(name, digest)| (escaped(name), digest.clone()));
    pairs.collect()
}

fn error_of<T>(result: io::Result<T>) -> i32 {
    let error = result.map(drop).unwrap_err();
    error.raw_os_error().unwrap_or_else(|| panic!("{error}"))
}

#[test]
fn nested_objects_of_a_real_s3_are_copied_equal() {
    let s3 = S3::start();
    let shard = s3.bucket().join("c0/2026-01-05T14:00:00Z/rs0");
    let mut expected = fill(&shard, ODD);
    let large = Content::noise(1, 9_000_017);
    fs::write(shard.join("large.wt"), large.read(0..9_000_017).unwrap()).unwrap();
    expected.insert("large.wt".into(), large.sha256().unwrap());
    fill(&s3.bucket().join("c0/2026-01-06"), ["rs0/x", "rs1/y"]);

    let mut world = world("s3", "{instance}/{backup}/{shard}/", &s3.options());
    world.mount();
    let instance = root(&world).join("c0");
    let latest = fs::read_link(instance.join("latest")).unwrap();
    assert_eq!(latest, Path::new("20260106T000000Z-2026-01-06"));
    let shard = instance.join("20260105T140000Z-2026-01-05T14:00:00Z/rs0");
    let file = shard.join("large.wt");
    sh(&format!(
        "ls -lR {root}; du -a {root}",
        root = root(&world).display()
    ));
    assert_eq!(fs::metadata(&file).unwrap().len(), 9_000_017);
    assert_eq!(attribute(&file, "size"), "exact");
    assert_eq!(s3.data_requests(), Vec::<String>::new(), "looking is free");

    assert_eq!(digests(&shard), shown(&expected));
    assert_eq!(attribute(&file, "state"), "ready");
    for request in s3.data_requests() {
        assert!(request.contains("X-Amz-Signature="), "{request}");
    }
    // A second pass copies from the cache.
    let before = s3.data_requests().len();
    assert_eq!(digests(&shard), shown(&expected));
    assert_eq!(s3.data_requests().len(), before);
    let log = world.log();
    assert!(!log.contains(KEY) && !log.contains("X-Amz-"), "{log}");
    world.unmount();
}

#[test]
fn case_51_ten_thousand_nested_objects_are_listed_in_pages() {
    let s3 = S3::start();
    let shard = s3.bucket().join("c0/2026-01-05/rs0");
    fill(
        &shard,
        (0..10_000).map(|n| format!("db{}/c{}/f{n}", n % 7, n % 90)),
    );
    fill(s3.bucket(), ["c1/2026-01-05/rs0/x"]);
    let mut world = world("s3", "{instance}/{backup}/{shard}/", &s3.options());
    world.mount();
    let instances = fs::read_dir(root(&world)).unwrap().count();
    assert_eq!(
        (instances, s3.lists().len()),
        (2, 1),
        "one listing of folders"
    );
    let backups = fs::read_dir(root(&world).join("c0")).unwrap().count();
    assert_eq!((backups, s3.lists().len()), (2, 3), "a backup and `latest`");
    assert!(s3.lists().iter().all(|list| list.contains("delimiter=")));

    let place = root(&world).join("c0/latest/rs0");
    let found = sh(&format!("find {}/ -type f | wc -l", place.display()));
    assert_eq!(found.trim(), "10000");
    let whole: Vec<String> = s3.lists().split_off(3);
    assert_eq!(whole.len(), 10, "{whole:#?}");
    assert!(
        whole[1..]
            .iter()
            .all(|list| list.contains("continuation-token="))
    );
    let content = fs::read_to_string(place.join("db2/c49/f9949")).unwrap();
    assert_eq!(content, "db2/c49/f9949");
    world.unmount();
}

#[test]
fn a_bucket_that_may_not_be_read_says_why() {
    let s3 = S3::start();
    fill(s3.bucket(), ["c0/2026-01-05/rs0/x"]);
    for (options, words) in [
        (
            s3.options().replace(KEY, "another key"),
            "SignatureDoesNotMatch",
        ),
        (s3.options().replace(BUCKET, "nowhere"), "NoSuchBucket"),
    ] {
        let mut world = world("s3", "{instance}/{backup}/{shard}/", &options);
        world.mount();
        let errno = error_of(fs::read_dir(root(&world)).and_then(|mut dir| dir.next().unwrap()));
        assert!(matches!(errno, libc::EACCES | libc::EIO), "{errno}");
        eventually("the reason is logged", || world.log().contains(words));
        let cure = if words == "NoSuchBucket" {
            "`bucket`"
        } else {
            "`secret_access_key`"
        };
        assert!(world.log().contains(cure), "{}", world.log());
        world.unmount();
    }
}

#[test]
fn keys_that_are_withdrawn_are_refused_on_open() {
    let mut s3 = S3::start();
    fill(s3.bucket(), ["c0/2026-01-05/rs0/x"]);
    let mut world = world("s3", "{instance}/{backup}/{shard}/", &s3.options());
    world.mount();
    let path = root(&world).join("c0/latest/rs0/x");
    assert_eq!(fs::metadata(&path).unwrap().len(), 19);
    s3.restart("another key");
    assert_eq!(error_of(File::open(&path)), libc::EACCES);
    eventually("the reason is told", || {
        attribute(&path, "error").contains("the keys must be allowed to read objects")
    });
    s3.restart(KEY);
    assert_eq!(fs::read_to_string(&path).unwrap(), "c0/2026-01-05/rs0/x");
    world.unmount();
}

#[test]
fn an_object_replaced_under_an_open_handle_is_stale() {
    const SIZE: u64 = 40 << 20;
    let s3 = S3::start();
    let place = s3.bucket().join("c0/2026-01-05/rs0/f");
    fill(s3.bucket(), ["c0/2026-01-05/rs0/f"]);
    let (old, new) = (Content::noise(1, SIZE), Content::noise(2, SIZE));
    fs::write(&place, old.read(0..SIZE).unwrap()).unwrap();
    let mut world = world("s3", "{instance}/{backup}/{shard}/", &s3.options());
    world.mount_keys.push("memory = \"32MiB\"".into());
    world.mount();
    let path = root(&world).join("c0/latest/rs0/f");
    let file = File::open(&path).unwrap();
    let mut piece = [0; 4096];
    file.read_exact_at(&mut piece, 0).unwrap();
    assert_eq!(piece[..], old.read(0..4096).unwrap()[..]);

    let beside = place.with_extension("new");
    fs::write(&beside, new.read(0..SIZE).unwrap()).unwrap();
    fs::rename(&beside, &place).unwrap();
    assert_eq!(
        error_of(file.read_exact_at(&mut piece, SIZE - 4096)),
        libc::ESTALE
    );
    drop(file);
    let file = File::open(&path).unwrap();
    file.read_exact_at(&mut piece, SIZE - 4096).unwrap();
    assert_eq!(
        piece[..],
        new.read(SIZE - 4096..SIZE).unwrap()[..],
        "the new version"
    );
    drop(file);
    world.unmount();
}

#[test]
fn a_public_bucket_needs_no_keys() {
    let s3 = S3::public();
    fill(s3.bucket(), ["2026-01-05/x"]);
    let options = format!(
        "bucket = \"{BUCKET}\", endpoint = \"{}\", skip_signature = true",
        s3.endpoint()
    );
    let mut world = world("s3", "{backup}/", &options);
    world.mount();
    let path = root(&world).join("backups/latest/backups/x");
    assert_eq!(fs::read_to_string(&path).unwrap(), "2026-01-05/x");
    assert!(
        s3.data_requests()
            .iter()
            .all(|request| !request.contains('?'))
    );
    let written = fs::metadata(s3.bucket().join("2026-01-05/x")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mtime(), written.mtime());
    world.unmount();
}
