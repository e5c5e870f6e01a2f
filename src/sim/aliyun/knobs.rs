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
    /// Whether another link prolongs the life of what it leads to; otherwise that ends with the
    /// first one.
    pub prolong: bool,
    /// Whether links are signed by version 4, otherwise by version 1.
    pub v4: bool,
    /// Whether a task writes a tree into a bucket, otherwise a single archive.
    pub tree: bool,
    /// The life of the links of local disks.
    pub object_link_life: SignedDuration,
    /// What the key may do: permissions, also with a `*` at the end.
    pub policy: Vec<String>,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            task_time: SignedDuration::ZERO,
            failures: 0,
            keep: SignedDuration::from_hours(3 * 24),
            link_life: None,
            prolong: false,
            v4: false,
            tree: false,
            object_link_life: SignedDuration::from_hours(2),
            policy: vec!["*".to_owned()],
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
