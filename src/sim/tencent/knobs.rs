//! How the simulated Tencent Cloud behaves where the documents are silent or contradict each other,
//! or where accounts differ; the defaults are what is documented or was seen.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::super::durations::{millis, optional_millis};

/// The settings. As JSON, durations are whole milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// From the request of a download to its link.
    #[serde(with = "millis")]
    pub task_time: SignedDuration,
    /// So many tasks to come end in status 3.
    pub failing_tasks: u32,
    /// Whether tasks wait for a retry (status 4) on their way.
    pub tasks_wait_for_retry: bool,
    /// Whether requesting a download that failed packs it again; otherwise the failed one is
    /// answered.
    pub create_restarts_failed: bool,
    /// How long a link lives.
    #[serde(with = "millis")]
    pub link_life: SignedDuration,
    /// Whether asking about a finished download signs its link anew; otherwise the first stays.
    pub resign: bool,
    /// How long a packed backup lies in its bucket; by default for ever.
    #[serde(with = "optional_millis")]
    pub packed_life: Option<SignedDuration>,
    /// Whether listing backups without a method lists those of all methods, or logical ones only.
    pub lists_all_methods: bool,
    /// Whether a list of instances brings those of every region, whichever was asked for.
    pub lists_all_regions: bool,
    /// Whether the offset of a list of downloads counts pages instead of records.
    pub offset_counts_pages: bool,
    /// The most that one page of a list holds, whatever was asked for.
    pub most_per_page: usize,
    /// Whether asking about the downloads of a backup that has none says that its file is not
    /// found; otherwise the list is empty.
    pub no_downloads_is_not_found: bool,
    /// Whether unfinished downloads have an empty link instead of none.
    pub empty_links: bool,
    /// The error code for a shard that a backup does not hold.
    pub lacking_shard_code: String,
    /// Whether the keys may request downloads, or only look.
    pub may_download: bool,
    /// Calls of one action per second.
    pub calls_per_second: usize,
    /// Whether the store tells the CRC-64 of its objects rightly.
    pub right_digests: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            task_time: SignedDuration::ZERO,
            failing_tasks: 0,
            tasks_wait_for_retry: false,
            create_restarts_failed: true,
            link_life: SignedDuration::from_hours(24),
            resign: true,
            packed_life: None,
            lists_all_methods: true,
            lists_all_regions: false,
            offset_counts_pages: false,
            most_per_page: 100,
            no_downloads_is_not_found: false,
            empty_links: true,
            lacking_shard_code: "InvalidParameterValue.ReplicaNotFound".to_owned(),
            may_download: true,
            calls_per_second: 20,
            right_digests: true,
        }
    }
}
