//! `config check|example|path|reference`: what would be read, and whether it is right.

use std::io::Write as _;
use std::path::Path;

use super::{Context, Exit, print};
use crate::config::{
    self, AtlasAuth, Config, EXAMPLE, MountArgs, MountConfig, OnOpen, ProviderConfig, ProviderKind,
    units,
};
use crate::error::Result;
use crate::names;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read the configuration and all its secrets, and say what was understood
    Check,
    /// Print a complete commented configuration file
    Example,
    /// Print which file would be read, and to stderr where it was looked for
    Path,
    /// Print every key with its default, flag and environment variable, as Markdown
    Reference,
}

pub(super) fn run(context: &Context, args: Args) -> Result<Exit> {
    match args.action {
        Action::Check => {
            let path = context.config_path()?;
            let config = context.config(&MountArgs::default())?;
            print(&summary(&path, &config))?;
        }
        Action::Example => print(EXAMPLE)?,
        Action::Reference => print(&config::reference())?,
        Action::Path => {
            let path = context.config_path();
            explain(context);
            print(&format!("{}\n", path?.display()))?;
        }
    }
    Ok(Exit::Done)
}

/// The places where a configuration is looked for, first to last.
fn explain(context: &Context) {
    let state = |path: &Path| {
        let shown = names::display(&path.to_string_lossy());
        let there = if config::is_there(path) {
            ""
        } else {
            " (no such file)"
        };
        format!("{shown}{there}")
    };
    let given = |path: Option<&Path>| path.map_or("not given".to_owned(), state);
    let variable = context.environment.get(config::VARIABLE).map(Path::new);
    let mut lines = vec![
        format!("--config: {}", given(context.global.config.as_deref())),
        format!("{}: {}", config::VARIABLE, given(variable)),
    ];
    let usual = config::places(&context.environment);
    lines.extend(usual.iter().map(|path| format!("default: {}", state(path))));
    // Only an explanation: that nobody reads it is no failure.
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

/// What was understood, without anything secret: one line for the mount, one for each account.
fn summary(path: &Path, config: &Config) -> String {
    let count = config.providers.len();
    let plural = if count == 1 { "" } else { "s" };
    let path = names::display(&path.to_string_lossy());
    let mut text = format!("{path}: valid, {count} provider{plural}\n");
    text.push_str(&mount_line(&config.mount));
    for provider in &config.providers {
        text.push_str(&provider_line(provider));
    }
    text
}

fn mount_line(mount: &MountConfig) -> String {
    let opening = match mount.on_open {
        OnOpen::Create => "adopts or creates its task",
        OnOpen::Adopt => "adopts its task, creates none",
        OnOpen::Never => "uses no task",
    };
    format!(
        "mount: cache of {} in {}, ledger in {}, opening a file {opening}\n",
        units::show_size(mount.cache_size),
        names::display(&mount.cache_dir.to_string_lossy()),
        names::display(&mount.state_dir.to_string_lossy()),
    )
}

fn provider_line(provider: &ProviderConfig) -> String {
    let what = match &provider.kind {
        ProviderKind::Atlas(atlas) => {
            let auth = match atlas.auth {
                AtlasAuth::ApiKey { .. } => "API key",
                AtlasAuth::ServiceAccount { .. } => "service account",
            };
            format!("project {} at {}, {auth}", atlas.project_id, atlas.endpoint)
        }
        ProviderKind::Tencent(tencent) => {
            let bucket = tencent.cos.as_ref().map(|cos| ("COS", cos.bucket.as_str()));
            regional(&tencent.regions, &tencent.endpoint, bucket)
        }
        ProviderKind::Aliyun(aliyun) => {
            let bucket = aliyun.oss.as_ref().map(|oss| ("OSS", oss.bucket.as_str()));
            regional(&aliyun.regions, &aliyun.endpoint, bucket)
        }
        ProviderKind::Ucloud(ucloud) => regional(&ucloud.regions, &ucloud.endpoint, None),
        ProviderKind::Bucket(bucket) => {
            format!(
                "service {}, layout {}",
                bucket.service.word(),
                bucket.layout
            )
        }
    };
    let word = provider.kind.word();
    names::display(&format!("{}: {word}, {what}", provider.name)) + "\n"
}

fn regional(regions: &[String], endpoint: &url::Url, bucket: Option<(&str, &str)>) -> String {
    let bucket = match bucket {
        Some((store, name)) => format!(", {store} bucket {name}"),
        None => String::new(),
    };
    format!("{} at {endpoint}{bucket}", regions.join(", "))
}
