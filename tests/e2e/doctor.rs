//! `doctor`: a sound installation has nothing to complain of, each planted fault is found with its
//! cure, and nothing that is asked costs anything.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use jiff::SignedDuration;
use mongo_backupfs::sim::ucloud;
use mongo_backupfs::sim::{Content, Fault, Rule, Side, SimBuilder};
use serde_json::Value;

use crate::paid::clouds::Cloud;
use crate::world::{World, eventually, is_mounted, kill, sha256_of, wait};

fn contents() -> [Content; 1] {
    [Content::noise(1, 100_000)]
}

/// What `doctor` found: severity, subject, words and cure.
struct Found {
    findings: Vec<(String, String, String)>,
    code: i32,
}

fn doctor(world: &World) -> Found {
    let (text, _, code) = world.told("doctor", &["--json"]);
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(told["healthy"], code == 0, "{text}");
    let word = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let all = told["findings"].as_array().unwrap().iter();
    let findings = all.map(|of| {
        let words = format!("{}; {}", word(of, "what"), word(of, "cure"));
        (word(of, "severity"), word(of, "subject"), words)
    });
    let bill = world.sim.bill();
    assert_eq!(
        (bill.tasks_created, bill.data_requests()),
        (0, 0),
        "it is free"
    );
    Found {
        findings: findings.collect(),
        code,
    }
}

impl Found {
    /// Some finding of this severity and subject has these words.
    #[track_caller]
    fn names(&self, severity: &str, subject: &str, words: &[&str]) {
        let found = self.findings.iter().any(|(how, what, text)| {
            (how.as_str(), what.as_str()) == (severity, subject)
                && words.iter().all(|word| text.contains(word))
        });
        assert!(
            found,
            "no {severity} {subject} {words:?} in {:#?}",
            self.findings
        );
        assert_eq!(
            self.code,
            i32::from(self.findings.iter().any(|found| found.0 == "failure"))
        );
    }
}

fn account(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Atlas => crate::world::PROVIDER,
        Cloud::Tencent => "tencent",
        Cloud::Aliyun => crate::aliyun::ACCOUNT,
    }
}

/// The world's account with `from` replaced by `to`.
fn changed(world: &mut World, from: &str, to: &str) {
    let text = fs::read_to_string(world.write_config()).unwrap();
    let at = text.find("[[provider]]").unwrap();
    assert!(text[at..].contains(from), "no {from} in {}", &text[at..]);
    world.account = Some(text[at..].replacen(from, to, 1));
}

#[test]
fn a_sound_installation_is_healthy_at_every_cloud() {
    for cloud in Cloud::ALL {
        let world = cloud.world(&contents());
        let found = doctor(&world);
        assert_eq!(found.code, 0, "{cloud:?}: {:#?}", found.findings);
        found.names("ok", account(cloud), &["1 instance;", "is allowed"]);
        found.names("ok", account(cloud), &["making a download task takes"]);
        for subject in [
            "configuration",
            "/dev/fuse",
            "fusermount3",
            "cache",
            "ledger",
            "mounts",
        ] {
            let is_sound =
                |(how, what, _): &(String, String, String)| what == subject && how != "failure";
            assert!(
                found.findings.iter().any(is_sound),
                "{cloud:?}: no {subject}"
            );
        }
        let (text, _, _) = world.told("doctor", &[]);
        // And the sum of them.
        let lines = text.lines().filter(|line| line.contains(": "));
        assert_eq!(lines.count(), found.findings.len(), "{text}");
        assert!(!world.dir.path().join("cache").exists(), "nothing is made");
        assert!(!world.dir.path().join("state").exists(), "nothing is made");
    }
}

#[test]
fn what_a_cloud_refuses_is_found_with_its_cure() {
    type Plant = fn(&mut World);
    fn refuse(world: &World, status: u16, code: &str, path: &str) {
        let code = code.to_owned();
        let rule = Rule::new(Fault::ApiError { status, code }).on(Side::Api);
        world.sim.faults().add(rule.path(path));
    }
    let plants: [(&str, Cloud, Plant, &[&str]); 11] = [
        (
            "wrong key",
            Cloud::Atlas,
            |world| {
                let key = format!("\"{}\"", world.sim.private_key());
                changed(world, &key, "\"wrong\"");
            },
            &["check `public_key` and `private_key`"],
        ),
        (
            "wrong secret",
            Cloud::Tencent,
            |world| {
                let key = format!("\"{}\"", world.sim.tencent().secret_key());
                changed(world, &key, "\"wrong\"");
            },
            &["check `secret_key`"],
        ),
        (
            "wrong id",
            Cloud::Aliyun,
            |world| {
                let id = world.sim.aliyun().unwrap().access_key_id().to_owned();
                changed(world, &format!("\"{id}\""), "\"LTAIwrong\"");
            },
            &["access_key_id"],
        ),
        (
            "no permission to list backups",
            Cloud::Tencent,
            |world| {
                refuse(
                    world,
                    200,
                    "AuthFailure.UnauthorizedOperation",
                    "DescribeDBBackups",
                )
            },
            &["allow this key `mongodb:DescribeDBBackups`"],
        ),
        (
            "no permission to see tasks",
            Cloud::Aliyun,
            |world| {
                let cloud = world.sim.aliyun().unwrap();
                cloud.adjust(|knobs| {
                    knobs.policy = vec!["dds:Describe*".into(), "dbs:CreateDownload".into()];
                });
            },
            &["dbs:DescribeDownloadTask"],
        ),
        (
            "no role",
            Cloud::Atlas,
            |world| refuse(world, 403, "USER_UNAUTHORIZED", "backup/"),
            &["Project Backup Export Operator"],
        ),
        (
            "not on the access list",
            Cloud::Atlas,
            |world| refuse(world, 403, "IP_ADDRESS_NOT_ON_ACCESS_LIST", "clusters"),
            &["API access list"],
        ),
        (
            "wrong project",
            Cloud::Atlas,
            |world| {
                let id = world.sim.project_id().to_owned();
                changed(world, &id, "ffffffffffffffffffffffff");
            },
            &["project_id"],
        ),
        (
            "blocked network",
            Cloud::Atlas,
            |world| {
                let endpoint = world.sim.base_url().to_owned();
                changed(world, &endpoint, "http://127.0.0.1:1");
                world.provider_keys.push("retry_budget = \"0s\"".to_owned());
            },
            &[
                "cannot reach",
                "check `endpoint`, the network, and the proxy settings",
            ],
        ),
        (
            "plain http",
            Cloud::Atlas,
            |world| changed(world, "allow_http = true", "allow_http = false"),
            &["allow_http"],
        ),
        (
            "skewed clock",
            Cloud::Atlas,
            |world| world.sim.advance(SignedDuration::from_mins(10)),
            &["clock is", "behind", "timedatectl set-ntp true"],
        ),
    ];
    for (name, cloud, plant, words) in plants {
        let mut world = cloud.world(&contents());
        plant(&mut world);
        let found = doctor(&world);
        assert_eq!(found.code, 1, "{name}: {:#?}", found.findings);
        // What the configuration forbids is found before any account is asked.
        let subject = match name {
            "plain http" if found.findings[0].0 == "failure" => "configuration",
            _ => account(cloud),
        };
        found.names("failure", subject, words);
    }
}

#[test]
fn ucloud_and_what_lies_around_the_accounts() {
    let instance = ucloud::Instance::replica_set("umongodb-set");
    let backup = ucloud::Backup::at("2026-11-05T17:02:03Z".parse().unwrap(), contents());
    let builder =
        SimBuilder::new().ucloud(ucloud::Account::new().instance(instance.backup(backup)));
    // Nobody listens where links lead.
    let mut world = World::new(builder.links_to("http://127.0.0.1:1"));
    let cloud = world.sim.ucloud().unwrap();
    world.account = Some(format!(
        "[[provider]]\nname = \"ucloud\"\nkind = \"ucloud\"\nregions = [\"cn-bj2\"]\n\
         endpoint = \"{}\"\npublic_key = \"{}\"\nprivate_key = \"{}\"\nallow_http = true\n\
         network = \"intranet\"\n",
        cloud.endpoint(),
        cloud.public_key(),
        cloud.private_key(),
    ));
    let found = doctor(&world);
    let words = [
        "127.0.0.1:1 cannot be reached",
        "set `network = \"internet\"`",
    ];
    found.names("failure", "ucloud", &words);

    let proxy = (
        "HTTPS_PROXY".to_owned(),
        "http://u:secret-word@127.0.0.1:1".to_owned(),
    );
    world.environment.push(proxy);
    let found = doctor(&world);
    found.names(
        "failure",
        "proxy",
        &["127.0.0.1:1 (HTTPS_PROXY)", "NO_PROXY"],
    );
    assert!(
        found
            .findings
            .iter()
            .all(|(_, _, words)| !words.contains("secret-word"))
    );
    world.environment.clear();

    let cloud = world.sim.ucloud().unwrap();
    cloud.adjust(|knobs| knobs.denied = vec!["ListUMongoDBBackup".to_owned()]);
    doctor(&world).names("failure", "ucloud", &["ListUMongoDBBackup", "IAM"]);
    changed(&mut world, "cn-bj2", "hk");
    doctor(&world).names("warning", "ucloud", &["lists no instance", "regions"]);
}

#[test]
fn what_is_wrong_with_the_machine_is_found_with_its_cure() {
    let mut world = Cloud::Atlas.world(&contents());
    let place = |name: &str| world.dir.path().join(name);
    let (cache, state): (PathBuf, PathBuf) = (place("cache"), place("state"));
    let open = |path: &PathBuf, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };

    fs::create_dir(&cache).unwrap();
    open(&cache, 0o777);
    doctor(&world).names("failure", "cache", &["run chmod go-w"]);
    fs::remove_dir(&cache).unwrap();
    symlink(world.dir.path(), &cache).unwrap();
    doctor(&world).names(
        "failure",
        "cache",
        &["symbolic link", "set cache_dir to the directory"],
    );
    fs::remove_file(&cache).unwrap();

    fs::create_dir(&state).unwrap();
    fs::write(state.join("notes"), "").unwrap();
    open(&state, 0o777);
    doctor(&world).names("failure", "ledger", &["chmod 700"]);
    fs::remove_dir_all(&state).unwrap();

    if rustix::process::geteuid().is_root() {
        fs::create_dir(&cache).unwrap();
        chown(&cache, Some(12345), None).unwrap();
        doctor(&world).names(
            "failure",
            "cache",
            &["belongs to user 12345", "directory of your own"],
        );
        chown(&cache, Some(0), None).unwrap();
        let tmpfs = |options: &str| {
            let mut mount = Command::new("mount");
            mount
                .args(["-t", "tmpfs", "-o", options, "none"])
                .arg(&cache);
            assert!(mount.status().unwrap().success());
        };
        let end = || {
            assert!(
                Command::new("umount")
                    .arg(&cache)
                    .status()
                    .unwrap()
                    .success()
            )
        };
        tmpfs("size=2m,mode=0700");
        doctor(&world).names("failure", "cache", &["iB free: ", "free some space"]);
        end();
        tmpfs("ro,mode=0700");
        doctor(&world).names("failure", "cache", &["Read-only", "set another cache_dir"]);
        end();
        // Without /dev/fuse, as in a container.
        let config = world.write_config();
        let script = format!(
            "mount -t tmpfs none /dev && '{}' --config '{}' doctor",
            crate::world::binary(),
            config.display()
        );
        let bare = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output()
            .unwrap();
        let text = String::from_utf8(bare.stdout).unwrap();
        let line = text
            .lines()
            .find(|line| line.contains("/dev/fuse"))
            .unwrap();
        assert!(
            line.starts_with("failure") && line.contains("modprobe fuse"),
            "{line}"
        );
    }

    world.mount();
    kill(world.pid(), libc::SIGKILL);
    let mountpoint = fs::canonicalize(world.mountpoint.parent().unwrap())
        .unwrap()
        .join("mnt");
    let cure = format!("mongo-backupfs unmount {}", mountpoint.display());
    eventually("it is dead", || {
        let found = doctor(&world);
        let dead = found
            .findings
            .iter()
            .find(|(_, subject, _)| subject == "mounts");
        dead.is_some_and(|(how, _, words)| how == "failure" && words.contains(&cure))
    });
    world.kill9();
    assert!(!is_mounted(&world.mountpoint));
}

#[test]
fn a_configuration_that_cannot_be_used_is_found_with_its_cure() {
    let mut world = Cloud::Atlas.world(&contents());
    world.mount_keys = vec!["from_the_future = true".to_owned()];
    let found = doctor(&world);
    found.names(
        "failure",
        "configuration",
        &["from_the_future", "upgrade mongo-backupfs"],
    );
    world.mount_keys.clear();
    let config = world.write_config();
    // Written anew it would be private again.
    let first_line = || {
        let run = Command::new(crate::world::binary())
            .arg("--config")
            .arg(&config)
            .args(["doctor"])
            .output()
            .unwrap();
        let text = String::from_utf8(run.stdout).unwrap();
        text.lines().next().unwrap().to_owned()
    };
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let line = first_line();
    assert!(
        line.starts_with("failure configuration") && line.contains("chmod 600"),
        "{line}"
    );
    fs::remove_file(&config).unwrap();
    let line = first_line();
    assert!(
        line.starts_with("failure configuration") && line.contains("config example"),
        "{line}"
    );
}

#[test]
fn case_11_a_damaged_ledger_is_repaired_and_nothing_is_paid_twice() {
    let cloud = Cloud::Atlas;
    let contents = contents();
    let mut world = cloud.world(&contents);
    world.mount();
    let file = cloud.files(&world).remove(0);
    assert_eq!(sha256_of(&file), contents[0].sha256().unwrap());
    let (_, told, code) = world.told("doctor", &["--repair-ledger"]);
    assert_eq!(code, 0, "nothing to repair: {told}");
    world.unmount();

    let ledger = world.dir.path().join("state/ledger.sqlite3");
    let mut bytes = fs::read(&ledger).unwrap();
    // Its last page is cut short: every row is there, and it is not believed.
    bytes.truncate(bytes.len() - 100);
    fs::write(&ledger, &bytes).unwrap();
    let found = |world: &World| {
        let (text, _, code) = world.told("doctor", &[]);
        (text, code)
    };
    let (text, code) = found(&world);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("doctor --repair-ledger"), "{text}");

    let (said, told, code) = world.told("doctor", &["--repair-ledger"]);
    assert_eq!(code, 0, "{told}");
    assert!(said.contains("ledger.sqlite3.damaged-1"), "{said}");
    assert_eq!(
        fs::read(ledger.with_extension("sqlite3.damaged-1")).unwrap(),
        bytes
    );
    let (text, code) = found(&world);
    assert_eq!(code, 0, "{text}");

    world.mount();
    let file = cloud.files(&world).remove(0);
    let mut reader = Command::new("md5sum").arg(&file).spawn().unwrap();
    assert!(wait(&mut reader).expect("it ends").success());
    assert_eq!(sha256_of(&file), contents[0].sha256().unwrap());
    assert_eq!(world.sim.bill().tasks_created, 1);
    world.unmount();
}
