//! What the ledger holds, in memory, and how one observation leads to the next row.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::model::{ArtifactKey, Task, TaskKey};
use crate::tasks::ledger::record::{ArtifactRecord, Record};

/// The rows of the file as this process last saw them, and what need not survive it.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) tasks: HashMap<TaskKey, Record>,
    pub(super) artifacts: HashMap<ArtifactKey, ArtifactRecord>,
    /// Creates that were carried out.
    pub(super) created: u64,
}

impl Mirror {
    /// Takes over a row of the file, unless what memory holds is as new.
    pub(super) fn learn(&mut self, key: &TaskKey, record: Record) {
        match self.tasks.get(key) {
            Some(held) if held.revision >= record.revision => {}
            _ => {
                self.tasks.insert(key.clone(), record);
            }
        }
    }

    /// Notes what need not survive: the percent, and when the provider was asked. `None` if `task`
    /// differs in what must survive.
    pub(super) fn refresh(
        &mut self,
        key: &TaskKey,
        revision: u64,
        task: &Task,
        now: Timestamp,
    ) -> Option<Record> {
        let record = self.tasks.get_mut(key)?;
        let held = record.task.as_mut()?;
        let same = record.intent.is_none()
            && record.revision == revision
            && held.id == task.id
            && held.state == task.state
            && held.expires == task.expires
            && held.message == task.message;
        if !same {
            return None;
        }
        held.percent = task.percent;
        record.checked = now;
        Some(record.clone())
    }
}

impl Record {
    /// A row in which nothing is known yet.
    pub(super) fn new(now: Timestamp) -> Self {
        Record {
            task: None,
            intent: None,
            since: now,
            changed: now,
            checked: now,
            reports: 0,
            revision: 0,
        }
    }

    /// The row after `old` in which `task` is known and no intent is open.
    pub(super) fn following(old: Option<&Record>, task: Task, now: Timestamp) -> Self {
        let mut new = old.cloned().unwrap_or_else(|| Record::new(now));
        let before = new.task.take();
        if before.as_ref().is_none_or(|before| before.id != task.id) {
            new.reports = 0;
            new.changed = now;
            // With an intent open it is the one that was asked for then.
            if new.intent.is_none() {
                new.since = now;
            }
        } else if before.is_some_and(|before| before.state != task.state) {
            new.changed = now;
        }
        new.task = Some(task);
        new.intent = None;
        new.checked = now;
        new.revision += 1;
        new
    }
}
