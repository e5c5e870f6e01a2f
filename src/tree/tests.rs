//! The rules of the tree, against a provider in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{SharedClock, SystemClock};
use crate::error::Kind;
use crate::model::Origin;
use crate::observe::events::Events;
use crate::providers::Provider;

use super::fake::{Fake, backup, file, instance};
use super::*;

const TTL: Duration = Duration::from_secs(60);

fn tree(fake: &Arc<Fake>) -> Tree {
    let clock: SharedClock = Arc::new(SystemClock);
    Tree::new(
        vec![(Arc::from("atlas"), Arc::clone(fake) as Arc<dyn Provider>)],
        TreeOptions {
            list_ttl: TTL,
            patience: Duration::from_secs(48),
            events: Events::new(Arc::clone(&clock)),
        },
        clock,
    )
}

async fn names_in(tree: &Tree, path: &str) -> Vec<String> {
    let directory = tree.resolve(path).await.unwrap();
    let children = tree.children(directory.ino).await.unwrap();
    children.iter().map(|child| child.name.clone()).collect()
}

/// Every path of the tree with its number.
async fn all(tree: &Tree) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut left = vec![ROOT];
    while let Some(directory) = left.pop() {
        for child in tree.children(directory).await.unwrap().iter() {
            assert_eq!(tree.parent(child.ino), directory);
            found.push((tree.path(child.ino), child.ino));
            if child.node.is_directory() {
                left.push(child.ino);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(start_paused = true)]
async fn what_a_pattern_found_need_not_all_have_what_follows_it() {
    let empty = Fake::default();
    empty.state().instances = vec![instance("c1")];
    let clock: SharedClock = Arc::new(SystemClock);
    let tree = Tree::new(
        vec![
            (Arc::from("a"), Fake::small() as Arc<dyn Provider>),
            (Arc::from("b"), Arc::new(empty) as Arc<dyn Provider>),
        ],
        TreeOptions {
            list_ttl: TTL,
            patience: TTL,
            events: Events::new(Arc::clone(&clock)),
        },
        clock,
    );
    let found = tree.matching("*/*/latest").await.unwrap();
    let paths: Vec<String> = found.iter().map(|child| tree.path(child.ino)).collect();
    assert_eq!(paths, ["/a/c0/20240102T000000Z-b3"]);
    for (pattern, words) in [
        ("*/*/nothing", "nothing matches"),
        ("*/c0/latest/rs0/rs0.archive.gz/below", "nothing matches"),
        ("b/c1/latest", "there is no latest"),
    ] {
        let error = tree.matching(pattern).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{pattern}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn shows_providers_instances_backups_shards_and_files() {
    let fake = Fake::small();
    let tree = tree(&fake);
    assert_eq!(fake.lists(), 0, "nothing is asked before somebody looks");
    let paths: Vec<String> = all(&tree).await.into_iter().map(|(path, _)| path).collect();
    assert_eq!(
        paths,
        [
            "/atlas",
            "/atlas/c0",
            "/atlas/c0/20240101T000000Z-b2",
            "/atlas/c0/20240101T000000Z-b2/rs0",
            "/atlas/c0/20240101T000000Z-b2/rs0/rs0.archive.gz",
            "/atlas/c0/20240102T000000Z-b3",
            "/atlas/c0/20240102T000000Z-b3/rs0",
            "/atlas/c0/20240102T000000Z-b3/rs0/rs0.archive.gz",
            "/atlas/c0/20240103T000000Z-b1",
            "/atlas/c0/20240103T000000Z-b1/rs0",
            "/atlas/c0/20240103T000000Z-b1/rs0/rs0.archive.gz",
            "/atlas/c0/latest",
        ]
    );
    assert_eq!(fake.lists(), 5, "provider, instance and three shards");
    all(&tree).await;
    assert_eq!(fake.lists(), 5);
}

#[tokio::test(start_paused = true)]
async fn numbers_are_distinct_and_the_same_after_a_remount() {
    let fake = Fake::small();
    let first = all(&tree(&fake)).await;
    fake.state().backups.get_mut("c0").unwrap().reverse();
    assert_eq!(first, all(&tree(&fake)).await);
    let mut numbers: Vec<u64> = first.iter().map(|(_, ino)| *ino).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), first.len());
}

#[tokio::test(start_paused = true)]
async fn latest_is_the_newest_successful_backup() {
    let fake = Fake::small();
    let tree = tree(&fake);
    let instance = tree.resolve("/atlas/c0").await.unwrap().ino;
    let target = |node| match node {
        Node::Latest { target, .. } => target,
        other => panic!("not a symlink: {other:?}"),
    };
    let before = tree.lookup(instance, "latest").await.unwrap();
    assert_eq!(target(before.node), "20240102T000000Z-b3");
    let through = tree.resolve("/atlas/c0/latest/rs0/rs0.archive.gz").await;
    assert_eq!(
        tree.path(through.unwrap().ino),
        "/atlas/c0/20240102T000000Z-b3/rs0/rs0.archive.gz"
    );

    // Of two that began together, the greater id is the newer.
    let twin = backup("b4", "2024-01-02T00:00:00Z");
    fake.state().backups.get_mut("c0").unwrap().insert(0, twin);
    tokio::time::advance(TTL).await;
    let after = tree.lookup(instance, "latest").await.unwrap();
    assert_eq!(after.ino, before.ino);
    assert_eq!(target(after.node), "20240102T000000Z-b4");
    assert_eq!(
        target(tree.node(before.ino).unwrap()),
        "20240102T000000Z-b4"
    );

    for backup in fake.state().backups.get_mut("c0").unwrap() {
        backup.successful = false;
    }
    tokio::time::advance(TTL).await;
    let none = tree.lookup(instance, "latest").await.unwrap_err();
    assert_eq!(none.kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_unknown_only_by_a_current_listing() {
    let fake = Fake::small();
    let tree = tree(&fake);
    let provider = tree.lookup(ROOT, "atlas").await.unwrap().ino;
    let unknown = tree.lookup(provider, "c1").await.unwrap_err();
    assert_eq!((unknown.kind(), fake.lists()), (Kind::NotFound, 1));

    // It appears: the next question after the ttl asks again before it says no.
    fake.state().instances.push(instance("c1"));
    tokio::time::advance(TTL).await;
    tree.lookup(provider, "c1").await.unwrap();
    assert_eq!(fake.lists(), 2);

    // While the provider fails, known names stay, and unknown ones are errors.
    tokio::time::advance(TTL).await;
    fake.state().fails = Some(Kind::Unavailable);
    tree.lookup(provider, "c1").await.unwrap();
    let unproven = tree.lookup(provider, "c2").await.unwrap_err();
    assert_eq!(unproven.errno(), libc::EIO);
    assert_eq!(names_in(&tree, "/atlas").await, ["c0", "c1"]);
    assert!(tree.health()[0].stale);

    fake.state().fails = None;
    tokio::time::advance(TTL).await;
    let unknown = tree.lookup(provider, "c2").await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
    assert!(!tree.health()[0].stale);
    assert_eq!(tree.health()[0].instances, 2);
}

#[tokio::test(start_paused = true)]
async fn a_known_path_is_told_at_once_and_latest_when_it_is_sure() {
    let fake = Fake::small();
    let tree = tree(&fake);
    let newest = tree.resolve("/atlas/c0/latest").await.unwrap().ino;
    let file = format!("{}/rs0/rs0.archive.gz", tree.path(newest));
    tree.resolve(&file).await.unwrap();
    tokio::time::advance(TTL).await;
    fake.state().takes = Duration::from_secs(2);

    let start = Instant::now();
    tree.resolve(&file).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100));
    // The refreshes that this began have long ended when the next backup is there.
    tokio::time::sleep(2 * TTL).await;
    let newer = backup("b9", "2024-02-01T00:00:00Z");
    fake.state().backups.get_mut("c0").unwrap().push(newer);
    let latest = tree.resolve("/atlas/c0/latest").await.unwrap().ino;
    assert!(tree.path(latest).ends_with("-b9"), "{}", tree.path(latest));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_shard_needs_a_current_listing_of_its_instance() {
    let fake = Fake::small();
    let tree = tree(&fake);
    let backup = tree.resolve("/atlas/c0/latest").await.unwrap().ino;
    let unknown = tree.lookup(backup, "rs9").await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
    tokio::time::advance(TTL).await;
    fake.state().fails = Some(Kind::Unavailable);
    let asked = fake.lists();
    tree.lookup(backup, "rs0").await.unwrap();
    assert_eq!(fake.lists(), asked, "a known shard asks nothing");
    let unproven = tree.lookup(backup, "rs9").await.unwrap_err();
    assert_eq!(unproven.errno(), libc::EIO);
}

#[tokio::test(start_paused = true)]
async fn case_29_a_failed_first_listing_is_an_error_never_an_empty_directory() {
    for (kind, errno) in [
        (Kind::Unreachable, libc::EIO),
        (Kind::Unavailable, libc::EIO),
        (Kind::Throttled, libc::EIO),
        (Kind::Protocol, libc::EIO),
        (Kind::NotFound, libc::EIO),
        (Kind::Unsupported, libc::EIO),
        (Kind::Credentials, libc::EACCES),
    ] {
        let fake = Fake::small();
        fake.state().fails = Some(kind);
        let tree = tree(&fake);
        let provider = tree.lookup(ROOT, "atlas").await.unwrap().ino;
        let listed = tree.children(provider).await.unwrap_err();
        let looked = tree.lookup(provider, "c0").await.unwrap_err();
        assert_eq!((listed.errno(), looked.errno()), (errno, errno), "{kind:?}");
        assert_eq!(fake.lists(), 1, "one answer serves both");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_lookups_at_once_ask_once() {
    let fake = Fake::small();
    fake.state().takes = Duration::from_secs(2);
    let tree = tree(&fake);
    let provider = tree.lookup(ROOT, "atlas").await.unwrap().ino;
    let lookups = (0..100).map(|_| tree.lookup(provider, "c0"));
    for found in futures::future::join_all(lookups).await {
        found.unwrap();
    }
    assert_eq!(fake.lists(), 1);
}

#[tokio::test(start_paused = true)]
async fn nested_paths_become_directories() {
    let fake = Fake::small();
    fake.state().files = ["a", "a/b/c", "a/b/d", "e//f", "/g", "h/"]
        .map(file)
        .to_vec();
    let tree = tree(&fake);
    let shard = "/atlas/c0/latest/rs0";
    let top = names_in(&tree, shard).await;
    let directory = top.iter().find(|name| name.starts_with("a%~")).unwrap();
    assert_eq!(top, ["%empty", "a", directory.as_str(), "e", "h"]);
    assert_eq!(
        names_in(&tree, &format!("{shard}/{directory}/b")).await,
        ["c", "d"]
    );
    assert_eq!(names_in(&tree, &format!("{shard}/e/%empty")).await, ["f"]);
    assert_eq!(names_in(&tree, &format!("{shard}/h")).await, ["%empty"]);
    let Node::File(f) = tree
        .resolve(&format!("{shard}/{directory}/b/c"))
        .await
        .unwrap()
        .node
    else {
        panic!("not a file");
    };
    assert_eq!(
        (f.file.path.as_str(), f.file.origin),
        ("a/b/c", Origin::Task)
    );

    // A directory that is gone after a refresh is stale, not empty.
    let b = tree
        .resolve(&format!("{shard}/{directory}/b"))
        .await
        .unwrap();
    tree.remember(&b);
    fake.state().files = vec![file("a")];
    tokio::time::advance(TTL).await;
    let gone = tree.children(b.ino).await.unwrap_err();
    assert_eq!(gone.errno(), libc::ESTALE);
}

#[tokio::test(start_paused = true)]
async fn case_49_hostile_names_stay_inside_and_distinct() {
    let deep = "d/".repeat(10_000) + "f";
    let long = "x".repeat(3000);
    let hostile = [
        ".",
        "..",
        "",
        "a/../../etc",
        "new\nline",
        "\x1b[31m",
        "nul\0",
        ".hidden",
        "-rf",
        "%2E",
        &deep,
        &long,
    ];
    let fake = Fake::small();
    fake.state().instances = hostile.map(instance).to_vec();
    fake.state().files = hostile.map(file).to_vec();
    for id in hostile {
        let only = vec![backup(id, "2024-01-01T00:00:00Z")];
        fake.state().backups.insert(id.to_owned(), only);
    }
    let tree = tree(&fake);
    let mut seen = std::collections::HashSet::new();
    for (path, ino) in all(&tree).await {
        assert!(seen.insert(ino), "{path}");
        for name in path.split('/').skip(1) {
            assert!(!name.is_empty() && !name.starts_with('.') && name.len() <= 255);
            assert!(!name.chars().any(char::is_control), "{name:?}");
        }
    }
    assert_eq!(
        tree.children(tree.resolve("/atlas").await.unwrap().ino)
            .await
            .unwrap()
            .len(),
        12
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_twice_is_shown_once() {
    let fake = Fake::small();
    fake.state().instances = vec![instance("c0"), instance("c0")];
    let tree = tree(&fake);
    assert_eq!(names_in(&tree, "/atlas").await, ["c0"]);
}

#[tokio::test(start_paused = true)]
async fn the_documents_are_found_by_name_and_not_listed() {
    let tree = tree(&Fake::small());
    assert_eq!(names_in(&tree, "/").await, ["atlas"]);
    assert_eq!(
        names_in(&tree, "/.backupfs").await,
        ["events.log", "metrics", "status.json", "tasks.json"]
    );
    let status = tree.resolve("/.backupfs/status.json").await.unwrap();
    assert_eq!(tree.path(status.ino), "/.backupfs/status.json");
    assert!(matches!(status.node, Node::MetaFile(MetaFile::Status)));
    let meta = tree.lookup(ROOT, ".backupfs").await.unwrap();
    let looked_up = tree.lookup(meta.ino, "status.json").await.unwrap();
    assert_eq!(looked_up.ino, status.ino);
    for ino in [status.ino, meta.ino] {
        tree.forget(ino, 1);
        assert!(tree.node(ino).is_ok(), "what is fixed stays");
    }
    let missing = tree.resolve("/.backupfs/nothing").await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_file_has_no_children_and_a_long_name_is_refused() {
    let tree = tree(&Fake::small());
    let file = "/atlas/c0/latest/rs0/rs0.archive.gz";
    let file = tree.resolve(file).await.unwrap().ino;
    let error = tree.children(file).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotDirectory);
    let error = tree.lookup(ROOT, &"x".repeat(256)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NameTooLong);
}

#[tokio::test(start_paused = true)]
async fn case_52_what_is_no_longer_listed_lives_as_long_as_the_kernel_refers_to_it() {
    let fake = Fake::small();
    let tree = tree(&fake);
    let provider = tree.resolve("/atlas").await.unwrap().ino;
    let instance = tree.lookup(provider, "c0").await.unwrap().ino;
    let backups = tree.children(instance).await.unwrap();
    let known = tree.known_nodes();
    fake.state().instances.clear();
    tokio::time::advance(TTL).await;
    assert!(tree.children(provider).await.unwrap().is_empty());

    assert!(matches!(tree.node(instance), Ok(Node::Instance { .. })));
    tree.remember(&backups[0]);
    assert!(tree.forget(instance, 1));
    assert_eq!(tree.node(instance).unwrap_err().kind(), Kind::Changed);
    assert!(tree.node(backups[0].ino).is_ok());
    assert!(tree.forget(backups[0].ino, 1));
    assert_eq!(tree.known_nodes(), known - 5, "the instance with all below");
}

#[tokio::test(start_paused = true)]
async fn case_51_a_hundred_thousand_files_are_built_once_and_found_without_a_scan() {
    let fake = Fake::small();
    fake.state().files = (0..100_000).map(|n| file(&format!("f{n:06}"))).collect();
    let tree = tree(&fake);
    let shard = tree.resolve("/atlas/c0/latest/rs0").await.unwrap().ino;
    let first = tree.children(shard).await.unwrap();
    assert_eq!(first.len(), 100_000);
    assert!(Arc::ptr_eq(&first, &tree.children(shard).await.unwrap()));
    for n in (0..100_000).step_by(97) {
        let found = tree.lookup(shard, &format!("f{n:06}")).await.unwrap();
        assert_eq!(found.ino, first[n].ino);
    }
}
