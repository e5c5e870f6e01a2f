//! Looking is free: no tool that only looks creates a task or asks for data.

use mongo_backupfs::sim::Content;

use crate::world::{World, mode, sh};

#[test]
fn listing_tools_create_no_task_and_ask_no_data() {
    let mut world = World::with_content((0..5).map(|day| Content::noise(day, 1 << 20)));
    world.mount();
    let mnt = world.mountpoint.display();
    sh(&format!(
        "ls -lR {mnt} >/dev/null; find {mnt} -type f | grep -c . >/dev/null"
    ));
    sh(&format!(
        "du -s {mnt} >/dev/null; find {mnt} -print0 | xargs -0 stat >/dev/null; stat -f {mnt} >/dev/null"
    ));
    sh(&format!(
        "getfattr -R -d -m - {mnt} >/dev/null; rsync -an {mnt}/ /nonexistent-destination/ >/dev/null"
    ));
    sh(&format!(
        "df {mnt} >/dev/null; ls -l {mnt}/.backupfs >/dev/null; cat {mnt}/.backupfs/status.json >/dev/null"
    ));
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 0);
    assert_eq!(bill.data_requests(), 0);
    world.unmount();
}

#[test]
fn the_tree_shows_what_the_contract_says() {
    let mut world = World::with_content((0..3).map(|day| Content::noise(day, 1 << 20)));
    world.mount();
    let ids = world.sim.snapshot_ids(crate::world::CLUSTER);
    let latest = std::fs::read_link(world.cluster().join("latest")).unwrap();
    assert!(latest.is_relative());
    let name = latest.to_str().unwrap();
    assert!(
        name.starts_with("20260107T") && name.ends_with(&format!("Z-{}", ids[2])),
        "{name}"
    );
    let file = world.latest_file();
    assert_eq!(mode(&file), 0o400);
    assert_eq!(mode(file.parent().unwrap()), 0o500);
    let hidden = sh(&format!("ls -a {}", world.mountpoint.display()));
    assert!(!hidden.contains(".backupfs"), "{hidden}");
}
