//! Paths and versions: which call a request makes, and in which shape it wants the answer. Pure.
//!
//! The legacy API answers in the shapes of 2023-01-01 to any `Accept`. The versioned API takes
//! `application/vnd.atlas.YYYY-MM-DD+json` and answers with the newest version of that resource
//! that is not newer ("Versioned Atlas Administration API Overview", mongodb.com/docs).

use http::Method;
use percent_encoding::percent_decode_str;

use super::answer::ApiError;
use super::limits::Class;

/// The first version of every resource, and the shape of the legacy API.
pub(super) const FIRST: &str = "2023-01-01";
/// The second shape of clusters.
pub(super) const SECOND: &str = "2023-02-01";
/// The third shape of clusters.
pub(super) const THIRD: &str = "2024-08-05";
/// The only version of Flex clusters and their backups.
const FLEX: &str = "2024-11-13";
/// The newest date the API knows.
const NEWEST: &str = "2025-03-12";

/// Which of the two APIs was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edition {
    V1,
    V2,
}

impl Edition {
    /// Its path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Edition::V1 => "/api/atlas/v1.0",
            Edition::V2 => "/api/atlas/v2",
        }
    }
}

/// A call with what its path names: project, cluster, and snapshot or job, as they come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Groups,
    Group(String),
    OrgClusters,
    Clusters(String),
    Cluster(String, String),
    FlexClusters(String),
    FlexCluster(String, String),
    FlexSnapshots(String, String),
    FlexSnapshot(String, String, String),
    FlexDownload(String, String),
    FlexRestores(String, String),
    FlexRestore(String, String, String),
    TenantSnapshots(String, String),
    TenantSnapshot(String, String, String),
    TenantDownload(String, String),
    TenantRestores(String, String),
    TenantRestore(String, String, String),
    Snapshots(String, String),
    Snapshot(String, String, String),
    ShardedSnapshots(String, String),
    ShardedSnapshot(String, String, String),
    RestoreJobs(String, String),
    CreateRestoreJob(String, String),
    RestoreJob(String, String, String),
    CancelRestoreJob(String, String, String),
}

impl Call {
    /// The call that `method path` makes.
    pub(super) fn parse(method: &Method, path: &str) -> Option<(Edition, Call)> {
        let (edition, rest) = [Edition::V1, Edition::V2]
            .into_iter()
            .find_map(|edition| Some((edition, path.strip_prefix(edition.path())?)))?;
        let segments: Vec<String> = rest
            .strip_prefix('/')?
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let own = str::to_owned;
        let call = match (method.as_str(), &segments[..]) {
            ("GET", ["groups"]) => Call::Groups,
            ("GET", ["groups", g]) => Call::Group(own(g)),
            ("GET", ["clusters"]) => Call::OrgClusters,
            ("GET", ["groups", g, "clusters"]) => Call::Clusters(own(g)),
            ("GET", ["groups", g, "flexClusters"]) => Call::FlexClusters(own(g)),
            ("GET", ["groups", g, "flexClusters", c]) => Call::FlexCluster(own(g), own(c)),
            (method, ["groups", g, "flexClusters", c, "backup", rest @ ..]) => {
                let (g, c) = (own(g), own(c));
                match (method, rest) {
                    ("GET", ["snapshots"]) => Call::FlexSnapshots(g, c),
                    ("GET", ["snapshots", s]) => Call::FlexSnapshot(g, c, own(s)),
                    ("POST", ["download"]) => Call::FlexDownload(g, c),
                    ("GET", ["restoreJobs"]) => Call::FlexRestores(g, c),
                    ("GET", ["restoreJobs", r]) => Call::FlexRestore(g, c, own(r)),
                    _ => return None,
                }
            }
            ("GET", ["groups", g, "clusters", c]) => Call::Cluster(own(g), own(c)),
            (method, ["groups", g, "clusters", c, "backup", rest @ ..]) => {
                let (g, c) = (own(g), own(c));
                match (method, rest) {
                    ("GET", ["tenant", "snapshots"]) => Call::TenantSnapshots(g, c),
                    ("GET", ["tenant", "snapshots", s]) => Call::TenantSnapshot(g, c, own(s)),
                    ("POST", ["tenant", "download"]) => Call::TenantDownload(g, c),
                    ("GET", ["tenant", "restores"]) => Call::TenantRestores(g, c),
                    ("GET", ["tenant", "restores", r]) => Call::TenantRestore(g, c, own(r)),
                    ("GET", ["snapshots"]) => Call::Snapshots(g, c),
                    ("GET", ["snapshots", "shardedClusters"]) => Call::ShardedSnapshots(g, c),
                    ("GET", ["snapshots", s]) => Call::Snapshot(g, c, own(s)),
                    ("GET", ["snapshots", "shardedCluster", s]) => {
                        Call::ShardedSnapshot(g, c, own(s))
                    }
                    ("GET", ["restoreJobs"]) => Call::RestoreJobs(g, c),
                    ("POST", ["restoreJobs"]) => Call::CreateRestoreJob(g, c),
                    ("GET", ["restoreJobs", j]) => Call::RestoreJob(g, c, own(j)),
                    ("DELETE", ["restoreJobs", j]) => Call::CancelRestoreJob(g, c, own(j)),
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some((edition, call))
    }

    /// The name of the call in the bill.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Call::Groups => "groups",
            Call::Group(..) => "group",
            Call::OrgClusters => "org_clusters",
            Call::Clusters(..) => "clusters",
            Call::Cluster(..) => "cluster",
            Call::FlexClusters(..) => "flex_clusters",
            Call::FlexCluster(..) => "flex_cluster",
            Call::FlexSnapshots(..) => "flex_snapshots",
            Call::FlexSnapshot(..) => "flex_snapshot",
            Call::FlexDownload(..) => "flex_download",
            Call::FlexRestores(..) => "flex_restores",
            Call::FlexRestore(..) => "flex_restore",
            Call::TenantSnapshots(..) => "tenant_snapshots",
            Call::TenantSnapshot(..) => "tenant_snapshot",
            Call::TenantDownload(..) => "tenant_download",
            Call::TenantRestores(..) => "tenant_restores",
            Call::TenantRestore(..) => "tenant_restore",
            Call::Snapshots(..) => "snapshots",
            Call::Snapshot(..) => "snapshot",
            Call::ShardedSnapshots(..) => "sharded_snapshots",
            Call::ShardedSnapshot(..) => "sharded_snapshot",
            Call::RestoreJobs(..) => "restore_jobs",
            Call::CreateRestoreJob(..) => "create_restore_job",
            Call::RestoreJob(..) => "restore_job",
            Call::CancelRestoreJob(..) => "cancel_restore_job",
        }
    }

    /// Whether the call is one of the shared tier's backup endpoints.
    pub(super) fn is_tenant(&self) -> bool {
        self.kind().starts_with("tenant")
    }

    /// Whether the call is one of the API of Flex clusters.
    fn is_flex(&self) -> bool {
        self.kind().starts_with("flex")
    }

    /// The rate limit the call counts against.
    pub(super) fn class(&self) -> Class {
        match self {
            Call::Groups | Call::Group(..) => Class::Groups,
            Call::OrgClusters => Class::Root,
            Call::Clusters(..) | Call::Cluster(..) => Class::Clusters,
            call if call.is_flex() => Class::Flex,
            _ => Class::Backups,
        }
    }

    /// The resource's versions, oldest first.
    fn versions(&self) -> &'static [&'static str] {
        match self {
            Call::Clusters(..) | Call::Cluster(..) => &[FIRST, SECOND, THIRD],
            call if call.is_flex() => &[FLEX],
            _ => &[FIRST],
        }
    }

    /// The version to answer with: 404 for what the legacy API never had, 406 for an `Accept` that
    /// names no version or none that this resource has.
    pub(super) fn version(
        &self,
        edition: Edition,
        accept: Option<&str>,
    ) -> Result<Version, ApiError> {
        let versions = self.versions();
        let newest_until = |date: &str| versions.iter().rev().find(|v| **v <= date).copied();
        let date = match edition {
            Edition::V1 => newest_until(FIRST).ok_or_else(ApiError::no_such_resource)?,
            Edition::V2 => accept
                .and_then(asked_date)
                .and_then(newest_until)
                .ok_or_else(ApiError::not_acceptable)?,
        };
        Ok(Version {
            edition,
            date,
            superseded: versions.last() != Some(&date),
        })
    }
}

/// The shape an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) edition: Edition,
    pub(super) date: &'static str,
    /// Whether a newer version exists, which makes this one deprecated.
    pub(super) superseded: bool,
}

/// The first date among the media types of `accept`, when it is a date the API may know.
fn asked_date(accept: &str) -> Option<&str> {
    let date = accept.split(',').find_map(|media| {
        let media = media.split(';').next()?.trim();
        media
            .strip_prefix("application/vnd.atlas.")?
            .strip_suffix("+json")
    })?;
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    // Dates of this form compare as text.
    (is_date && date <= NEWEST).then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dated(date: &str) -> String {
        format!("application/vnd.atlas.{date}+json")
    }

    fn version(call: &Call, accept: Option<&str>) -> Result<&'static str, u16> {
        call.version(Edition::V2, accept)
            .map(|v| v.date)
            .map_err(|e| e.status)
    }

    #[test]
    fn the_newest_version_not_newer_than_asked() {
        let clusters = Call::Clusters("g".into());
        for (asked, expected) in [
            ("2023-01-01", Ok(FIRST)),
            ("2023-01-31", Ok(FIRST)),
            ("2023-02-01", Ok(SECOND)),
            ("2024-05-30", Ok(SECOND)),
            ("2024-08-05", Ok(THIRD)),
            ("2025-03-12", Ok(THIRD)),
            ("2022-12-31", Err(406)),
            ("2025-03-13", Err(406)),
            ("9999-01-01", Err(406)),
            ("preview", Err(406)),
            ("2023-1-1", Err(406)),
        ] {
            assert_eq!(version(&clusters, Some(&dated(asked))), expected, "{asked}");
        }
        let flex = Call::FlexClusters("g".into());
        assert_eq!(version(&flex, Some(&dated("2023-01-01"))), Err(406));
        assert_eq!(version(&flex, Some(&dated("2024-11-13"))), Ok(FLEX));
        assert_eq!(
            version(&Call::Groups, Some(&dated("2025-03-12"))),
            Ok(FIRST)
        );
    }

    #[test]
    fn a_version_must_be_named_on_v2_only() {
        for accept in [None, Some("*/*"), Some("application/json")] {
            assert_eq!(version(&Call::Groups, accept), Err(406));
            let legacy = Call::Groups.version(Edition::V1, accept).unwrap();
            assert_eq!((legacy.date, legacy.superseded), (FIRST, false));
        }
        let listed = "text/html, application/vnd.atlas.2023-01-01+json;q=0.9, */*";
        assert_eq!(version(&Call::Groups, Some(listed)), Ok(FIRST));
        let flex = Call::FlexClusters("g".into()).version(Edition::V1, None);
        assert_eq!(flex.map_err(|e| e.status).unwrap_err(), 404);
    }

    #[test]
    fn names_are_decoded_and_nothing_else_matches() {
        let parse = |method: &str, path: &str| {
            Call::parse(&Method::from_bytes(method.as_bytes()).unwrap(), path)
        };
        assert_eq!(
            parse(
                "GET",
                "/api/atlas/v1.0/groups/g/clusters/M2%20x/backup/tenant/snapshots"
            ),
            Some((
                Edition::V1,
                Call::TenantSnapshots("g".into(), "M2 x".into())
            ))
        );
        for (method, path) in [
            ("GET", "/api/atlas/v3/groups"),
            ("GET", "/api/atlas/v2"),
            ("GET", "/api/atlas/v2/groups/"),
            (
                "GET",
                "/api/atlas/v2/groups/g/clusters/c/backup/tenant/download",
            ),
            (
                "POST",
                "/api/atlas/v2/groups/g/clusters/c/backup/tenant/restore",
            ),
            ("DELETE", "/api/atlas/v2/groups/g/clusters/c"),
        ] {
            let call = parse(method, path).map(|(_, call)| call);
            assert!(
                call.is_none() || call == Some(Call::Group(String::new())),
                "{method} {path}"
            );
        }
    }
}
