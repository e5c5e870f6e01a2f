//! The storage of Percona Backup for MongoDB.

use std::fs;
use std::path::Path;

use super::{
    fill, root,
    s3::{BUCKET, S3},
    world,
};
use crate::world::{attribute, digests, sha256};

/// Snapshots with their status, as `pbm` leaves them; one that still runs; a slice of the oplog.
fn storage(bucket: &Path) {
    let snapshot = |name: &str, status: &str, kind: &str| {
        let description = format!(
            r#"{{"type":"{kind}","opid":"6","name":"{name}","replsets":[
                {{"name":"rs0","status":"{status}","start_ts":1,"node":"h:27017","conditions":null}},
                {{"name":"cfg","status":"{status}","iscs":true}}],
               "compression":"s2","store":{{"type":"s3"}},"mongodb_version":"7.0.14-8","fcv":"7.0",
               "start_ts":1767621601,"last_transition_ts":1767622000,
               "first_write_ts":{{"T":1767621600,"I":1}},"last_write_ts":{{"T":1767621990,"I":1}},
               "hb":{{"T":1767621995,"I":1}},"status":"{status}","error":"","pbm_version":"2.12.0"}}"#
        );
        fs::write(bucket.join(format!("{name}.pbm.json")), description).unwrap();
        let files = [
            "metadata.json",
            "shop.orders.s2",
            "local.oplog.rs.bson/1.oplog.s2",
        ];
        for set in ["rs0", "cfg"] {
            fill(&bucket.join(name).join(set), files);
        }
    };
    snapshot("2026-01-05T14:00:00Z", "done", "logical");
    snapshot("2026-01-06T14:00:00Z", "done", "incremental");
    snapshot("2026-01-07T14:00:00Z", "error", "logical");
    snapshot("2026-01-08T14:00:00Z", "canceled", "physical");
    fill(&bucket.join("2026-01-09T14:00:00Z/rs0"), ["shop.orders.s2"]);
    fs::write(bucket.join(".pbm.init"), "2.12.0").unwrap();
    fs::write(bucket.join("2026-01-04T14:00:00Z.pbm.json"), "{\"status\":").unwrap();
    fill(
        &bucket.join("pbmPitr/rs0/20260105"),
        ["20260105140000-1.20260105141000-2.oplog.s2"],
    );
}

#[test]
fn snapshots_are_shown_with_their_status() {
    let s3 = S3::start();
    storage(s3.bucket());
    let mut world = world("s3", "pbm", &s3.options());
    world.mount();
    let instance = root(&world).join(BUCKET);
    let mut names: Vec<String> = fs::read_dir(&instance)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "20260104T140000Z-2026-01-04T14:00:00Z",
            "20260105T000000Z-pbmPitr-20260105",
            "20260105T140000Z-2026-01-05T14:00:00Z",
            "20260106T140000Z-2026-01-06T14:00:00Z",
            "20260107T140000Z-2026-01-07T14:00:00Z",
            "20260108T140000Z-2026-01-08T14:00:00Z",
            "latest",
        ]
    );
    let latest = fs::read_link(instance.join("latest")).unwrap();
    assert_eq!(latest, Path::new("20260106T140000Z-2026-01-06T14:00:00Z"));
    for (name, status, method, kind) in [
        (&names[2], "done", "logical", "logical"),
        (&names[3], "done", "physical", "incremental"),
        (&names[4], "error", "logical", "logical"),
        (&names[5], "canceled", "physical", "physical"),
    ] {
        let backup = instance.join(name);
        assert_eq!(attribute(&backup, "status"), status);
        assert_eq!(attribute(&backup, "method"), method);
        assert_eq!(attribute(&backup, "type"), kind);
        assert_eq!(attribute(&backup, "version"), "7.0.14-8");
    }
    assert_eq!(attribute(&instance.join(&names[0]), "status"), "unreadable");

    let snapshot = instance.join(&names[2]);
    let copied = digests(&snapshot);
    let paths: Vec<&str> = copied.keys().map(String::as_str).collect();
    let of_set = |set: &str| {
        let files = [
            "local.oplog.rs.bson/1.oplog.s2",
            "metadata.json",
            "shop.orders.s2",
        ];
        files.map(|file| format!("{set}/{file}"))
    };
    let description = ["metadata/2026-01-05T14:00:00Z.pbm.json".to_owned()];
    assert_eq!(
        paths,
        [&of_set("cfg")[..], &description, &of_set("rs0")].concat()
    );
    let lying = fs::read(s3.bucket().join("2026-01-05T14:00:00Z.pbm.json")).unwrap();
    assert_eq!(copied[paths[3]], sha256(&lying));
    assert_eq!(copied["rs0/shop.orders.s2"], sha256(b"shop.orders.s2"));
    let slice = instance
        .join(&names[1])
        .join("rs0/20260105140000-1.20260105141000-2.oplog.s2");
    assert!(fs::read(slice).unwrap().ends_with(b".oplog.s2"));

    // Descriptions are read once, not with every listing.
    let before = s3.data_requests().len();
    world.unmount();
    world.mount_keys.push("list_ttl = \"1ms\"".into());
    world.mount();
    for _ in 0..5 {
        assert_eq!(fs::read_dir(&instance).unwrap().count(), names.len());
    }
    assert_eq!(s3.data_requests().len(), before + 5);
    world.unmount();
}
