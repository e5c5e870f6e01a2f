//! The calls, and with them the permissions that an account needs: the one list of both.
//!
//! The permissions of a RAM user are named after the calls, `<product>:<Action>`. The policy that
//! the help page "Download backup files" prints (March 2026) is for the console: by API, asking how
//! a task stands, its link, and the retry of a failed one need three permissions more.

/// Which of the two services a call belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// ApsaraDB for MongoDB.
    Dds,
    /// Database Backup: the download tasks.
    Dbs,
}

impl Product {
    /// The prefix of its permissions.
    pub fn word(self) -> &'static str {
        match self {
            Product::Dds => "dds",
            Product::Dbs => "dbs",
        }
    }

    /// The version of its API.
    pub(super) fn version(self) -> &'static str {
        match self {
            Product::Dds => "2015-12-01",
            Product::Dbs => "2021-01-01",
        }
    }
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The instances of a region.
    DescribeDbInstances,
    /// One instance with its shards.
    DescribeDbInstanceAttribute,
    /// The backups of a replica set or of one shard.
    DescribeBackups,
    /// The backups of a whole sharded cluster.
    DescribeClusterBackups,
    /// Whether an instance's backups can be converted for download.
    DescribeDownloadSupport,
    /// The download tasks of an instance.
    DescribeDownloadTask,
    /// Starts a download task: the only call that costs money.
    CreateDownload,
    /// Starts a failed download task again.
    RetryDownloadTask,
    /// The link to what a task made.
    DescribeDownloadBackupSetStorageInfo,
}

impl Action {
    /// Every call, and so every permission that a RAM user needs.
    pub const ALL: [Action; 9] = [
        Action::DescribeDbInstances,
        Action::DescribeDbInstanceAttribute,
        Action::DescribeBackups,
        Action::DescribeClusterBackups,
        Action::DescribeDownloadSupport,
        Action::DescribeDownloadTask,
        Action::CreateDownload,
        Action::RetryDownloadTask,
        Action::DescribeDownloadBackupSetStorageInfo,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Action::DescribeDbInstances => "DescribeDBInstances",
            Action::DescribeDbInstanceAttribute => "DescribeDBInstanceAttribute",
            Action::DescribeBackups => "DescribeBackups",
            Action::DescribeClusterBackups => "DescribeClusterBackups",
            Action::DescribeDownloadSupport => "DescribeDownloadSupport",
            Action::DescribeDownloadTask => "DescribeDownloadTask",
            Action::CreateDownload => "CreateDownload",
            Action::RetryDownloadTask => "RetryDownloadTask",
            Action::DescribeDownloadBackupSetStorageInfo => "DescribeDownloadBackupSetStorageInfo",
        }
    }

    /// The service it belongs to.
    pub fn product(self) -> Product {
        match self {
            Action::DescribeDbInstances
            | Action::DescribeDbInstanceAttribute
            | Action::DescribeBackups
            | Action::DescribeClusterBackups => Product::Dds,
            Action::DescribeDownloadSupport
            | Action::DescribeDownloadTask
            | Action::CreateDownload
            | Action::RetryDownloadTask
            | Action::DescribeDownloadBackupSetStorageInfo => Product::Dbs,
        }
    }

    /// The permission, as a RAM policy names it.
    pub fn permission(self) -> String {
        format!("{}:{}", self.product().word(), self.name())
    }

    /// Whether the policy of the help page grants it.
    fn is_in_the_help_page(self) -> bool {
        self.product() == Product::Dds
            || matches!(
                self,
                Action::CreateDownload | Action::DescribeDownloadSupport
            )
    }
}

/// What to grant when `refused` was refused: the call itself, and whatever else the help page's
/// policy lacks, so that one round of granting is enough.
pub(super) fn to_grant(refused: Action) -> String {
    let names: Vec<String> = Action::ALL
        .into_iter()
        .filter(|action| {
            *action == refused
                || (refused.product() == Product::Dbs && !action.is_in_the_help_page())
        })
        .map(Action::permission)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_help_page_forgets_is_granted_in_one_round() {
        assert_eq!(
            to_grant(Action::DescribeDownloadTask),
            "dbs:DescribeDownloadTask, dbs:RetryDownloadTask, dbs:DescribeDownloadBackupSetStorageInfo"
        );
        assert_eq!(to_grant(Action::DescribeBackups), "dds:DescribeBackups");
        assert!(
            to_grant(Action::CreateDownload)
                .starts_with("dbs:DescribeDownloadTask, dbs:CreateDownload")
        );
    }

    #[test]
    fn the_page_prints_the_whole_policy() {
        let page = include_str!("../../../docs/clouds/aliyun.md");
        assert!(page.contains("\"dds:Describe*\""));
        for action in Action::ALL {
            let printed = page.contains(&format!("\"{}\"", action.permission()));
            assert!(printed || action.product() == Product::Dds, "{action:?}");
        }
    }
}
