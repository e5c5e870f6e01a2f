//! The configuration contract: what is accepted, what it means, and what each mistake is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use mongo_backupfs::config::{
    ArchiveFormat, AtlasAuth, BucketService, Config, EXAMPLE, Environment, MountArgs, MountConfig,
    Network, OnOpen, ProviderKind,
};
use mongo_backupfs::error::{Kind, Result};
use proptest::prelude::*;
use tempfile::TempDir;

/// A secret that must never turn up in an error.
const CANARY: &str = "canary-4711";

const VARIABLES: [(&str, &str); 11] = [
    ("HOME", "/home/tester"),
    ("EMPTY", ""),
    ("ATLAS_PUBLIC_KEY", "atlas-public"),
    ("ATLAS_PRIVATE_KEY", "atlas-private"),
    ("TENCENTCLOUD_SECRET_ID", "tencent-id"),
    ("TENCENTCLOUD_SECRET_KEY", "tencent-key"),
    ("ALIBABA_CLOUD_ACCESS_KEY_ID", "aliyun-id"),
    ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "aliyun-secret"),
    ("UCLOUD_PUBLIC_KEY", "ucloud-public"),
    ("UCLOUD_PRIVATE_KEY", "ucloud-private"),
    ("CANARY", CANARY),
];

/// A directory with a configuration file in it.
struct Desk {
    directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        Desk {
            directory: TempDir::new().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("x.toml")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn load(&self, text: impl AsRef<[u8]>, mode: u32) -> Result<Config> {
        self.load_with(text, mode, &[], &[])
    }

    fn load_with(
        &self,
        text: impl AsRef<[u8]>,
        mode: u32,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Config> {
        let path = self.write("x.toml", text, mode);
        let variables = VARIABLES.iter().chain(variables).copied();
        let environment = Environment::new(variables, false);
        Config::load(&path, &parse(flags), &environment)
    }

    /// The complaint about `text`, without the file's path in front.
    fn complaint(&self, text: impl AsRef<[u8]>, mode: u32) -> String {
        self.told(self.load(text, mode))
    }

    fn told(&self, outcome: Result<Config>) -> String {
        let error = outcome.expect_err("the configuration is wrong");
        assert_eq!(error.kind(), Kind::Config);
        assert_eq!(error.kind().exit_code(), 2);
        let told = error.to_string();
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(!told.contains(CANARY), "{told}");
        let path = self.path();
        told.strip_prefix(path.to_str().unwrap())
            .unwrap_or(&told)
            .to_owned()
    }
}

fn parse(flags: &[&str]) -> MountArgs {
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        mount: MountArgs,
    }
    let line = ["mount"].iter().chain(flags);
    Command::try_parse_from(line).unwrap().mount
}

const ATLAS: &str = r#"
[[provider]]
name = "a"
kind = "atlas"
project_id = "p"
public_key = { env = "ATLAS_PUBLIC_KEY" }
private_key = { env = "ATLAS_PRIVATE_KEY" }
"#;

/// [`ATLAS`] with a `[mount]` table before it that holds `line` on line 2.
fn mount(line: &str) -> String {
    format!("[mount]\n{line}\n{ATLAS}")
}

/// [`ATLAS`] with `line` at its end, on line 8.
fn atlas(line: &str) -> String {
    format!("{ATLAS}{line}\n")
}

/// [`ATLAS`] with its private key, on line 7, written as `value`.
fn atlas_key(value: &str) -> String {
    ATLAS.replace(r#"{ env = "ATLAS_PRIVATE_KEY" }"#, value)
}

/// The example with every setting in force.
fn whole_example() -> String {
    let in_force = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(|line| in_force(line) + "\n").collect()
}

#[test]
fn the_example_works_as_it_is_and_as_a_whole() {
    let desk = Desk::new();
    let config = desk.load(EXAMPLE, 0o644).unwrap();
    assert_eq!(config.providers.len(), 1);

    let whole = desk.load(whole_example(), 0o644).unwrap();
    let kinds: Vec<&str> = whole.providers.iter().map(|p| p.kind.word()).collect();
    assert_eq!(kinds, ["atlas", "tencent", "aliyun", "ucloud", "bucket"]);
}

#[test]
fn the_example_shows_the_defaults() {
    let desk = Desk::new();
    let whole = desk.load(whole_example(), 0o600).unwrap();
    let root = Environment::new(VARIABLES, true);
    assert_eq!(whole.mount, MountConfig::defaults(&root));

    let (short, long) = (
        &desk.load(EXAMPLE, 0o600).unwrap().providers[0],
        &whole.providers[0],
    );
    assert_eq!(format!("{short:?}"), format!("{long:?}"));
}

#[test]
fn defaults_of_the_mount() {
    let config = Desk::new().load(ATLAS, 0o644).unwrap();
    let expected = MountConfig {
        cache_dir: "/home/tester/.cache/mongo-backupfs".into(),
        state_dir: "/home/tester/.local/state/mongo-backupfs".into(),
        cache_size: 50 * 1024 * 1024 * 1024,
        memory: 512 * 1024 * 1024,
        list_ttl: Duration::from_secs(60),
        on_open: OnOpen::Create,
        deny_processes: [
            "updatedb",
            "plocate-build",
            "tracker-miner-f",
            "baloo_file",
            "tumblerd",
        ]
        .map(str::to_owned)
        .into(),
        spend_uids: Vec::new(),
        recreate_expired: true,
        max_tasks_per_day: 0,
        task_wait: Duration::from_secs(6 * 60 * 60),
        op_timeout: Duration::from_secs(60),
        allow_other: false,
        file_mode: 0o400,
        dir_mode: 0o500,
        metrics: None,
    };
    assert_eq!(config.mount, expected);

    let root = MountConfig::defaults(&Environment::new(VARIABLES, true));
    assert_eq!(root.cache_dir, Path::new("/var/cache/mongo-backupfs"));
    assert_eq!(root.state_dir, Path::new("/var/lib/mongo-backupfs"));
}

#[test]
fn defaults_of_each_provider() {
    let desk = Desk::new();
    let text = r#"
        [[provider]]
        name = "a"
        kind = "atlas"
        project_id = "p"
        client_id = { env = "ATLAS_PUBLIC_KEY" }
        client_secret = { env = "ATLAS_PRIVATE_KEY" }
        [[provider]]
        name = "t"
        kind = "tencent"
        regions = ["r"]
        secret_id = { env = "TENCENTCLOUD_SECRET_ID" }
        secret_key = { env = "TENCENTCLOUD_SECRET_KEY" }
        token = { env = "NOT_SET" }
        cos = { bucket = "b-1", region = "r" }
        [[provider]]
        name = "l"
        kind = "aliyun"
        regions = ["r"]
        access_key_id = { env = "ALIBABA_CLOUD_ACCESS_KEY_ID" }
        access_key_secret = { env = "ALIBABA_CLOUD_ACCESS_KEY_SECRET" }
        security_token = { env = "EMPTY" }
        network = "private"
        oss = { bucket = "b", region = "r", prefix = "/x" }
        [[provider]]
        name = "u"
        kind = "ucloud"
        regions = ["r"]
        public_key = { env = "UCLOUD_PUBLIC_KEY" }
        private_key = { env = "UCLOUD_PRIVATE_KEY" }
        [[provider]]
        name = "b"
        kind = "bucket"
        service = "fs"
        options = { root = "backups" }
    "#;
    let config = desk.load(text, 0o644).unwrap();
    for provider in &config.providers {
        assert!(!provider.allow_http);
        assert_eq!(provider.ca_file, None);
        assert_eq!(provider.poll_interval, Duration::from_secs(10));
        assert_eq!(provider.retry_budget, Duration::from_secs(120));
    }
    let mut kinds = config.providers.into_iter().map(|provider| provider.kind);

    let Some(ProviderKind::Atlas(atlas)) = kinds.next() else {
        panic!()
    };
    assert_eq!(atlas.endpoint.as_str(), "https://cloud.mongodb.com/");
    let AtlasAuth::ServiceAccount {
        client_id,
        client_secret,
    } = atlas.auth
    else {
        panic!()
    };
    assert_eq!(client_id.expose(), "atlas-public");
    assert_eq!(client_secret.expose(), "atlas-private");

    let Some(ProviderKind::Tencent(tencent)) = kinds.next() else {
        panic!()
    };
    assert_eq!(
        tencent.endpoint.as_str(),
        "https://mongodb.tencentcloudapi.com/"
    );
    assert_eq!(tencent.token, None);
    let cos = tencent.cos.unwrap();
    assert_eq!(cos.endpoint.as_str(), "https://b-1.cos.r.myqcloud.com/");
    assert_eq!(cos.root, "cmongo_backup");

    let Some(ProviderKind::Aliyun(aliyun)) = kinds.next() else {
        panic!()
    };
    assert_eq!(aliyun.endpoint.as_str(), "https://mongodb.aliyuncs.com/");
    assert_eq!(
        aliyun.dbs_endpoint.as_str(),
        "https://dbs-api.cn-hangzhou.aliyuncs.com/"
    );
    assert_eq!(aliyun.security_token, None);
    assert_eq!(aliyun.network, Network::Private);
    assert_eq!(aliyun.link_duration, Duration::from_secs(24 * 60 * 60));
    assert_eq!(aliyun.format, ArchiveFormat::TarGz);
    let oss = aliyun.oss.unwrap();
    assert_eq!(
        oss.endpoint.as_str(),
        "https://b.oss-r-internal.aliyuncs.com/"
    );
    assert_eq!(oss.prefix, "x/");

    let Some(ProviderKind::Ucloud(ucloud)) = kinds.next() else {
        panic!()
    };
    assert_eq!(ucloud.endpoint.as_str(), "https://api.ucloud.cn/");
    assert_eq!((ucloud.zones, ucloud.project_id), (vec![], None));
    assert_eq!(ucloud.network, Network::Public);
    assert_eq!(ucloud.valid_time, Duration::from_secs(4 * 60 * 60));

    let Some(ProviderKind::Bucket(bucket)) = kinds.next() else {
        panic!()
    };
    assert_eq!(bucket.service, BucketService::Fs);
    assert_eq!(bucket.layout.to_string(), "{instance}/{backup}/{shard}/");
    let root = desk.directory.path().join("backups");
    assert_eq!(bucket.option("root"), root.to_str());
}

#[test]
fn mistakes_in_the_mount_table() {
    let desk = Desk::new();
    for (line, told) in [
        (
            "lst_ttl = '1s'",
            "unknown key `lst_ttl`; did you mean `list_ttl`?",
        ),
        ("zzz = 1", "unknown key `zzz`"),
        (
            "list_ttl = 60",
            "key `list_ttl`: expected a string, found an integer",
        ),
        (
            "list_ttl = '60'",
            "key `list_ttl`: expected a duration such as `500ms`, `10s`, `5m`, `2h` or `1d`",
        ),
        (
            "op_timeout = '0s'",
            "key `op_timeout`: must be longer than nothing",
        ),
        (
            "cache_size = '50 bananas'",
            "key `cache_size`: expected a size such as `64MiB`, `50GiB` or `500MB`",
        ),
        ("memory = '1MiB'", "key `memory`: must be at least 16MiB"),
        (
            "cache_dir = 'cache'",
            "key `cache_dir`: expected an absolute path",
        ),
        (
            "state_dir = ''",
            "key `state_dir`: expected an absolute path",
        ),
        (
            "on_open = 'maybe'",
            "key `on_open`: expected one of `create`, `adopt`, `never`",
        ),
        (
            "deny_processes = 'a'",
            "key `deny_processes`: expected a list of strings, found a string",
        ),
        (
            "deny_processes = [1]",
            "key `deny_processes`: expected a list of non-empty strings",
        ),
        (
            "spend_uids = 0",
            "key `spend_uids`: expected a list of user ids, found an integer",
        ),
        (
            "spend_uids = ['root']",
            "key `spend_uids`: expected a list of user ids, such as [0, 1000]",
        ),
        (
            "spend_uids = [-1]",
            "key `spend_uids`: expected user ids, such as `0,1000`",
        ),
        (
            "allow_other = 'yes'",
            "key `allow_other`: expected true or false, found a string",
        ),
        (
            "max_tasks_per_day = -1",
            "key `max_tasks_per_day`: expected a number from 0 to 4294967295",
        ),
        (
            "max_tasks_per_day = 1.5",
            "key `max_tasks_per_day`: expected an integer, found a number",
        ),
        (
            "file_mode = 400",
            "key `file_mode`: expected a string, found an integer",
        ),
        (
            "file_mode = '0999'",
            "key `file_mode`: expected octal permission bits such as `0400`",
        ),
        (
            "metrics = 'localhost'",
            "key `metrics`: expected an address with a port, such as `127.0.0.1:9187`, or nothing",
        ),
    ] {
        assert_eq!(
            desk.complaint(mount(line), 0o600),
            format!(":2: [mount]: {told}")
        );
    }
}

#[test]
fn mistakes_in_a_provider() {
    let desk = Desk::new();
    for (line, told) in [
        (
            "projct_id = 'p'",
            "unknown key `projct_id`; did you mean `project_id`?",
        ),
        ("regions = ['r']", "unknown key `regions`"),
        (
            "endpoint = 'https://'",
            "key `endpoint`: expected an address such as `https://host[:port]`",
        ),
        (
            "endpoint = 'ftp://h'",
            "key `endpoint`: expected an https address",
        ),
        (
            "endpoint = 'http://h'",
            "key `endpoint`: plain http needs `allow_http = true` for this provider",
        ),
        (
            "endpoint = 'https://u:canary-4711@h'",
            "key `endpoint`: the address must not hold a user name or password",
        ),
        (
            "endpoint = 'https://h/?k=canary-4711'",
            "key `endpoint`: the address must end with its path: no `?` or `#`",
        ),
        (
            "poll_interval = '0ms'",
            "key `poll_interval`: must be at least 1ms",
        ),
        (
            "allow_http = 1",
            "key `allow_http`: expected true or false, found an integer",
        ),
        (
            "client_id = 'canary-4711'",
            "key `client_id`: give either `public_key` and `private_key` or `client_id` and `client_secret`, not both",
        ),
    ] {
        assert_eq!(
            desk.complaint(atlas(line), 0o600),
            format!(":8: provider \"a\": {told}")
        );
    }
}

#[test]
fn what_a_provider_must_have() {
    let desk = Desk::new();
    let without = |key: &str| -> String {
        let kept = ATLAS.lines().filter(|line| !line.starts_with(key));
        kept.map(|line| format!("{line}\n")).collect()
    };
    for (key, told) in [
        ("name", ":2: [[provider]]: key `name` is missing"),
        ("kind", ":2: provider \"a\": key `kind` is missing"),
        (
            "project_id",
            ":2: provider \"a\": key `project_id` is missing",
        ),
        (
            "public_key",
            ":2: provider \"a\": key `public_key` is missing",
        ),
        (
            "private_key",
            ":2: provider \"a\": key `private_key` is missing",
        ),
    ] {
        assert_eq!(desk.complaint(without(key), 0o600), told);
    }
    let typo = ATLAS.replace("project_id", "projct_id");
    let told = ":5: provider \"a\": unknown key `projct_id`; did you mean `project_id`?";
    assert_eq!(
        desk.complaint(typo, 0o600),
        told,
        "the cause, not what it leads to"
    );
    let empty = ATLAS.replace("\"p\"", "\"\"");
    let told = ":5: provider \"a\": key `project_id`: must not be empty";
    assert_eq!(desk.complaint(empty, 0o600), told);
    let kind = ATLAS.replace("atlas\"", "atlsa\"");
    let told = ":4: provider \"a\": key `kind`: expected one of `atlas`, `tencent`, `aliyun`, `ucloud`, `bucket`";
    assert_eq!(desk.complaint(kind, 0o600), told);
}

#[test]
fn provider_names_are_directories_and_unique() {
    let desk = Desk::new();
    for name in ["", " ", ".", ".backupfs", "a/b", "a\\u0000", "50%", "a\\nb"] {
        let told = desk.complaint(ATLAS.replace("\"a\"", &format!("\"{name}\"")), 0o600);
        assert!(told.starts_with(":3: provider "), "{told}");
        assert!(told.contains("key `name`: "), "{told}");
    }
    let told = desk.complaint(format!("{ATLAS}{ATLAS}"), 0o600);
    let expected = ":10: provider \"a\": key `name`: another provider is named `a` already";
    assert_eq!(told, expected);
}

#[test]
fn mistakes_of_the_other_clouds() {
    let desk = Desk::new();
    let whole = whole_example();
    for (right, wrong, told) in [
        (
            "regions = [\"ap-guangzhou\"]",
            "regions = []",
            "provider \"tencent\": key `regions`: name at least one region",
        ),
        (
            "root = \"cmongo_backup\"",
            "rot = \"\"",
            "provider \"tencent\": key `cos`: unknown key `rot`; did you mean `root`?",
        ),
        (
            "bucket = \"my-backups\"",
            "bucket = \"a/b\"",
            "provider \"aliyun\": key `oss`: key `bucket`: expected only letters, digits, `-`, `.` and `_`",
        ),
        (
            "link_duration = \"24h\"",
            "link_duration = \"4m\"",
            "provider \"aliyun\": key `link_duration`: must be from 5m to 1d",
        ),
        (
            "format = \"tar.gz\"",
            "format = \"zip\"",
            "provider \"aliyun\": key `format`: expected one of `tar.gz`, `tar.zst`",
        ),
        (
            "network = \"internet\"",
            "network = \"public\"",
            "provider \"ucloud\": key `network`: expected one of `internet`, `intranet`",
        ),
        (
            "service = \"s3\"",
            "service = \"ftp\"",
            "provider \"pbm\": key `service`: expected one of `s3`, `cos`, `oss`, `gcs`, `azblob`, `fs`",
        ),
        (
            "layout = \"{instance}/{backup}/{shard}/\"",
            "layout = \"{instance}/{shard}/\"",
            "provider \"pbm\": key `layout`: expected `{backup}` once, and `{instance}` and `{shard}` at most once; or `pbm`",
        ),
        (
            "layout = \"{instance}/{backup}/{shard}/\"",
            "layout = \"{instance}/{backup}/{node}/\"",
            "provider \"pbm\": key `layout`: only `{instance}`, `{backup}` and `{shard}` are known",
        ),
        (
            "bucket = \"pbm\"",
            "secret_access_key = { file = \"none\" }",
            "provider \"pbm\": key `options`: key `secret_access_key`:",
        ),
    ] {
        assert_eq!(whole.matches(right).count(), 1, "{right}");
        let line = 1 + whole[..whole.find(right).unwrap()].matches('\n').count();
        let complaint = desk.complaint(whole.replace(right, wrong), 0o600);
        assert!(
            complaint.starts_with(&format!(":{line}: {told}")),
            "{complaint}"
        );
    }
}

#[test]
fn mistakes_of_the_file_itself() {
    let desk = Desk::new();
    for (text, told) in [
        ("x = 1", ":1: unknown key `x`"),
        ("[mont]", ":1: unknown key `mont`; did you mean `mount`?"),
        (
            "mount = 1",
            ":1: key `mount`: expected a table, found an integer",
        ),
        (
            "[provider]\nname = 'a'",
            ":1: key `provider`: expected tables [[provider]], found a table",
        ),
        (
            "\n[mount]\nlist_ttl = 60s\n",
            ":3: key `list_ttl`: not valid TOML: ",
        ),
        (
            "[mount]\nlist_ttl = '1s'\nlist_ttl = '1s'\n",
            ":3: key `list_ttl`: not valid TOML: duplicate key",
        ),
        (
            "[[provider]]\nprivate_key = \"canary-4711\n",
            ":2: key `private_key`: not valid TOML: ",
        ),
        ("[mount", ":1: not valid TOML: "),
        (
            "",
            ": no [[provider]] is configured; `mongo-backupfs config example` shows how",
        ),
    ] {
        let complaint = desk.complaint(text, 0o600);
        assert!(complaint.starts_with(told), "{text:?}: {complaint}");
    }
    assert_eq!(desk.complaint(b"\n\n# \xff", 0o600), ":3: not UTF-8 text");

    let environment = Environment::new(VARIABLES, false);
    let flags = MountArgs::default();
    let missing = Config::load(&desk.path().join("none"), &flags, &environment).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("cannot read the configuration "),
        "{missing}"
    );
    assert_eq!(missing.kind(), Kind::Config);
    let directory = Config::load(desk.directory.path(), &flags, &environment).unwrap_err();
    assert!(directory.to_string().contains("irectory"), "{directory}");
}

#[test]
fn secrets_come_from_four_places() {
    let desk = Desk::new();
    desk.write("key", "from-file\n", 0o400);
    let absolute = desk.write("absolute", "from-absolute", 0o600);
    let absolute = format!("{{ file = '{}' }}", absolute.display());
    for (value, mode, secret) in [
        (r#"{ env = "CANARY" }"#, 0o644, CANARY),
        (r#"{ file = "key" }"#, 0o644, "from-file"),
        (&absolute, 0o644, "from-absolute"),
        (
            r#"{ command = "echo from-shell | cat" }"#,
            0o644,
            "from-shell",
        ),
        (r#"{ command = ["printf", "%s\n", "a  b"] }"#, 0o644, "a  b"),
        (r#""plain""#, 0o600, "plain"),
        (r#""plain""#, 0o400, "plain"),
    ] {
        let config = desk.load(atlas_key(value), mode).unwrap();
        let ProviderKind::Atlas(atlas) = &config.providers[0].kind else {
            panic!()
        };
        let AtlasAuth::ApiKey { private_key, .. } = &atlas.auth else {
            panic!()
        };
        assert_eq!(private_key.expose(), secret, "{value}");
        assert!(!format!("{config:?}").contains(secret), "{config:?}");
    }
}

#[test]
fn secrets_that_cannot_be_had() {
    let desk = Desk::new();
    desk.write("open", CANARY, 0o640);
    desk.write("empty", "\n", 0o600);
    desk.write("binary", b"\xff\xfe", 0o600);
    desk.write("lines", format!("{CANARY}\n{CANARY}\n"), 0o600);
    desk.write("large", vec![b'x'; 100_000], 0o600);
    fs::create_dir(desk.directory.path().join("folder")).unwrap();
    let fifo = desk.directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let here = |name: &str| desk.directory.path().join(name).display().to_string();
    for (value, told) in [
        (
            r#"{ env = "NOT_SET" }"#,
            "the environment variable NOT_SET is not set".to_owned(),
        ),
        (
            r#"{ env = "EMPTY" }"#,
            "the environment variable EMPTY is empty".into(),
        ),
        (
            r#"{ file = "none" }"#,
            format!(
                "{} cannot be read: No such file or directory (os error 2)",
                here("none")
            ),
        ),
        (
            r#"{ file = "open" }"#,
            format!(
                "{} can be read by others (mode 0640); run `chmod 600` on it",
                here("open")
            ),
        ),
        (r#"{ file = "empty" }"#, "the secret is empty".into()),
        (
            r#"{ file = "binary" }"#,
            format!("{} is not UTF-8 text", here("binary")),
        ),
        (
            r#"{ file = "lines" }"#,
            "the secret holds a line break or control character".into(),
        ),
        (
            r#"{ file = "large" }"#,
            format!("{} is too large for a secret", here("large")),
        ),
        (
            r#"{ file = "folder" }"#,
            format!("{} is not a regular file", here("folder")),
        ),
        (
            r#"{ file = "fifo" }"#,
            format!("{} is not a regular file", here("fifo")),
        ),
        (
            r#"{ command = "echo canary-4711; echo canary-4711 >&2; exit 3" }"#,
            "the command failed (exit status: 3); run it by hand to see why".into(),
        ),
        (
            r#"{ command = ["/nonexistent/canary-4711"] }"#,
            "the command cannot be started: No such file or directory (os error 2)".into(),
        ),
        (r#"{ command = "true" }"#, "the secret is empty".into()),
        (
            r#"{ command = "yes" }"#,
            "the command gave too much for a secret".into(),
        ),
        (r#"{ command = [] }"#, "the command is empty".into()),
        (r#"{ command = 1 }"#, String::new()),
        (
            "{}",
            "expected exactly one of { env }, { file }, { command }".into(),
        ),
        (
            r#"{ env = "CANARY", file = "key" }"#,
            "expected exactly one of { env }, { file }, { command }".into(),
        ),
        (
            r#"{ flie = "key" }"#,
            "unknown key `flie`; did you mean `file`?".into(),
        ),
        (
            "[]",
            "expected a secret: { env }, { file }, { command } or a string, found a list".into(),
        ),
        (r#""""#, "the secret is empty".into()),
    ] {
        let complaint = desk.complaint(atlas_key(value), 0o600);
        let expected = format!(":7: provider \"a\": key `private_key`: {told}");
        assert!(complaint.starts_with(&expected), "{value}: {complaint}");
    }
}

#[test]
fn a_plain_secret_needs_a_private_file() {
    let desk = Desk::new();
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let told = format!(
            ":7: provider \"a\": key `private_key`: a plain-text secret in a file that others can read (mode {mode:04o}); run `chmod 600` on it, or use {{ env }}, {{ file }} or {{ command }}"
        );
        let text = atlas_key(&format!("'{CANARY}'"));
        assert_eq!(desk.complaint(text, mode), told);
    }
    let option = |key: &str| {
        format!(
            "[[provider]]\nname = 'b'\nkind = 'bucket'\nservice = 's3'\noptions = {{ bucket = 'b', region = 'r', access_key_id = {{ env = 'ATLAS_PUBLIC_KEY' }}, {key} = '{CANARY}' }}"
        )
    };
    let told = desk.complaint(option("root"), 0o644);
    assert!(
        told.ends_with("key `secret_access_key` is missing"),
        "{told}"
    );
    let told = desk.complaint(option("secret_access_key"), 0o644);
    assert!(
        told.contains("key `secret_access_key`: a plain-text secret"),
        "{told}"
    );
    assert!(desk.load(option("secret_access_key"), 0o600).is_ok());
}

#[test]
fn the_options_of_a_bucket_are_known() {
    let desk = Desk::new();
    let bucket = |service: &str, options: &str| {
        format!(
            "[[provider]]\nname = 'b'\nkind = 'bucket'\nservice = '{service}'\noptions = {{ {options} }}"
        )
    };
    for (service, options, told) in [
        (
            "s3",
            "bucket = 'b', regoin = 'r'",
            "unknown key `regoin`; did you mean `region`?",
        ),
        (
            "s3",
            "bucket = 'b', container = 'c'",
            "unknown key `container`",
        ),
        ("s3", "region = 'r'", "key `bucket` is missing"),
        ("s3", "bucket = '', region = 'r'", "key `bucket` is missing"),
        ("s3", "bucket = 'b'", "key `region` is missing"),
        (
            "s3",
            "bucket = 'b', region = 'r', secret_access_key = { env = 'ATLAS_PRIVATE_KEY' }",
            "key `access_key_id` is missing",
        ),
        (
            "s3",
            "bucket = 'b', endpoint = 'http://minio:9000'",
            "key `endpoint`: plain http needs `allow_http = true` for this provider",
        ),
        (
            "s3",
            "bucket = 'b', region = 'r', skip_signature = 'yes'",
            "key `skip_signature`: expected true or false, found a string",
        ),
        ("cos", "bucket = 'b-1'", "key `endpoint` is missing"),
        (
            "cos",
            "bucket = 'b/1', region = 'r'",
            "key `bucket`: expected only letters, digits, `-`, `.` and `_`",
        ),
        ("azblob", "container = 'c'", "key `endpoint` is missing"),
        ("fs", "bucket = 'b'", "unknown key `bucket`"),
        ("fs", "", "key `root` is missing"),
    ] {
        let complaint = desk.complaint(bucket(service, options), 0o644);
        let expected = format!(":5: provider \"b\": key `options`: {told}");
        assert!(complaint.starts_with(&expected), "{options}: {complaint}");
    }
    let none = bucket("s3", "").replace("options = {  }", "");
    let complaint = desk.complaint(none, 0o644);
    assert!(
        complaint.ends_with("key `options` is missing"),
        "{complaint}"
    );

    let options = |service: &str, options: &str| {
        let config = desk.load(bucket(service, options), 0o644).unwrap();
        let ProviderKind::Bucket(bucket) = config.providers.into_iter().next().unwrap().kind else {
            panic!()
        };
        bucket
    };
    let keys = "access_key_id = { env = 'ATLAS_PUBLIC_KEY' }, \
                secret_access_key = { env = 'ATLAS_PRIVATE_KEY' }, session_token = { env = 'NONE' }";
    let s3 = options(
        "s3",
        &format!("bucket = 'b', endpoint = 'https://minio:9000/', {keys}"),
    );
    assert_eq!(
        s3.option("region"),
        Some("us-east-1"),
        "what it is signed for"
    );
    assert_eq!(s3.option("disable_config_load"), Some("true"), "own keys");
    assert_eq!(s3.option("session_token"), None);
    assert_eq!(s3.option("secret_access_key"), Some("atlas-private"));
    for (service, given, endpoint) in [
        ("s3", "bucket = 'b', region = 'r', endpoint = ''", None),
        (
            "cos",
            "bucket = 'b-1', region = 'r'",
            Some("https://cos.r.myqcloud.com"),
        ),
        (
            "oss",
            "bucket = 'b', region = 'r'",
            Some("https://oss-r.aliyuncs.com"),
        ),
        ("gcs", "bucket = 'b'", None),
        (
            "azblob",
            "container = 'c', account_name = 'a'",
            Some("https://a.blob.core.windows.net"),
        ),
    ] {
        assert_eq!(
            options(service, given).option("endpoint"),
            endpoint,
            "{given}"
        );
    }
}

#[test]
fn certificates_are_looked_at() {
    let desk = Desk::new();
    desk.write("no.pem", "nothing", 0o644);
    desk.write("ca.pem", "-----BEGIN CERTIFICATE-----\n", 0o644);
    let config = desk.load(atlas("ca_file = 'ca.pem'"), 0o644).unwrap();
    let expected = desk.directory.path().join("ca.pem");
    assert_eq!(config.providers[0].ca_file, Some(expected));
    let told = desk.complaint(atlas("ca_file = 'no.pem'"), 0o644);
    assert!(told.ends_with("no.pem holds no PEM certificate"), "{told}");
    let told = desk.complaint(atlas("ca_file = 'none.pem'"), 0o644);
    assert!(
        told.contains("none.pem cannot be read: No such file"),
        "{told}"
    );
}

#[test]
fn endpoints_keep_their_path_but_no_slash_at_its_end() {
    let desk = Desk::new();
    for (line, expected) in [
        ("endpoint = 'https://h:8443/'", "https://h:8443/"),
        ("endpoint = 'https://h/gateway//'", "https://h/gateway"),
        ("endpoint = ''", "https://cloud.mongodb.com/"),
        (
            "endpoint = 'http://127.0.0.1:1'\nallow_http = true",
            "http://127.0.0.1:1/",
        ),
    ] {
        let config = desk.load(atlas(line), 0o644).unwrap();
        let ProviderKind::Atlas(atlas) = &config.providers[0].kind else {
            panic!()
        };
        assert_eq!(atlas.endpoint.as_str(), expected);
    }
}

/// For each key of `[mount]`: a value in the file, in the environment and as a flag, and how the
/// three are told apart.
type Seen = fn(&MountConfig) -> String;
const SETTINGS: [(&str, [&str; 3], Seen, [&str; 3]); 16] = [
    (
        "cache_dir",
        ["'/f'", "/e", "/g"],
        |m| m.cache_dir.display().to_string(),
        ["/f", "/e", "/g"],
    ),
    (
        "state_dir",
        ["'/f'", "/e", "/g"],
        |m| m.state_dir.display().to_string(),
        ["/f", "/e", "/g"],
    ),
    (
        "cache_size",
        ["'1GiB'", "2MiB", "3MiB"],
        |m| m.cache_size.to_string(),
        ["1073741824", "2097152", "3145728"],
    ),
    (
        "memory",
        ["'16MiB'", "17MiB", "18MiB"],
        |m| m.memory.to_string(),
        ["16777216", "17825792", "18874368"],
    ),
    (
        "list_ttl",
        ["'1s'", "2m", "3h"],
        |m| m.list_ttl.as_secs().to_string(),
        ["1", "120", "10800"],
    ),
    (
        "on_open",
        ["'create'", "adopt", "never"],
        |m| format!("{:?}", m.on_open),
        ["Create", "Adopt", "Never"],
    ),
    (
        "deny_processes",
        ["['f', 'g']", "a, b,c", ""],
        |m| m.deny_processes.join("+"),
        ["f+g", "a+b+c", ""],
    ),
    (
        "spend_uids",
        ["[0, 1000]", "1, 2", ""],
        |m| format!("{:?}", m.spend_uids),
        ["[0, 1000]", "[1, 2]", "[]"],
    ),
    (
        "recreate_expired",
        ["false", "true", "false"],
        |m| m.recreate_expired.to_string(),
        ["false", "true", "false"],
    ),
    (
        "max_tasks_per_day",
        ["1", "2", "3"],
        |m| m.max_tasks_per_day.to_string(),
        ["1", "2", "3"],
    ),
    (
        "task_wait",
        ["'1s'", "2s", "3s"],
        |m| m.task_wait.as_secs().to_string(),
        ["1", "2", "3"],
    ),
    (
        "op_timeout",
        ["'500ms'", "1s", "2s"],
        |m| m.op_timeout.as_millis().to_string(),
        ["500", "1000", "2000"],
    ),
    (
        "allow_other",
        ["true", "0", "true"],
        |m| m.allow_other.to_string(),
        ["true", "false", "true"],
    ),
    (
        "file_mode",
        ["'0444'", "0440", "0400"],
        |m| format!("{:o}", m.file_mode),
        ["444", "440", "400"],
    ),
    (
        "dir_mode",
        ["'0555'", "0550", "0500"],
        |m| format!("{:o}", m.dir_mode),
        ["555", "550", "500"],
    ),
    (
        "metrics",
        ["'127.0.0.1:1'", "[::1]:2", ""],
        |m| format!("{:?}", m.metrics),
        ["Some(127.0.0.1:1)", "Some([::1]:2)", "None"],
    ),
];

#[test]
fn a_flag_beats_the_environment_beats_the_file() {
    let desk = Desk::new();
    for (key, [file, variable, flag], seen, expected) in SETTINGS {
        let text = mount(&format!("{key} = {file}"));
        let name = format!("MONGO_BACKUPFS_{}", key.to_uppercase());
        let variables = [(name.as_str(), variable)];
        let flag = format!("--{}={flag}", key.replace('_', "-"));
        for (flags, variables, expected) in [
            (&[][..], &[][..], expected[0]),
            (&[], &variables, expected[1]),
            (&[flag.as_str()], &variables, expected[2]),
        ] {
            let config = desk.load_with(&text, 0o600, flags, variables).unwrap();
            assert_eq!(seen(&config.mount), expected, "{key} {flags:?}");
        }
    }
    let bare = desk
        .load_with(ATLAS, 0o600, &["--allow-other"], &[])
        .unwrap();
    assert!(bare.mount.allow_other, "a switch needs no value");
}

#[test]
fn mistakes_outside_the_file_name_their_origin() {
    let desk = Desk::new();
    let told = desk.told(desk.load_with(ATLAS, 0o600, &["--list-ttl", "60"], &[]));
    assert!(
        told.starts_with("--list-ttl: expected a duration"),
        "{told}"
    );
    for (name, value, words) in [
        ("MONGO_BACKUPFS_MEMORY", "1KB", "must be at least 16MiB"),
        ("MONGO_BACKUPFS_CACHE_DIR", "", "expected an absolute path"),
        (
            "MONGO_BACKUPFS_ALLOW_OTHER",
            "maybe",
            "expected `true` or `false`",
        ),
    ] {
        let told = desk.told(desk.load_with(ATLAS, 0o600, &[], &[(name, value)]));
        assert_eq!(told, format!("{name}: {words}"));
    }
    let homeless = Config::load(
        &desk.write("x.toml", mount("cache_dir = '/c'"), 0o600),
        &MountArgs::default(),
        &Environment::new(
            [("ATLAS_PUBLIC_KEY", "a"), ("ATLAS_PRIVATE_KEY", "b")],
            false,
        ),
    );
    let told = desk.told(homeless);
    assert!(
        told.starts_with("[mount]: state_dir has no default"),
        "{told}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Damage of any kind is an error of one line, or harmless.
    #[test]
    fn no_damage_is_more_than_one_line(
        at in any::<prop::sample::Index>(),
        gone in 0usize..20,
        new in "[\\[\\]{}=\"'#\\n\\\\a0é\u{0}\u{1b}]{0,3}",
    ) {
        let mut text = whole_example();
        let start = text.floor_char_boundary(at.index(text.len()));
        let end = text.ceil_char_boundary(start + gone);
        text.replace_range(start..end, &new);
        if let Err(error) = Desk::new().load(&text, 0o600) {
            prop_assert_eq!(error.kind(), Kind::Config);
            let told = error.to_string();
            prop_assert!(!told.chars().any(char::is_control), "{:?}", told);
        }
    }
}

/// The fenced blocks of `language` in a page, wherever they are indented to.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() == opening {
            let block = lines.by_ref().take_while(|line| line.trim_start() != "```");
            found.push(block.map(|line| format!("{line}\n")).collect());
        }
    }
    found
}

/// Every configuration that the documents show is one.
#[test]
fn configurations_in_the_documents_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for directory in ["docs", "docs/clouds"] {
        let entries = fs::read_dir(root.join(directory)).unwrap();
        pages.extend(entries.map(|entry| entry.unwrap().path()));
    }
    pages.retain(|page| page.extension().is_some_and(|kind| kind == "md"));
    let desk = Desk::new();
    let key = desk.write("key", "secret", 0o600);
    let mut kinds = Vec::new();
    for page in pages {
        for block in blocks(&fs::read_to_string(&page).unwrap(), "toml") {
            // Secrets that are on nobody's machine but the reader's.
            let block = block
                .replace("/etc/mongo-backupfs/atlas.key", key.to_str().unwrap())
                .replace("\"pass atlas/client-secret\"", "\"echo secret\"");
            let variables = [
                ("ATLAS_CLIENT_ID", "id"),
                ("TENCENTCLOUD_TOKEN", "token"),
                ("ALIBABA_CLOUD_SECURITY_TOKEN", "token"),
                ("AWS_ACCESS_KEY_ID", "id"),
                ("AWS_SECRET_ACCESS_KEY", "key"),
                ("AWS_SESSION_TOKEN", "token"),
                ("PATH", "/usr/bin:/bin"),
            ];
            let loaded = desk.load_with(&block, 0o600, &[], &variables);
            let config =
                loaded.unwrap_or_else(|error| panic!("{}: {error}\n{block}", page.display()));
            let page = page.file_stem().unwrap().to_str().unwrap().to_owned();
            let names = block
                .lines()
                .filter_map(|line| line.trim().strip_prefix("kind = \""));
            let names = names.map(|rest| rest.split('"').next().unwrap().to_owned());
            kinds.extend(names.map(|kind| (page.clone(), kind)));
            assert!(
                !config.providers.is_empty() || block.contains("[mount]"),
                "{block}"
            );
        }
    }
    for kind in ["atlas", "tencent", "aliyun", "ucloud", "bucket"] {
        for page in ["README", kind] {
            let shown = kinds.contains(&(page.to_owned(), kind.to_owned()));
            assert!(shown, "{page} shows no configuration of kind {kind}");
        }
    }
}
