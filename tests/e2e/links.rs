//! Links may expire and artifacts may change at any moment: the bytes stay right, or an error.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use jiff::SignedDuration;
use mongo_backupfs::fetch::FetchOptions;
use mongo_backupfs::sim::{Content, Fault, Rule, Side};

use crate::world::{CLUSTER, World, sh, sha256_of};

#[test]
fn case_35_two_second_links_under_a_slow_copy_are_renewed_once_per_expiry() {
    const SIZE: u64 = 64 << 20;
    let mut world = World::with_content([Content::noise(11, SIZE)]);
    world
        .sim
        .adjust(|knobs| knobs.link_life = Some(SignedDuration::from_secs(2)));
    world.mount();
    let file = world.latest_file();
    let digest = sh(&format!(
        "python3 -c 'import sys, time
f = open(sys.argv[1], \"rb\", buffering=0)
start = time.monotonic()
read = 0
while piece := f.read(1 << 20):
    sys.stdout.buffer.write(piece)
    read += len(piece)
    time.sleep(max(0, start + read / (8 << 20) - time.monotonic()))
' '{}' | sha256sum | cut -d\" \" -f1",
        file.display()
    ));
    assert_eq!(digest.trim(), world.latest_sha256());
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 1);
    // A refresh per link that ended while it was needed: no more than lifetimes went by.
    assert!(bill.link_refreshes >= 1, "{bill:?}");
    assert!(bill.link_refreshes <= 10, "{bill:?}");
    // Parts that are under way together may all meet the same expiry; none asks twice for it.
    let parts = FetchOptions::default().in_flight as u64;
    assert!(
        bill.expired_link_uses <= bill.link_refreshes * parts,
        "{bill:?}"
    );
}

#[test]
fn an_artifact_replaced_during_a_copy_is_estale_never_mixed() {
    const SIZE: u64 = 64 << 20;
    let mut world = World::with_content([Content::noise(1, SIZE)]);
    world.mount();
    let path = world.latest_file();
    let old = Content::noise(1, SIZE);
    let new = Content::noise(2, SIZE);
    let file = File::open(&path).unwrap();
    let mut piece = vec![0; 1 << 20];
    file.read_exact_at(&mut piece, 0).unwrap();
    assert_eq!(piece, old.read(0..1 << 20).unwrap());

    let id = world.sim.snapshot_ids(CLUSTER).pop().unwrap();
    assert!(world.sim.replace_artifact(CLUSTER, &id, new.clone()));
    let mut offset = 1 << 20;
    let error = loop {
        match file.read_at(&mut piece, offset) {
            Ok(0) => panic!("the copy of a replaced artifact ended as if it were whole"),
            Ok(n) => {
                let expected = old.read(offset..offset + n as u64).unwrap();
                assert_eq!(&piece[..n], &expected[..], "mixed at {offset}");
                offset += n as u64;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    drop(file);

    // A new open pins the new version, and nothing of the old one is in it.
    assert_eq!(sha256_of(&path), new.sha256().unwrap());
    world.unmount();
    world.mount();
    assert_eq!(sha256_of(&world.latest_file()), new.sha256().unwrap());
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_hostile_data_host_never_shortens_or_alters_a_copy() {
    const SIZE: u64 = 5 << 20;
    let faults = [
        Fault::Cut { after: 300_000 },
        Fault::Status {
            code: 503,
            retry_after: Some("0".into()),
        },
        Fault::Status {
            code: 500,
            retry_after: None,
        },
        Fault::Sever,
        Fault::ShiftRange { by: 1 },
        Fault::IgnoreRange,
        Fault::Header {
            name: "content-encoding".into(),
            value: "gzip".into(),
        },
        Fault::ShortBody { by: 1 },
        Fault::LongBody { by: 3 },
        Fault::Latency { ms: 30 },
    ];
    for (seed, fault) in faults.into_iter().enumerate() {
        let mut world = World::with_content([Content::noise(seed as u64, SIZE)]);
        world.provider_keys.push("retry_budget = \"5s\"".into());
        world.mount();
        let path = world.latest_file();
        let mut file = File::open(&path).unwrap();
        world
            .sim
            .faults()
            .add(Rule::new(fault.clone()).on(Side::Data).skip(1).times(2));
        let mut bytes = Vec::new();
        let outcome = file.read_to_end(&mut bytes);
        let expected = Content::noise(seed as u64, SIZE)
            .read(0..bytes.len() as u64)
            .unwrap();
        assert!(bytes == expected, "{fault:?}: altered");
        match outcome {
            Ok(_) => assert_eq!(bytes.len() as u64, SIZE, "{fault:?}: short"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO), "{fault:?}"),
        }
        // Nothing unproven was kept: without faults the copy is whole.
        world.sim.faults().clear();
        assert_eq!(sha256_of(&path), world.latest_sha256(), "{fault:?}");
        world.unmount();
    }
}
