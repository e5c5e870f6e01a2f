//! What Alibaba Cloud, or whoever stands in its place, may send.

use super::actions::Action;
use super::refusal::{self, Refusal};
use super::tasks::{self, Wanted};
use super::{convert, shards, wire};
use crate::config::{ArchiveFormat, Network};
use crate::model::{Origin, TaskState};
use crate::providers::fuzzing::{
    assert_file, assert_hidden, assert_shown, assert_task, assert_told, read,
};
use crate::providers::http::Answer;

/// Each input is read as every kind of answer.
pub fn aliyun(data: &[u8]) {
    for listed in read::<wire::Instances>(data)
        .and_then(|page| page.instances)
        .iter()
        .flatten()
    {
        if let Some(found) = convert::instance(listed, "cn-hangzhou", convert::REPLICATE) {
            assert!(!convert::region(&found).is_empty());
            let _ = convert::is_sharded(&found);
        }
        let nodes = convert::nodes(listed);
        assert!(nodes.is_sorted_by(|a, b| a < b), "{nodes:?}");
        let obstacles = [
            convert::lasting_obstacle(listed),
            convert::passing_obstacle(listed),
        ];
        obstacles
            .iter()
            .flatten()
            .for_each(|words| crate::fuzzing::assert_one_line(words));
    }
    let backups = read::<wire::Backups>(data).and_then(|page| page.backups);
    pieces(&backups.unwrap_or_default(), data);
    let clusters = read::<wire::ClusterBackups>(data).and_then(|page| page.cluster_backups);
    for listed in clusters.iter().flatten() {
        match convert::cluster_backup(listed, Some("obstacle"), None) {
            Ok(backup) => backup.iter().for_each(shown),
            Err(error) => assert_told(&error),
        }
    }
    let page = read::<wire::Data<wire::Tasks>>(data).and_then(|answer| answer.data);
    converted(&page.and_then(|page| page.content).unwrap_or_default());
    if let Some(task) = read::<wire::Data<wire::DownloadTask>>(data).and_then(|answer| answer.data)
    {
        converted(&[task]);
    }
    if let Some(storage) = read::<wire::Data<wire::Storage>>(data).and_then(|answer| answer.data) {
        match tasks::storage_link(storage, Network::Public, false) {
            Ok(link) => assert!(link.url.is_https()),
            Err(error) => assert_told(&error),
        }
    }
    let _ = read::<wire::Support>(data).map(|answer| answer.supported);
}

fn pieces(listed: &[wire::Backup], data: &[u8]) {
    let mut pieces = Vec::new();
    for (number, backup) in listed.iter().enumerate() {
        assert_hidden(backup.public_url.as_ref(), &format!("{backup:?}"), data);
        let shard = if number % 2 == 0 {
            "shard-0"
        } else {
            "shard-1"
        };
        match convert::piece(backup, shard, None) {
            Ok(piece) => pieces.extend(piece),
            Err(error) => assert_told(&error),
        }
    }
    let count = pieces.len();
    let runs = shards::runs(pieces.clone());
    let spread: usize = runs.iter().map(|(_, pieces)| pieces.len()).sum();
    assert_eq!(spread, count, "every piece is in one run");
    pieces.reverse();
    for (id, pieces) in runs {
        let backup = convert::backup(id, pieces, None).expect("a run has pieces");
        shown(&backup);
    }
}

fn shown(backup: &crate::model::Backup) {
    assert_shown(backup);
    for shard in &backup.shards {
        let file = convert::file(shard, ArchiveFormat::TarGz);
        // A shard without a name is refused by the tree, not here.
        if !shard.id.is_empty() {
            assert_file(&file);
        }
        assert!(
            file.origin == Origin::Task || !file.path.ends_with('/'),
            "{file:?}"
        );
        if let Err(error) = convert::check(shard) {
            assert_told(&error);
        }
    }
}

fn converted(listed: &[wire::DownloadTask]) {
    for task in listed {
        tasks::task(task).iter().for_each(assert_task);
        crate::fuzzing::assert_one_line(&tasks::described(task));
        let wanted = Wanted {
            sets: task.bak_set_id.iter().cloned().collect(),
            folder: None,
        };
        if let Some(adopted) = tasks::adoptable(listed, &wanted) {
            assert_ne!(adopted.state, TaskState::Failed);
        }
    }
    if let Some(at) = tasks::failed(listed) {
        let failed = tasks::task(&listed[at]).expect("it has an id");
        assert_eq!(failed.state, TaskState::Failed);
    }
    let _ = tasks::under_way(listed);
}

/// A refusal as an error, if it is one.
pub(in crate::providers) fn refusal(answer: &Answer) {
    let _ = (
        refusal::is_throttled(answer),
        refusal::is_broken(answer),
        refusal::is_skewed(answer),
    );
    for action in [Action::DescribeBackups, Action::CreateDownload] {
        if let Some(refusal) = Refusal::of(action, answer) {
            let _ = (refusal.is_forbidden(), refusal.may_be_misnamed());
            assert_told(&refusal.error());
        }
    }
}
