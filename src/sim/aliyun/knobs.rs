//! How the simulated Alibaba Cloud behaves where the real one differs between accounts, or where
//! nobody outside knows; the defaults are what is documented.

use jiff::SignedDuration;

/// The settings.
#[derive(Debug, Clone)]
pub struct Knobs {
    /// From the creation of a download task to its end.
    pub task_time: SignedDuration,
    /// So many of the next tasks to end fail.
    pub failures: u32,
    /// How long what a task made is kept without a link.
    pub keep: SignedDuration,
    /// How long a link lives, whatever was asked for.
    pub link_life: Option<SignedDuration>,
    /// What another link to the same file does.
    pub another_link: AnotherLink,
    /// So many of the next questions for a link are answered without one.
    pub late_links: u32,
    /// Whether links are signed by version 4, otherwise by version 1.
    pub v4: bool,
    /// Whether a task writes a tree into a bucket, otherwise a single archive.
    pub tree: bool,
    /// The life of the links of local disks.
    pub object_link_life: SignedDuration,
    /// What the key may do: permissions, also with a `*` at the end.
    pub policy: Vec<String>,
    /// Whether download tasks of a sharded cluster are asked for by the cluster's id and its own
    /// backup's, otherwise by those of a shard.
    pub by_cluster: bool,
    /// So many of the next calls are throttled, each answer asking to wait this long.
    pub throttled: (u32, SignedDuration),
    /// Whether answers are as odd as documented ones sometimes are: numbers as text and text as
    /// numbers, null for nothing, other spellings, milliseconds, and fields that nobody knows.
    pub odd: bool,
    /// Whether the checksums that the store tells are wrong.
    pub wrong_checksums: bool,
}

/// What another link to the same file does: nobody outside knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnotherLink {
    /// It ends with the first one, and the file with both.
    EndsWithTheFirst,
    /// The file lives as long as it.
    Prolongs,
    /// It promises to live longer, but the file ends with the first one.
    Deceives,
    /// There is none.
    Refused,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            task_time: SignedDuration::ZERO,
            failures: 0,
            keep: SignedDuration::from_hours(3 * 24),
            link_life: None,
            another_link: AnotherLink::EndsWithTheFirst,
            late_links: 0,
            v4: false,
            tree: false,
            object_link_life: SignedDuration::from_hours(2),
            policy: vec!["*".to_owned()],
            by_cluster: false,
            throttled: (0, SignedDuration::ZERO),
            odd: false,
            wrong_checksums: false,
        }
    }
}

impl Knobs {
    /// Exactly what the policy of the help page "Download backup files" allows.
    pub fn documented_policy() -> Vec<String> {
        [
            "dds:Describe*",
            "dbs:CreateDownload",
            "dbs:DescribeDBInstanceDownloadSize",
            "dbs:DescribeDownloadSupport",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub(super) fn allows(&self, permission: &str) -> bool {
        self.policy
            .iter()
            .any(|granted| match granted.strip_suffix('*') {
                Some(prefix) => permission.starts_with(prefix),
                None => permission == granted,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_policy_lacks_what_polling_needs() {
        let knobs = Knobs {
            policy: Knobs::documented_policy(),
            ..Knobs::default()
        };
        for (permission, allowed) in [
            ("dds:DescribeBackups", true),
            ("dbs:CreateDownload", true),
            ("dbs:DescribeDownloadSupport", true),
            ("dbs:DescribeDownloadTask", false),
            ("dbs:DescribeDownloadBackupSetStorageInfo", false),
            ("dbs:RetryDownloadTask", false),
        ] {
            assert_eq!(knobs.allows(permission), allowed, "{permission}");
        }
    }
}
