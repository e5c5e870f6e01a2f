//! The small world that `demo` and the conformance script look at.

use jiff::{SignedDuration, Timestamp};

use super::atlas::{Cluster, Project, Snapshot, Status, Tier};
use super::{Content, SimBuilder};

/// One Atlas project: a shared M2 and M5 with a week of daily snapshots each, a free M0 without,
/// and a dedicated replica set. The last snapshot is of this morning; every artifact is a genuine
/// `.tgz` of a database dump.
pub fn demo_clouds() -> SimBuilder {
    let now = Timestamp::now();
    let midnight = now.as_second() - now.as_second().rem_euclid(86_400);
    let at = |hours: i64| {
        let today =
            Timestamp::from_second(midnight).unwrap_or(now) + SignedDuration::from_hours(hours);
        // Not in the future, whatever the time of day.
        if today > now {
            today - SignedDuration::from_hours(24)
        } else {
            today
        }
    };
    let running = Snapshot::at(now).status(Status::Running);
    SimBuilder::new().project(
        Project::new("Web shop (production)")
            .cluster(
                Cluster::new("orders", Tier::M2)
                    .daily(7, at(2), |day| Content::dump(100 + day))
                    .snapshot(running),
            )
            .cluster(
                Cluster::new("catalogue", Tier::M5)
                    .version("8.0.4")
                    .daily(5, at(3), |day| Content::dump(200 + day)),
            )
            .cluster(Cluster::new("sandbox", Tier::M0))
            .cluster(
                Cluster::new("ledger", Tier::M10).daily(3, at(4), |day| Content::dump(300 + day)),
            ),
    )
}
