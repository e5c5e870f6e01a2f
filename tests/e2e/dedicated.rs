//! MongoDB Atlas beyond the shared tier, on a real mount: Flex, dedicated, sharded and deleted
//! clusters, the jobs that are made for them, and what Atlas refuses.

use std::fs::{self, File};

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use jiff::{SignedDuration, Timestamp};
use mongo_backupfs::sim::atlas::{Cluster, Project, Snapshot, Status, Tier};
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder};

use crate::world::{PROVIDER, World, attribute, eventually, sh, sha256_of, wait};

const SET: &str = "rs0";
const SHARDED: &str = "many";
const FLEX: &str = "flex";
/// Longer than any test: such a job is not ready.
const NEVER: SignedDuration = SignedDuration::from_hours(1);

fn newest() -> Timestamp {
    "2026-11-21T04:00:00Z".parse().unwrap()
}

/// A project with one cluster of each kind; not mounted.
fn world() -> World {
    let daily = |name: &str, tier| {
        Cluster::new(name, tier).daily(2, newest(), |day| Content::noise(day, 700_000 + day))
    };
    let parts = (0..3).map(|part| Content::noise(70 + part, 900_000 + part));
    let running = Snapshot::at(newest() + SignedDuration::from_hours(1)).status(Status::Running);
    let project = Project::new("Shop")
        .cluster(daily(SET, Tier::M10).snapshot(running))
        .cluster(
            Cluster::new(SHARDED, Tier::M10)
                .sharded(2)
                .version("8.0.4")
                .snapshot(Snapshot::at(newest()).on_demand().contents(parts)),
        )
        .cluster(daily(FLEX, Tier::Flex))
        .cluster(daily("gone", Tier::M10).deleted())
        .cluster(Cluster::new("free", Tier::M0));
    World::new(SimBuilder::new().project(project))
}

/// The directory of a cluster's newest backup.
fn latest(world: &World, cluster: &str) -> PathBuf {
    let cluster = world.mountpoint.join(PROVIDER).join(cluster);
    cluster.join("latest").canonicalize().unwrap()
}

/// The file of one replica set of it.
fn archive(world: &World, cluster: &str, replica_set: &str) -> PathBuf {
    latest(world, cluster).join(format!("{replica_set}/{replica_set}.tar.gz"))
}

/// What that file must read as.
fn content(world: &World, cluster: &str, replica_set: &str) -> Content {
    let backup = latest(world, cluster);
    let (_, id) = backup
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split_once('-')
        .unwrap();
    world.sim.part(cluster, id, replica_set).unwrap()
}

/// The file of the Flex cluster's newest backup.
fn flex(world: &World) -> PathBuf {
    latest(world, FLEX).join("flex/flex.tgz")
}

/// What the error of an open of `file` is, and its reason.
fn refusal(file: &Path) -> (Option<i32>, String) {
    let error = File::open(file).unwrap_err();
    (error.raw_os_error(), attribute(file, "error"))
}

/// Has the job of `file` made without waiting for it.
fn begin(file: &Path) {
    let nonblocking = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file);
    if let Err(error) = nonblocking {
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    }
}

#[test]
fn every_kind_of_cluster_is_shown_and_looking_is_free() {
    let mut world = world();
    world.mount();
    let place = world.mountpoint.join(PROVIDER);
    let place = place.display();
    let tree = sh(&format!(
        "cd '{place}' && ls -lR > /dev/null && du -a . > /dev/null && find . -type f -o -type l -o -empty | sort"
    ));
    let ids = |cluster: &str| world.sim.snapshot_ids(cluster);
    let mut expected = vec!["./free".to_owned()];
    for (cluster, extension) in [(FLEX, "tgz"), ("gone", "tar.gz"), (SET, "tar.gz")] {
        expected.push(format!("./{cluster}/latest"));
        for (day, id) in ["20261120", "20261121"].iter().zip(ids(cluster)) {
            expected.push(format!(
                "./{cluster}/{day}T040000Z-{id}/{cluster}/{cluster}.{extension}"
            ));
        }
    }
    let backup = format!("20261121T040000Z-{}", ids(SHARDED)[0]);
    expected.push(format!("./{SHARDED}/latest"));
    for set in ["config", "many-shard-0", "many-shard-1"] {
        expected.push(format!("./{SHARDED}/{backup}/{set}/{set}.tar.gz"));
    }
    expected.sort();
    assert_eq!(tree.lines().collect::<Vec<_>>(), expected);
    let facts = ["status", "method", "version", "type"];
    let of = |cluster: &str| facts.map(|name| attribute(&latest(&world, cluster), name));
    assert_eq!(of(SHARDED), ["completed", "snapshot", "8.0.4", "onDemand"]);
    assert_eq!(of(SET), ["completed", "snapshot", "7.0.14", "scheduled"]);
    assert_eq!(attribute(&archive(&world, SET, SET), "size"), "unknown");
    assert_eq!(attribute(&archive(&world, SET, SET), "state"), "none");
    let bill = world.sim.bill();
    assert_eq!((bill.tasks_created, bill.data_requests()), (0, 0));
}

#[test]
fn a_flex_snapshot_is_awaited_and_copied_whole_by_either_kind_of_key() {
    for service_account in [false, true] {
        let mut world = world();
        world
            .sim
            .adjust(|knobs| knobs.task_time = SignedDuration::from_millis(300));
        if service_account {
            world.account = Some(format!(
                "[[provider]]\nname = \"{PROVIDER}\"\nkind = \"atlas\"\nendpoint = \"{}\"\n\
                 project_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\n\
                 allow_http = true\npoll_interval = \"50ms\"\n",
                world.sim.base_url(),
                world.sim.project_id(),
                world.sim.client_id(),
                world.sim.client_secret(),
            ));
        }
        world.mount();
        let ids = world.sim.snapshot_ids(FLEX);
        let expected = world.sim.artifact_sha256(FLEX, &ids[1]).unwrap();
        assert_eq!(sha256_of(&flex(&world)), expected);
        assert_eq!(fs::metadata(flex(&world)).unwrap().len(), 700_001);
        assert_eq!(attribute(&flex(&world), "size"), "exact");
        assert_eq!(world.sim.bill().tasks_created, 1);
    }
}

#[test]
fn a_refusal_is_eacces_names_its_cure_and_is_not_repeated() {
    for (status, code, cure) in [
        (403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", "API access list"),
        (403, "ORG_REQUIRES_ACCESS_LIST", "API access list"),
        (
            403,
            "ATLAS_NETWORK_PERMISSIONS_SIZE_EXCEEDED",
            "shorten the project's IP access list",
        ),
        (401, "USER_UNAUTHORIZED", "Project Backup Export Operator"),
    ] {
        let mut world = world();
        world.mount();
        for (path, file) in [
            ("restoreJobs", archive(&world, SET, SET)),
            ("restoreJobs", archive(&world, SHARDED, "config")),
            ("download", flex(&world)),
        ] {
            let fault = Fault::ApiError {
                status,
                code: code.to_owned(),
            };
            let rule = Rule::new(fault).on(Side::Api).method("POST").path(path);
            world.sim.faults().add(rule);
            world.sim.reset_bill();
            let (errno, reason) = refusal(&file);
            assert_eq!(errno, Some(libc::EACCES), "{reason}");
            assert!(reason.contains(code) && reason.contains(cure), "{reason}");
            // With the challenge, a request is counted twice.
            let posts = world.sim.bill().api_requests;
            let posts = posts.iter().filter(|(of, _)| of.starts_with("POST"));
            assert!(posts.map(|(_, count)| count).sum::<u64>() <= 2, "{code}");
            world.sim.faults().clear();
        }
        assert_eq!(world.sim.bill().tasks_created, 0);
    }
}

#[test]
fn a_key_that_may_not_look_is_eacces_with_the_cure() {
    let mut world = world();
    let fault = Fault::ApiError {
        status: 403,
        code: "IP_ADDRESS_NOT_ON_ACCESS_LIST".to_owned(),
    };
    world.sim.faults().add(Rule::new(fault).on(Side::Api));
    world.mount();
    let error = fs::read_dir(world.mountpoint.join(PROVIDER)).unwrap_err();
    let errno = error.raw_os_error();
    assert!(
        [Some(libc::EACCES), Some(libc::EIO)].contains(&errno),
        "{error}"
    );
    let events = fs::read_to_string(world.mountpoint.join(".backupfs/status.json")).unwrap();
    assert!(events.contains("API access list"), "{events}");
    world.sim.faults().clear();
    eventually("the listing is served", || {
        fs::read_dir(world.mountpoint.join(PROVIDER)).is_ok()
    });
}

#[test]
fn what_atlas_will_not_download_is_eopnotsupp() {
    let encrypted = Snapshot::at(newest()).encrypted();
    let cluster = Cluster::new(SET, Tier::M10).snapshot(encrypted);
    let mut world = World::new(SimBuilder::new().project(Project::new("Shop").cluster(cluster)));
    world.mount();
    let (errno, reason) = refusal(&archive(&world, SET, SET));
    assert_eq!(errno, Some(libc::EOPNOTSUPP), "{reason}");
    assert!(
        reason.contains("CANNOT_DOWNLOAD_SNAPSHOT_WITH_ENCRYPTION"),
        "{reason}"
    );
    assert_eq!(world.sim.bill().tasks_created, 0);
}

#[test]
fn case_06_a_job_that_fails_is_eio_and_says_so() {
    let failing = Snapshot::at(newest()).download_fails();
    let cluster = Cluster::new(SET, Tier::M10).snapshot(failing);
    let mut world = World::new(SimBuilder::new().project(Project::new("Shop").cluster(cluster)));
    world.mount();
    let (errno, reason) = refusal(&archive(&world, SET, SET));
    assert_eq!(errno, Some(libc::EIO), "{reason}");
    assert!(reason.contains("failed"), "{reason}");
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn a_job_that_somebody_cancels_ends_the_wait_and_is_not_repeated() {
    let mut world = world();
    world.sim.adjust(|knobs| knobs.task_time = NEVER);
    world.mount();
    let file = archive(&world, SET, SET);
    let mut reader = std::process::Command::new("cat")
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let place = file.display();
    let job = || {
        sh(&format!(
            "getfattr --only-values -n user.backupfs.task '{place}' 2>/dev/null || true"
        ))
    };
    eventually("the job is known", || !job().is_empty());
    let job = job();
    sh(&format!(
        "curl --silent --show-error --fail --digest --user '{}:{}' --request DELETE \
         --header 'Accept: application/vnd.atlas.2023-01-01+json' \
         '{}/api/atlas/v2/groups/{}/clusters/{SET}/backup/restoreJobs/{job}'",
        world.sim.public_key(),
        world.sim.private_key(),
        world.sim.base_url(),
        world.sim.project_id(),
    ));
    assert!(!wait(&mut reader).expect("it ends").success());
    let (errno, reason) = refusal(&file);
    assert_eq!(errno, Some(libc::EIO), "{reason}");
    assert!(reason.contains("cancelled"), "{reason}");
    assert_eq!(attribute(&file, "state"), "failed");
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn case_10_more_jobs_than_a_project_may_have_are_ebusy_not_lost() {
    let cluster = Cluster::new(SET, Tier::M10).daily(21, newest(), |day| Content::noise(day, 100));
    let builder = SimBuilder::new().project(Project::new("Shop").cluster(cluster));
    let mut world = World::new(builder).key("task_wait = \"500ms\"");
    world.sim.adjust(|knobs| knobs.task_time = NEVER);
    world.mount();
    let mut backups: Vec<PathBuf> = fs::read_dir(world.mountpoint.join(PROVIDER).join(SET))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap() != "latest")
        .collect();
    backups.sort();
    let files: Vec<PathBuf> = backups
        .iter()
        .map(|backup| backup.join("rs0/rs0.tar.gz"))
        .collect();
    files[..20].iter().for_each(|file| begin(file));
    eventually("twenty jobs are at work", || {
        world.sim.bill().tasks_created == 20
    });
    // Whoever opens it before its turn was refused is told to come again.
    eventually("it is not its turn", || {
        refusal(&files[20]).0 == Some(libc::EBUSY)
    });
    let (_, reason) = refusal(&files[20]);
    assert!(reason.contains("TOO_MANY_SNAPSHOT_DOWNLOADS"), "{reason}");
    assert_eq!(world.sim.bill().tasks_created, 20);
}

#[test]
fn every_archive_of_a_dedicated_cluster_is_copied_whole_by_one_request() {
    for tells_length in [false, true] {
        let mut world = world();
        world.sim.adjust(|knobs| {
            knobs.task_time = SignedDuration::from_millis(200);
            knobs.restore_host.tells_length = tells_length;
        });
        world.mount();
        for (cluster, set) in [(SET, SET), ("gone", "gone"), (SHARDED, "config")] {
            let expected = content(&world, cluster, set);
            let file = archive(&world, cluster, set);
            assert_eq!(sha256_of(&file), expected.sha256().unwrap());
            assert_eq!(fs::metadata(&file).unwrap().len(), expected.size());
        }
        let bill = world.sim.bill();
        assert_eq!(bill.tasks_created, 3);
        assert_eq!(bill.deliveries.values().copied().max(), Some(1));
    }
}

#[test]
fn racing_members_of_a_sharded_cluster_share_one_job() {
    // The second member's job is the first one's: it counts for nothing.
    let mut world = world().key("max_tasks_per_day = 1");
    world
        .sim
        .adjust(|knobs| knobs.task_time = SignedDuration::from_millis(500));
    world.mount();
    let sets = ["config", "many-shard-0", "many-shard-1"];
    let readers: Vec<_> = sets
        .iter()
        .map(|set| {
            let file = archive(&world, SHARDED, set);
            thread::spawn(move || sha256_of(&file))
        })
        .collect();
    for (set, reader) in sets.iter().zip(readers) {
        let expected = content(&world, SHARDED, set);
        assert_eq!(reader.join().unwrap(), expected.sha256().unwrap(), "{set}");
    }
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 1);
    assert_eq!(bill.deliveries.len(), 3);
    assert!(bill.deliveries.values().all(|&requests| requests == 1));
}

#[test]
fn members_have_jobs_of_their_own_where_the_whole_is_refused() {
    let mut world = world();
    world.sim.adjust(|knobs| knobs.component_jobs = false);
    world.mount();
    for set in ["config", "many-shard-0", "many-shard-1"] {
        let expected = content(&world, SHARDED, set);
        let file = archive(&world, SHARDED, set);
        assert_eq!(sha256_of(&file), expected.sha256().unwrap(), "{set}");
    }
    assert_eq!(world.sim.bill().tasks_created, 3);
}

#[test]
fn a_job_that_expired_unread_is_replaced_by_policy_only() {
    let mut world = world().key("recreate_expired = false");
    world.mount();
    let file = archive(&world, SET, SET);
    begin(&file);
    eventually("the job is ready", || attribute(&file, "state") == "ready");
    world.sim.advance(SignedDuration::from_hours(2));
    let (errno, reason) = refusal(&file);
    assert_eq!(errno, Some(libc::EACCES), "{reason}");
    assert!(reason.contains("recreate_expired"), "{reason}");
    assert_eq!(world.sim.bill().tasks_created, 1);
    world.unmount();

    world.mount_keys.clear();
    world.mount();
    let expected = content(&world, SET, SET);
    assert_eq!(sha256_of(&file), expected.sha256().unwrap());
    let bill = world.sim.bill();
    assert_eq!(bill.tasks_created, 2);
    assert_eq!(bill.deliveries.values().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_member_that_was_lost_needs_another_job_and_the_others_do_not() {
    let mut world = world().key("recreate_expired = false");
    world.mount();
    let first = archive(&world, SHARDED, "many-shard-0");
    let digest = sha256_of(&first);
    world.unmount();
    fs::remove_dir_all(world.dir.path().join("cache")).unwrap();
    world.mount();
    let (errno, reason) = refusal(&first);
    assert_eq!(errno, Some(libc::EACCES), "{reason}");
    // The links of the others are as good as new.
    let second = archive(&world, SHARDED, "many-shard-1");
    let expected = content(&world, SHARDED, "many-shard-1");
    assert_eq!(sha256_of(&second), expected.sha256().unwrap());
    assert_eq!(world.sim.bill().tasks_created, 1);
    world.unmount();

    world.mount_keys.clear();
    world.mount();
    assert_eq!(sha256_of(&first), digest);
    assert_eq!(world.sim.bill().tasks_created, 2);
}
