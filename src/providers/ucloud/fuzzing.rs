//! What UCloud, or whoever stands in its place, may send.

use super::client::Action;
use super::refusal::Refusal;
use super::{convert, oplogs, wire};
use crate::providers::fuzzing::{
    assert_file, assert_hidden, assert_shown, assert_told, instance, read,
};
use crate::providers::http::Answer;

/// Each input is read as every kind of answer; a second list, of packages, stands in the same one.
pub fn ucloud(data: &[u8]) {
    if let Some(list) = read::<wire::DataSet<wire::Instance>>(data) {
        for listed in list.items {
            let id = listed.cluster_id.clone();
            assert_eq!(convert::instance(listed, "cn-zj").map(|found| found.id), id);
        }
    }
    let rows = read::<wire::DataSet<wire::Backup>>(data);
    let packages = read::<wire::DataSet<wire::Package>>(data);
    let (rows, packages) = (rows.map(|list| list.items), packages.map(|list| list.items));
    let backups = convert::backups(
        rows.unwrap_or_default(),
        packages.unwrap_or_default(),
        &instance(),
    );
    for backup in &backups {
        assert_shown(backup);
        assert!(!backup.shards.is_empty(), "{backup:?}");
        for shard in &backup.shards {
            let files = oplogs::files(shard).expect("what was written can be read");
            files.iter().for_each(assert_file);
        }
    }
    if let Some(addresses) = read::<wire::Addresses>(data) {
        let shown = format!("{addresses:?}");
        assert_hidden(addresses.internet_address.as_ref(), &shown, data);
        assert_hidden(addresses.intranet_address.as_ref(), &shown, data);
    }
}

/// A refusal as an error, if it is one.
pub(in crate::providers) fn refusal(answer: &Answer) {
    if let Some(refusal) = Refusal::of(answer) {
        assert_ne!(refusal.code, 0);
        let _ = (refusal.verdict(), refusal.is_undocumented());
        assert_told(&refusal.into_error(Action::Link));
    }
}
