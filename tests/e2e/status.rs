//! `status`: what a mount says of itself, to people and to programs.

use jiff::SignedDuration;
use mongo_backupfs::sim::Content;
use serde_json::Value;

use crate::documents::assert_status;
use crate::paid::clouds::Cloud;
use crate::world::{World, eventually, wait};

fn status(world: &World, args: &[&str]) -> (String, String, i32) {
    world.told("status", args)
}

#[test]
fn people_and_programs_are_told_the_same() {
    let cloud = Cloud::Tencent;
    let mut world = cloud.world(&[Content::noise(1, 1 << 20), Content::noise(2, 1 << 20)]);
    let hour = SignedDuration::from_hours(1);
    cloud.task_time(&world, hour);
    world.mount();
    let place = world.mountpoint.to_str().unwrap().to_owned();
    let file = cloud.files(&world).remove(0);
    let mut reader = std::process::Command::new("md5sum")
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let created = "download tasks: 1 created so far; opens that wait: 1";
    eventually("the task is known", || {
        status(&world, &[&place]).0.contains(created)
    });

    let (text, _, code) = status(&world, &[&place]);
    assert_eq!(code, 0);
    let shard = world.path_of(file.parent().unwrap());
    for part in [&place, created, "PROVIDER", "tencent", &shard] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let (json, _, code) = status(&world, &["--json", &place]);
    assert_eq!(code, 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_status(&json);
    let mount = &json["mounts"][0];
    assert_eq!(mount["mountpoint"], place);
    assert_eq!(mount["status"]["tasks"]["waiting"], 1);
    let task = &mount["tasks"][0];
    assert!(["queued", "running"].contains(&task["state"].as_str().unwrap()));

    world.sim.advance(hour);
    assert!(wait(&mut reader).expect("it ends").success());
    let (text, _, _) = status(&world, &[&place]);
    assert!(text.contains("read 1.0MiB; fetched 1.0MiB"), "{text}");
    let (all, _, code) = status(&world, &[]);
    assert_eq!(code, 0, "other mounts may be there too: {all}");
    assert!(all.contains(&place), "{all}");

    let mut watching = world.command(&["status", "--watch", &place]);
    let log = world.dir.path().join("watched");
    let mut watching = watching
        .stdout(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let looks = || {
        std::fs::read_to_string(&log)
            .unwrap()
            .matches("/s now")
            .count()
    };
    eventually("rates are told from the second look on", || looks() >= 2);
    watching.kill().unwrap();
    wait(&mut watching);
    world.unmount();
}

#[test]
fn what_cannot_be_asked_says_why() {
    let mut world = Cloud::Atlas.world(&[Content::noise(1, 1000)]);
    let place = world.mountpoint.to_str().unwrap().to_owned();
    let (_, told, code) = status(&world, &[&place]);
    assert!(code == 1 && told.contains("is not mounted"), "{told}");
    let (_, told, code) = status(&world, &["/proc"]);
    assert!(code == 1 && told.contains("of type proc"), "{told}");

    world.mount();
    let pid = world.pid();
    crate::world::kill(pid, libc::SIGKILL);
    eventually("it is dead", || {
        status(&world, &[&place])
            .1
            .contains("is gone: `mongo-backupfs unmount")
    });
}
