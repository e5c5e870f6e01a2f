//! `get`: whole files, once paid and once fetched, whatever interrupts it, alone or beside a mount.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use jiff::SignedDuration;
use mongo_backupfs::cache::{BLOCK_SIZE, Cache};
use mongo_backupfs::sim::tencent::Knobs;
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder};
use serde_json::Value;

use crate::paid::clouds::Cloud;
use crate::world::{CLUSTER, PROVIDER, World, digests, eventually, kill, mode, sha256_of, wait};

fn get(world: &World, args: &[&str]) -> (String, String, i32) {
    world.told("get", args)
}

/// A directory for copies, and its path as an argument.
fn destination(world: &World) -> (PathBuf, String) {
    let to = world.dir.path().join("copies");
    let text = to.to_str().unwrap().to_owned();
    (to, text)
}

/// All files below `dir`.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let paths = digests(dir).into_keys();
    paths.map(|path| dir.join(path)).collect()
}

/// The events that `get --json` told.
fn events(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["event"] == name)
        .collect()
}

#[test]
fn what_is_named_is_copied_once_and_then_left_alone() {
    for cloud in Cloud::ALL {
        let contents = [Content::noise(1, 300_000), Content::noise(2, 5 << 20)];
        let mut world = cloud.world(&contents);
        let (to, dest) = destination(&world);
        let account = match cloud {
            Cloud::Atlas => PROVIDER,
            Cloud::Tencent => "tencent",
            Cloud::Aliyun => crate::aliyun::ACCOUNT,
        };
        let latest = format!("{account}/*/latest");
        let (said, told, code) = get(&world, &[&latest, &dest]);
        assert_eq!(code, 0, "{cloud:?}: {told}");
        assert!(
            said.lines().count() == 1 && said.contains("5.0MiB to "),
            "{said}"
        );
        assert_eq!(world.sim.bill().tasks_created, 1, "{cloud:?}");
        let copies = files_below(&to);
        assert_eq!(copies.len(), 1, "{copies:?}");
        assert_eq!(sha256_of(&copies[0]), contents[1].sha256().unwrap());
        assert_eq!(mode(&copies[0]), 0o600);
        assert_eq!(mode(&to), 0o700);

        let before = world.sim.bill();
        let (said, _, code) = get(&world, &[&latest, &dest]);
        assert!(code == 0 && said.contains("already"), "{said}");
        let after = world.sim.bill();
        assert_eq!(before.data_requests, after.data_requests, "{cloud:?}");
        let (_, told, code) = get(&world, &["--force", &latest, &dest]);
        assert_eq!(code, 0, "{told}");
        assert_eq!(
            world.sim.bill().bytes_served,
            after.bytes_served,
            "{cloud:?}"
        );
        assert_eq!(world.sim.bill().tasks_created, 1, "{cloud:?}");

        // The copy mirrors what a mount shows.
        world.mount();
        let shown = cloud.files(&world).pop().unwrap();
        let path = shown.strip_prefix(&world.mountpoint).unwrap();
        assert_eq!(to.join(path), copies[0]);
        for (shown, copy) in shown.ancestors().zip(copies[0].ancestors()).take(3) {
            let (shown, copy) = (fs::metadata(shown).unwrap(), fs::metadata(copy).unwrap());
            assert_eq!(shown.mtime(), copy.mtime(), "{cloud:?}");
        }
        world.unmount();
    }
}

#[test]
fn one_file_is_copied_as_cp_does_it_and_failures_are_partial() {
    let content = Content::noise(3, 200_000);
    let mut world = World::with_content([content.clone()]);
    world.mount();
    let file = world.latest_file();
    let path = world.path_of(&file);
    world.unmount();
    let (to, dest) = destination(&world);
    let (_, told, code) = get(&world, &[&path, &dest]);
    assert_eq!(code, 0, "{told}");
    assert_eq!(sha256_of(&to), content.sha256().unwrap());
    fs::remove_file(&to).unwrap();
    fs::create_dir(&to).unwrap();
    let (_, _, code) = get(&world, &[&path, &dest]);
    assert_eq!(code, 0);
    let name = file.file_name().unwrap();
    assert_eq!(sha256_of(&to.join(name)), content.sha256().unwrap());

    // A file that only looks like the copy is no copy.
    fs::write(to.join(name), "x").unwrap();
    let (_, _, code) = get(&world, &[&path, &dest]);
    assert_eq!(
        (code, sha256_of(&to.join(name))),
        (0, content.sha256().unwrap())
    );
    let copy = fs::File::options().write(true).open(to.join(name)).unwrap();
    copy.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    drop(copy);
    let (said, _, code) = get(&world, &[&path, &dest]);
    assert!(code == 0 && !said.contains("already"), "{said}");

    let (said, told, code) = get(&world, &[&path, "nowhere/else", &dest]);
    assert_eq!(code, 3, "{told}");
    assert!(
        said.contains(&path) && told.contains("nowhere"),
        "{said}{told}"
    );
    for (wrong, words) in [
        ("nowhere", "nowhere"),
        (".backupfs/status.json", "in a mount only"),
    ] {
        let (_, told, code) = get(&world, &[wrong, &dest]);
        assert!(code == 1 && told.contains(words), "{told}");
    }
}

#[test]
fn beside_a_mount_it_shares_its_cache_and_its_task() {
    for cloud in Cloud::ALL {
        let contents = [Content::noise(4, 6 << 20)];
        let mut world = cloud.world(&contents);
        let hour = SignedDuration::from_hours(1);
        cloud.task_time(&world, hour);
        world.mount();
        let file = cloud.files(&world).remove(0);
        let path = world.path_of(&file);
        let (to, dest) = destination(&world);
        let log = world.dir.path().join("events");
        let mut getting = world
            .command(&["get", "--json", &path, &dest])
            .stdout(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let told = || fs::read_to_string(&log).unwrap();
        eventually("it waits for its task", || told().contains("\"waiting\""));
        world.sim.advance(hour);
        assert!(wait(&mut getting).expect("it ends").success(), "{}", told());
        let told = events(&told());
        let mountpoint = fs::canonicalize(&world.mountpoint).unwrap();
        assert_eq!(
            named(&told, "plan")[0]["mount"],
            mountpoint.to_str().unwrap()
        );
        let waiting = named(&told, "waiting")[0];
        assert!(["queued", "running"].contains(&waiting["state"].as_str().unwrap()));
        assert_eq!(named(&told, "done")[0]["size"], 6 << 20);
        assert_eq!(sha256_of(&to), contents[0].sha256().unwrap(), "{cloud:?}");
        let served = world.sim.bill().bytes_served;
        assert_eq!(sha256_of(&file), contents[0].sha256().unwrap(), "{cloud:?}");
        let bill = world.sim.bill();
        assert_eq!(
            (bill.tasks_created, bill.bytes_served),
            (1, served),
            "{cloud:?}"
        );

        let (_, told, code) = world.told("cache", &["purge"]);
        let owner = format!("in use by process {}", world.pid());
        assert!(code == 1 && told.contains(&owner), "{told}");
        world.unmount();
    }
}

/// A `get` under way; its part is at `part`.
struct Getting {
    process: Child,
    part: PathBuf,
}

impl Getting {
    /// Copies the newest backup to one file, telling events to `log`.
    fn start(world: &World, path: &str, to: &Path, log: &Path) -> Self {
        let process = world
            .command(&["get", "--json", path, to.to_str().unwrap()])
            .stdout(fs::File::create(log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let name = format!(
            "{}.mongo-backupfs-part",
            to.file_name().unwrap().to_str().unwrap()
        );
        Getting {
            process,
            part: to.with_file_name(name),
        }
    }

    fn has(&self) -> u64 {
        fs::metadata(&self.part).map_or(0, |found| found.len())
    }
}

/// A world of one file, its path, and its content.
fn world_of(size: u64) -> (World, String, Content) {
    let content = Content::noise(5, size);
    let mut world = World::with_content([content.clone()]);
    world.mount();
    let file = world.latest_file();
    let path = world.path_of(&file);
    world.unmount();
    (world, path, content)
}

/// Bytes of a file in which a run that is watched and ended early has far to go.
const FAR: u64 = 10 << 20;

/// Lets each answer bring its bytes slowly: a run always gets on, and never far before it is seen.
fn slow(world: &World) {
    let bytes_per_second = 512 << 10;
    let slow = Rule::new(Fault::Throttle { bytes_per_second }).on(Side::Data);
    world.sim.faults().add(slow);
}

/// Bytes served, once the host has noticed that nobody reads its last answers any more.
fn settled(world: &World) -> u64 {
    let served = || world.sim.bill().bytes_served;
    let before = Cell::new(None);
    eventually("the host is quiet", || {
        // Slow answers go on by a step every 50 ms.
        thread::sleep(Duration::from_millis(500));
        before.replace(Some(served())) == Some(served())
    });
    served()
}

#[test]
fn killed_ten_times_in_a_row_it_ends_with_the_exact_file_and_fetches_nothing_twice() {
    const KILLS: u64 = 10;
    const SIZE: u64 = KILLS * FAR;
    /// What is appended at a time: checksums may lag by so much.
    const PIECE: u64 = 1 << 20;
    let (world, path, content) = world_of(SIZE);
    let (to, _) = destination(&world);
    let log = world.dir.path().join("events");
    let resumed = || {
        let told = events(&fs::read_to_string(&log).unwrap());
        named(&told, "started")[0]["resumed"].as_u64().unwrap()
    };
    let mut has = 0;
    slow(&world);
    for number in 1..=KILLS {
        let mut getting = Getting::start(&world, &path, &to, &log);
        eventually("more of it is here", || getting.has() >= has + PIECE);
        assert!(
            resumed() + PIECE + BLOCK_SIZE >= has,
            "kill {number}: {has}"
        );
        kill(getting.process.id(), libc::SIGKILL);
        wait(&mut getting.process);
        assert!(!to.exists(), "no part looks whole");
        has = getting.has();
    }
    world.sim.faults().clear();
    // Bytes that are surely here: proven in the part, or in the cache.
    let (text, _, code) = world.told("cache", &["info", "--json"]);
    assert_eq!(code, 0, "{text}");
    let info: Value = serde_json::from_str(&text).unwrap();
    let cached = info["artifacts"][0]["cached"].as_u64().unwrap();
    let served = settled(&world);
    let mut last = Getting::start(&world, &path, &to, &log);
    assert!(wait(&mut last.process).expect("it ends").success());
    assert_eq!(sha256_of(&to), content.sha256().unwrap());
    let kept = resumed().max(cached);
    assert!(kept >= (KILLS - 2) * PIECE, "{kept}");
    let fetched = world.sim.bill().bytes_served - served;
    assert!(
        fetched <= SIZE - kept + BLOCK_SIZE,
        "{fetched} bytes although {kept} of {SIZE} were here"
    );
    assert_eq!(world.sim.bill().tasks_created, 1);
    let left = fs::read_dir(to.parent().unwrap()).unwrap().flatten();
    let left = left.filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.contains("mongo-backupfs-")
    });
    assert_eq!(left.count(), 0, "nothing is left beside it");
}

#[test]
fn signals_leave_a_state_that_is_gone_on_from() {
    let (world, path, content) = world_of(3 * FAR);
    let (to, _) = destination(&world);
    let log = world.dir.path().join("events");
    let mut has = 0;
    slow(&world);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut getting = Getting::start(&world, &path, &to, &log);
        eventually("more of it is here", || getting.has() > has);
        kill(getting.process.id(), signal);
        let status = wait(&mut getting.process).expect("it ends");
        assert_eq!(status.code(), Some(128 + signal));
        assert!(!to.exists());
        has = getting.has();
    }
    // One process at a time has the cache.
    let cache = Cache::open(&world.dir.path().join("cache"), 1 << 30).unwrap();
    let (_, told, code) = get(&world, &[&path, to.to_str().unwrap()]);
    assert!(code == 1 && told.contains("in use by process"), "{told}");
    drop(cache);
    world.sim.faults().clear();
    let mut last = Getting::start(&world, &path, &to, &log);
    assert!(wait(&mut last.process).expect("it ends").success());
    assert_eq!(sha256_of(&to), content.sha256().unwrap());
    assert_eq!(world.sim.bill().tasks_created, 1);
}

#[test]
fn the_cache_is_shown_checked_and_emptied() {
    let contents = [Content::noise(6, 1_000_000), Content::noise(7, 500_000)];
    let world = World::with_content(contents.clone());
    let (_, dest) = destination(&world);
    let cache = |args: &[&str]| world.told("cache", args);
    let (said, _, code) = cache(&["info"]);
    assert!(code == 0 && said.contains("nothing is cached"), "{said}");
    assert_eq!(cache(&["verify"]).2, 0);
    let instance = format!("{PROVIDER}/{CLUSTER}");
    let (_, told, code) = get(&world, &[&instance, &dest]);
    assert_eq!(code, 0, "{told}");

    let (said, _, code) = cache(&["info"]);
    assert!(code == 0 && said.matches(&instance).count() == 2, "{said}");
    let (said, _, code) = cache(&["verify"]);
    assert!(
        code == 0 && said.contains("12 blocks are right, 0 were damaged"),
        "{said}"
    );

    // One bit of one block.
    let place = world.dir.path().join("cache/v1");
    let data = files_below(&place).into_iter().find(|path| {
        let found = fs::metadata(path).unwrap();
        path.extension().is_some_and(|kind| kind == "data") && found.len() == 1_000_000
    });
    let data = data.unwrap();
    let mut bytes = fs::read(&data).unwrap();
    bytes[3 * BLOCK_SIZE as usize + 7] ^= 1;
    fs::write(&data, bytes).unwrap();
    let (said, told, code) = cache(&["verify"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("1 damaged blocks, at [393216]"), "{said}");
    assert!(told.contains("check that disk"), "{told}");
    let (said, _, code) = cache(&["verify", "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &told["right_blocks"]),
        (0, &Value::from(11)),
        "{said}"
    );

    // Only what was dropped is fetched again.
    let served = world.sim.bill().bytes_served;
    let (_, told, code) = get(&world, &["--force", &instance, &dest]);
    assert_eq!(code, 0, "{told}");
    let fetched = world.sim.bill().bytes_served - served;
    assert!(
        (BLOCK_SIZE..BLOCK_SIZE + 100).contains(&fetched),
        "{fetched}"
    );

    let oldest = fs::read_dir(world.dir.path().join("copies").join(&instance)).unwrap();
    let mut backups: Vec<String> = oldest
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    backups.sort();
    let (said, _, code) = cache(&["purge", &format!("{instance}/{}", backups[0])]);
    assert!(code == 0 && said.contains("1 files"), "{said}");
    let (said, _, code) = cache(&["purge", "--yes", "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, told["removed"].as_array().unwrap().len()), (0, 1));
    assert!(
        files_below(&place)
            .iter()
            .all(|path| path.ends_with("CACHEDIR.TAG"))
    );
}

#[test]
fn what_a_store_publishes_a_digest_of_is_compared_with_it() {
    let content = Content::noise(8, 3 << 20);
    let key = format!("{}/dump/orders.bson", crate::tencent::FOLDER);
    let written = "2018-12-11T08:31:00Z".parse().unwrap();
    let builder = SimBuilder::new().object(&key, content.clone(), written);
    let mut world = World::new(builder.tencent_knobs(Knobs {
        right_digests: false,
        ..Knobs::default()
    }));
    world.account = Some(crate::tencent::account(&world.sim));
    let (to, dest) = destination(&world);
    let backup = "tencent/cmgo-pfsumk5l/latest";
    let (said, told, code) = get(&world, &[backup, &dest]);
    assert_eq!(code, 1, "{said}");
    assert!(told.contains("CRC-64"), "{told}");
    assert_eq!(files_below(&to), Vec::<PathBuf>::new(), "not even a part");

    world.sim.adjust_tencent(|knobs| knobs.right_digests = true);
    let (said, told, code) = get(&world, &[backup, &dest]);
    assert_eq!(code, 0, "{told}");
    assert!(said.contains("digest verified"), "{said}");
    let copy = files_below(&to).remove(0);
    assert!(
        copy.ends_with("cmgo-pfsumk5l_0/dump/orders.bson"),
        "{copy:?}"
    );
    assert_eq!(sha256_of(&copy), content.sha256().unwrap());
}
