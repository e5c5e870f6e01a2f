//! `prepare`: tasks ahead of any open, once, and only what was named.

use std::path::Path;

use jiff::SignedDuration;
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use crate::paid::clouds::Cloud;
use crate::world::{World, attribute, eventually, sha256_of, wait};

fn contents(count: u64) -> Vec<Content> {
    (0..count).map(|n| Content::noise(n, 100_000 + n)).collect()
}

/// What `prepare ARGS` printed on stdout and stderr, and its exit code.
fn prepare(world: &World, args: &[&str]) -> (String, String, i32) {
    world.told("prepare", args)
}

/// The path of a file's shard as commands want it.
fn shard_of(world: &World, file: &Path) -> String {
    world.path_of(file.parent().unwrap())
}

#[test]
fn what_is_named_is_created_once_and_found_by_the_mount_beside_it() {
    for cloud in Cloud::ALL {
        let contents = contents(3);
        let mut world = cloud.world(&contents);
        let hour = SignedDuration::from_hours(1);
        cloud.task_time(&world, hour);
        world.mount();
        let file = cloud.files(&world).pop().unwrap();
        let shard = shard_of(&world, &file);
        let account = shard.split('/').next().unwrap();
        let latest = format!("{account}/*/latest");

        let (said, _, code) = prepare(&world, &["--dry-run", &latest]);
        assert_eq!(code, 0, "{cloud:?}: {said}");
        assert!(
            said.starts_with(&format!("{shard}: would be created, ")),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(
            said.contains("USD per GB"),
            cloud == Cloud::Aliyun,
            "{said}"
        );
        assert_eq!(world.sim.bill().tasks_created, 0, "{cloud:?}");

        for how in ["created", "found"] {
            let (said, told, code) = prepare(&world, &[&latest, &shard]);
            assert_eq!(code, 0, "{cloud:?}: {said}{told}");
            let line = format!("{shard}: {how}, ");
            assert!(
                said.starts_with(&line) && said.lines().count() == 1,
                "{said}"
            );
            assert!(
                said.contains("queued") || said.contains("running"),
                "{said}"
            );
            assert_eq!(world.sim.bill().tasks_created, 1, "{cloud:?}");
        }
        let (said, _, _) = prepare(&world, &["--dry-run", &latest]);
        assert!(said.contains("would be used"), "{said}");

        let mut waiting = world
            .command(&["prepare", "--wait", &latest])
            .spawn()
            .unwrap();
        world.sim.advance(hour);
        assert!(wait(&mut waiting).expect("it ends").success(), "{cloud:?}");
        assert_eq!(sha256_of(&file), contents[2].sha256().unwrap(), "{cloud:?}");
        assert_eq!(world.sim.bill().tasks_created, 1, "{cloud:?}");
        world.unmount();
    }
}

#[test]
fn only_backups_can_be_named_and_what_fails_is_told_apart() {
    let cloud = Cloud::Atlas;
    let mut world = cloud.world(&contents(2));
    world.mount();
    let shard = shard_of(&world, &cloud.files(&world)[0]);
    let instance = shard.rsplitn(3, '/').last().unwrap().to_owned();
    world.unmount();

    for (path, words, expected) in [
        (
            instance.as_str(),
            "is not a backup: name one, or `…/latest`",
            2,
        ),
        ("*", "is not a backup", 2),
        ("nowhere/*", "there is no nowhere", 1),
        (&format!("{instance}/nothing*"), "nothing matches", 1),
        (&format!("{instance}/[x"), "[x", 2),
    ] {
        let (said, told, code) = prepare(&world, &[path]);
        assert_eq!((said.as_str(), code), ("", expected), "{path}: {told}");
        assert!(
            told.contains(words) && told.lines().count() == 1,
            "{path}: {told}"
        );
    }
    assert_eq!(world.sim.bill().tasks_created, 0);

    let (said, told, code) = prepare(&world, &["nowhere/else", &shard]);
    assert_eq!(code, 3, "{told}");
    assert!(
        said.contains("created") && told.contains("nowhere"),
        "{said}{told}"
    );
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn the_limit_holds_and_on_open_is_about_opens() {
    let mut world = Cloud::Atlas
        .world(&contents(3))
        .key("max_tasks_per_day = 1")
        .key("on_open = \"never\"");
    world.mount();
    let files = Cloud::Atlas.files(&world);
    let shards: Vec<String> = files.iter().map(|file| shard_of(&world, file)).collect();
    assert_eq!(prepare(&world, &[&shards[0]]).2, 0);
    let (_, told, code) = prepare(&world, &[&shards[1]]);
    assert_eq!(code, 1);
    assert!(told.contains("max_tasks_per_day = 1"), "{told}");
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn case_02_what_nobody_can_tell_is_paid_again_only_by_force() {
    let cloud = Cloud::Atlas;
    let mut world = cloud.world(&contents(1));
    // Such an endpoint takes requests for downloads, but does not list them.
    let unlisted = Rule::new(Fault::Status {
        code: 404,
        retry_after: None,
    });
    let unlisted = unlisted.on(Side::Api).method("GET");
    world
        .sim
        .faults()
        .add(unlisted.path("backup/tenant/restores"));
    world
        .sim
        .faults()
        .add(cloud.on_create(Fault::HoldAnswer).times(1));
    world.mount();
    let file = cloud.files(&world).remove(0);
    let shard = shard_of(&world, &file);
    let mut opener = std::process::Command::new("cat")
        .arg(&file)
        .spawn()
        .unwrap();
    eventually("the request has had its effect", || {
        world.sim.bill().tasks_created == 1
    });
    world.kill9();
    wait(&mut opener);

    world.mount();
    let error = std::fs::read(&file).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    let why = attribute(&file, "error");
    assert!(why.contains("prepare --force"), "{why}");
    let (said, _, _) = prepare(&world, &["--dry-run", &shard]);
    assert!(said.contains("--force would create another"), "{said}");
    let (_, told, code) = prepare(&world, &[&shard]);
    assert!(code == 1 && told.contains("prepare --force"), "{told}");
    assert_eq!(world.sim.bill().tasks_created, 1);
    let (said, told, code) = prepare(&world, &["--force", &shard]);
    assert_eq!(code, 0, "{told}");
    assert!(said.contains("created"), "{said}");
    assert_eq!(world.sim.bill().tasks_created, 2, "as was wanted");
}
