//! The documents of `.backupfs`, put together from memory whenever one is opened.
//!
//! What each field means is said in [`crate::observe::status`].

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use super::Inner;
use crate::observe::metrics::{Exposition, Type};
use crate::observe::status::{
    CacheStatus, FetchTotals, ProviderStatus, Status, TaskCounts, TaskStatus, Totals, Usage,
};
use crate::tasks::TaskView;
use crate::tree::MetaFile;

impl Inner {
    /// The document as of now.
    pub(super) fn document(&self, which: MetaFile) -> Bytes {
        match which {
            MetaFile::Status => json(&self.status()),
            MetaFile::Tasks => json(&self.tasks()),
            MetaFile::Metrics => self.metrics().into(),
            MetaFile::Events => self.events.text().into(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let views = self.opener.engine.views();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            mountpoint: self.mountpoint.get().cloned(),
            since: self.shape.since,
            now: self.opener.clock.now(),
            providers: self.providers(),
            tasks: TaskCounts {
                by_state: by_state(&views),
                waiting: views.iter().map(|view| view.waiting).sum(),
                created_total: self.opener.engine.created_total(),
            },
            ledger_error: self.opener.ledger.closed().map(str::to_owned),
            cache: self.cache(),
            memory: Usage {
                used: self.budget.used(),
                limit: self.budget.limit(),
            },
            open_files: self.handles.open_files(),
            known_entries: self.tree.known_nodes(),
            kernel: self.kernel.status(),
            activity: self.totals(),
            last_error: self.events.last(),
        }
    }

    fn providers(&self) -> Vec<ProviderStatus> {
        self.tree
            .health()
            .into_iter()
            .map(|health| ProviderStatus {
                fetch: self.fetch_totals(&health.name),
                name: health.name,
                last_listing: health.last_listing,
                stale: health.stale,
                error: health.error,
                instances: health.instances,
            })
            .collect()
    }

    fn cache(&self) -> CacheStatus {
        let stats = self.opener.cache.stats();
        CacheStatus {
            directory: self.opener.cache.path().to_owned(),
            used: stats.used,
            limit: stats.limit,
            degraded: stats.degraded,
            damaged_blocks: stats.damaged_blocks,
            evicted_bytes: stats.evicted_bytes,
            disk_failures: stats.disk_failures,
        }
    }

    fn fetch_totals(&self, provider: &str) -> FetchTotals {
        let Some(account) = self.opener.accounts.get(provider) else {
            return FetchTotals::default();
        };
        let stats = account.fetcher.stats();
        FetchTotals {
            requests: stats.requests(),
            bytes: stats.bytes(),
            retries: stats.retries(),
            links_refused: stats.refused(),
            protocol_errors: stats.protocol_errors(),
        }
    }

    fn totals(&self) -> Totals {
        let activity = &self.opener.activity;
        Totals {
            opens: activity.opens.get(),
            reads: activity.reads.get(),
            read_bytes: activity.read_bytes.get(),
            link_refreshes: activity.link_refreshes.get(),
            digests_verified: activity.digests_verified.get(),
            digest_mismatches: activity.digest_mismatches.get(),
            failures: activity.failures(),
        }
    }

    fn tasks(&self) -> Vec<TaskStatus> {
        self.opener
            .engine
            .views()
            .into_iter()
            .map(|view| TaskStatus {
                path: self.tree.place_of(&view.key),
                provider: view.key.provider,
                instance: view.key.instance,
                backup: view.key.backup,
                shard: view.key.shard,
                state: view.state,
                task: view.task_id,
                percent: view.percent,
                estimate: view.estimate,
                expires: view.expires,
                error: view.error,
                since: view.since,
                waiting: view.waiting,
            })
            .collect()
    }

    fn metrics(&self) -> String {
        use Type::{Counter, Gauge};
        let status = self.status();
        let of_providers = |value: fn(&ProviderStatus) -> u64| {
            let pairs = status
                .providers
                .iter()
                .map(move |p| (p.name.clone(), value(p)));
            pairs.collect::<Vec<_>>()
        };
        let mut m = Exposition::new();
        m.values(
            "info",
            Gauge,
            "The running version.",
            "version",
            [(status.version, 1)],
        );
        m.value(
            "start_time_seconds",
            Gauge,
            "When the filesystem was opened, in seconds since the epoch.",
            status.since.as_second(),
        );
        m.values(
            "provider_listing_stale",
            Gauge,
            "1 if some listing shown is older than it should be.",
            "provider",
            of_providers(|p| u64::from(p.stale)),
        );
        let listed = status.providers.iter().filter_map(|p| {
            let at = p.last_listing?;
            Some((p.name.clone(), at.as_second()))
        });
        m.values(
            "provider_last_listing_timestamp_seconds",
            Gauge,
            "When a listing was last answered well, in seconds since the epoch.",
            "provider",
            listed,
        );
        m.values(
            "provider_instances",
            Gauge,
            "Instances in the last listing.",
            "provider",
            of_providers(|p| p.instances as u64),
        );
        m.values(
            "fetch_requests_total",
            Counter,
            "Data requests sent.",
            "provider",
            of_providers(|p| p.fetch.requests),
        );
        m.values(
            "fetch_bytes_total",
            Counter,
            "Bytes of artifacts received.",
            "provider",
            of_providers(|p| p.fetch.bytes),
        );
        m.values(
            "fetch_retries_total",
            Counter,
            "Data requests made again after a failure.",
            "provider",
            of_providers(|p| p.fetch.retries),
        );
        m.values(
            "fetch_links_refused_total",
            Counter,
            "Answers that turned a link down.",
            "provider",
            of_providers(|p| p.fetch.links_refused),
        );
        m.values(
            "fetch_protocol_errors_total",
            Counter,
            "Answers that the protocol does not allow.",
            "provider",
            of_providers(|p| p.fetch.protocol_errors),
        );
        m.value(
            "link_refreshes_total",
            Counter,
            "Links asked for again.",
            status.activity.link_refreshes,
        );
        m.value(
            "digests_verified_total",
            Counter,
            "Files found to have the digest that their store publishes.",
            status.activity.digests_verified,
        );
        m.value(
            "digest_mismatches_total",
            Counter,
            "Files found to have another digest than their store publishes.",
            status.activity.digest_mismatches,
        );
        m.values(
            "tasks",
            Gauge,
            "Known download tasks by state.",
            "state",
            &status.tasks.by_state,
        );
        m.value(
            "tasks_waiting",
            Gauge,
            "Openers that wait for a task.",
            status.tasks.waiting,
        );
        m.value(
            "tasks_created_total",
            Counter,
            "Tasks created in the life of the state directory.",
            status.tasks.created_total,
        );
        m.value(
            "ledger_closed",
            Gauge,
            "1 if no new task can be recorded, so that none is created.",
            u8::from(status.ledger_error.is_some()),
        );
        m.value(
            "cache_bytes",
            Gauge,
            "Bytes in the block cache.",
            status.cache.used,
        );
        m.value(
            "cache_limit_bytes",
            Gauge,
            "Most bytes in the block cache.",
            status.cache.limit,
        );
        m.value(
            "cache_degraded",
            Gauge,
            "1 if nothing is cached because the disk failed.",
            u8::from(status.cache.degraded),
        );
        m.value(
            "cache_damaged_blocks_total",
            Counter,
            "Blocks found damaged.",
            status.cache.damaged_blocks,
        );
        m.value(
            "cache_evicted_bytes_total",
            Counter,
            "Bytes that left to make room.",
            status.cache.evicted_bytes,
        );
        m.value(
            "cache_disk_failures_total",
            Counter,
            "Failures of the cache disk.",
            status.cache.disk_failures,
        );
        m.value(
            "memory_bytes",
            Gauge,
            "Bytes of read-ahead and blocks in memory.",
            status.memory.used,
        );
        m.value(
            "memory_limit_bytes",
            Gauge,
            "Most bytes of read-ahead and blocks in memory.",
            status.memory.limit,
        );
        m.value("open_files", Gauge, "Files open.", status.open_files);
        m.value(
            "known_entries",
            Gauge,
            "Entries of the tree in memory.",
            status.known_entries,
        );
        m.value(
            "opens_total",
            Counter,
            "Files opened.",
            status.activity.opens,
        );
        let opens = status.kernel.opens;
        m.values(
            "opens_by_way_total",
            Counter,
            "Files opened, by the way their reads take.",
            "way",
            [
                ("passthrough", opens.passthrough),
                ("direct", opens.direct),
                ("page_cache", opens.page_cache),
            ],
        );
        m.value(
            "reads_total",
            Counter,
            "Read requests answered with bytes.",
            status.activity.reads,
        );
        m.value(
            "read_bytes_total",
            Counter,
            "Bytes given to readers.",
            status.activity.read_bytes,
        );
        m.values(
            "failures_total",
            Counter,
            "Failed operations by errno.",
            "errno",
            &status.activity.failures,
        );
        m.finish()
    }
}

fn by_state(views: &[TaskView]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for view in views {
        *counts.entry(view.state).or_default() += 1;
    }
    counts
}

fn json(document: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec_pretty(document)
        .expect("the documents are plain structs with text keys, which JSON can always hold");
    text.push(b'\n');
    text.into()
}
