//! The one request that costs money: from its durable intent to its recorded answer.

use std::sync::Arc;

use crate::error::{Error, Kind, one_line};
use crate::model::{ShardRef, Task, TaskKey};
use crate::providers::Provider;
use crate::secret::SafeUrl;
use crate::tasks::ledger::{Intention, word};
use crate::tasks::share::{Shared, label};

/// One create request, from its intent to its answer.
pub(super) struct Request {
    pub(super) shared: Arc<Shared>,
    pub(super) key: TaskKey,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) target: ShardRef,
    /// The row that the wish to create rests on.
    pub(super) revision: u64,
}

/// What became of it.
pub(super) enum Sent {
    /// With this task.
    Answered(Task),
    /// With this error.
    Failed(Error),
    /// Not sent: no intent could be opened.
    Not(Intention),
    /// Not sent: the ledger failed.
    NoLedger(Error),
}

impl Request {
    /// Sends it once the intent is durable; its answer is recorded when this returns.
    pub(super) async fn send(self) -> Sent {
        let (ledger, clock) = (&self.shared.ledger, &self.shared.clock);
        let limit = self.shared.options.max_tasks_per_day;
        let label = label(&self.key);
        let opened = ledger.intend(&self.key, self.revision, limit, clock.now());
        match opened.await {
            Ok(Intention::Open(_)) => {}
            Ok(not) => return Sent::Not(not),
            Err(error) => {
                return Sent::NoLedger(
                    error.context(format!("no download task was created for {label}")),
                );
            }
        }
        tracing::info!(task = %label, "intent is durable, creating");
        match self.provider.create_task(&self.target).await {
            Ok(task) => {
                let task = without_links(task);
                ledger.answer(&self.key, &task, clock.now()).await;
                tracing::info!(task = %label, id = %one_line(&task.id), state = word(task.state), "created");
                Sent::Answered(task)
            }
            Err(error) => {
                if is_refusal(error.kind()) {
                    ledger.withdraw(&self.key).await;
                    // Whoever waits for it says why, and that once.
                    tracing::debug!(task = %label, "create: {error}");
                } else {
                    tracing::warn!(task = %label, "create: {error}");
                }
                Sent::Failed(error)
            }
        }
    }
}

/// Whether a create that failed so was surely not carried out. Providers promise
/// [`Kind::OutcomeUnknown`] where it may have been; what cannot be a refusal counts as that too.
pub(super) fn is_refusal(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Busy
            | Kind::Throttled
            | Kind::Unreachable
            | Kind::Denied
            | Kind::Credentials
            | Kind::NotFound
            | Kind::Expired
            | Kind::Unsupported
            | Kind::TaskFailed
            | Kind::Config
    )
}

/// `task` with a message that is one line and in which no address shows more than its host: such
/// words go into the ledger, logs and attributes.
pub(super) fn without_links(mut task: Task) -> Task {
    task.message = task.message.map(|message| {
        let words: Vec<String> = one_line(&message)
            .split_whitespace()
            .map(|word| match word.find("://") {
                None => word.to_owned(),
                Some(_) => SafeUrl::parse(word).map_or("…".into(), |url| url.to_string()),
            })
            .collect();
        words.join(" ")
    });
    task
}
