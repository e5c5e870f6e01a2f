//! No secret and no signed link is ever written anywhere.

use std::fs;
use std::path::Path;

use jiff::SignedDuration;
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use crate::world::{World, sh, sha256_of};

#[test]
fn case_56_keys_and_links_appear_nowhere() {
    let content = Content::noise(5, 3 << 20);
    let mut builder = crate::world::one_cluster([content]);
    builder = builder.keys("CANARYPUBLIC", "CANARYPRIVATE-1111-2222");
    let mut world = World::new(builder);
    world
        .sim
        .adjust(|knobs| knobs.link_life = Some(SignedDuration::from_secs(1)));
    // Failures print more than successes.
    world.sim.faults().add(
        Rule::new(Fault::Cut { after: 100_000 })
            .on(Side::Data)
            .times(3),
    );
    world
        .sim
        .faults()
        .add(Rule::new(Fault::Sever).on(Side::Data).chance(0.3));
    world.sim.faults().add(
        Rule::new(Fault::Status {
            code: 503,
            retry_after: None,
        })
        .on(Side::Api)
        .chance(0.2),
    );
    world.mount();
    let file = world.latest_file();
    assert_eq!(sha256_of(&file), world.latest_sha256());
    let mut shown = sh(&format!(
        "getfattr -R -d -m - '{}'",
        world.mountpoint.display()
    ));
    for document in ["status.json", "tasks.json", "metrics", "events.log"] {
        let path = world.mountpoint.join(".backupfs").join(document);
        shown += &fs::read_to_string(path).unwrap();
    }
    world
        .sim
        .faults()
        .add(Rule::new(Fault::Unauthorized).on(Side::Api));
    let refused = world.run(&["--log-level", "trace", "ls", "-l"]);
    shown += &String::from_utf8_lossy(&refused.stderr);
    shown += &String::from_utf8_lossy(&refused.stdout);
    world.unmount();

    let log = world.log();
    assert!(
        log.contains("TRACE") || log.contains("DEBUG"),
        "the log is at full detail"
    );
    let canaries = ["CANARYPUBLIC", "CANARYPRIVATE", "signature=", "serial="];
    for canary in canaries {
        assert!(!log.contains(canary), "{canary} in the log");
        assert!(!shown.contains(canary), "{canary} in what is shown");
        for place in ["cache", "state"] {
            assert_absent(&world.dir.path().join(place), canary.as_bytes());
        }
    }
    // What a signed link looks like is the store's business; its query string is never kept.
    for text in [&log, &shown] {
        assert!(
            !text
                .lines()
                .any(|line| line.contains("http://127") && line.contains('?'))
        );
    }
}

/// No file or name below `dir` holds `needle`.
fn assert_absent(dir: &Path, needle: &[u8]) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().as_encoded_bytes();
        assert!(!contains(name, needle), "name {}", path.display());
        if path.symlink_metadata().unwrap().is_dir() {
            assert_absent(&path, needle);
        } else {
            assert!(
                !contains(&fs::read(&path).unwrap(), needle),
                "{}",
                path.display()
            );
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
