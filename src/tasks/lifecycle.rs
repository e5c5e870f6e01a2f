//! The pure state machine of one download task: no I/O, no clock.
//!
//! An [`Attempt`] begins with what the ledger knows ([`Known`]), is told what happened ([`Event`])
//! and answers with a [`Step`]: what the ledger must hold and what to do next. The rule it keeps:
//! a create is asked for only when no live task can exist. That is so when the last task ended, or
//! when none was ever asked for and the provider shows none; after a request whose outcome is not
//! known only complete listings count, [`LOOKS`] of them in a row over ten seconds, because a
//! listing may lag behind. A provider that cannot list leaves such a doubt to the operator.

mod vocabulary;

use std::time::Duration;

use crate::model::{Found, Task, TaskState};

pub use vocabulary::{Action, Event, Failure, Known, Rules, Step};

/// Complete listings without a task that disprove a request of unknown outcome.
pub const LOOKS: usize = PAUSES.len();

/// The pauses before each of those looks.
const PAUSES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(4),
];

/// Requests of unknown outcome that one attempt sends before it leaves it to the next open.
const REQUESTS: u32 = 2;

/// The longest pause between two polls, unless the first one is longer.
const SLOWEST: Duration = Duration::from_secs(120);

/// The pause before another process is looked after that is between its intent and the answer.
const HELD: Duration = Duration::from_secs(1);

/// How often readers must have found an artifact gone before that outweighs a provider that says
/// it is ready: a store may err once.
const BELIEVED: u8 = 2;

/// The pause before a failed task is followed by another.
const FAILED: Duration = Duration::from_secs(1);

/// One attempt to get a ready task.
#[derive(Debug, Clone)]
pub struct Attempt {
    rules: Rules,
    phase: Phase,
    pace: Pace,
    /// The last task known to have ended: what a create would replace.
    ended: Option<Task>,
    /// The task of this id is not believed to be ready: readers found its artifact gone.
    gone: Option<String>,
    /// Requests of unknown outcome sent by this attempt.
    lost: u32,
    /// Failed tasks that this attempt followed by another.
    recreated: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// No live task is known and no intent is open.
    Looking,
    /// An intent is open.
    Resolving(Doubt),
    /// A create was asked for.
    Creating,
    /// A task is known; `alive` once this attempt saw it so, `missed` by so many polls in a row.
    Polling {
        task: Task,
        alive: bool,
        missed: usize,
    },
    /// Nothing more will happen.
    Over,
}

/// A request of unknown outcome, and the looks for what it made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Doubt {
    /// Whether it is another process's, which has not had its answer yet.
    held: bool,
    /// Looks without a live task.
    looks: usize,
    /// A failed task that was not known before: what it made, if the looks show nothing better.
    failed: Option<Task>,
}

impl Attempt {
    /// Begins from what the ledger knows.
    pub fn begin(known: Known, rules: Rules) -> (Self, Action) {
        let mut attempt = Attempt {
            rules,
            phase: Phase::Looking,
            pace: Pace::new(rules.first_poll),
            ended: None,
            gone: None,
            lost: 0,
            recreated: 0,
        };
        let action = match known {
            Known::Absent => Action::Find(Duration::ZERO),
            Known::Intended { held, ended } => {
                attempt.ended = ended;
                attempt.phase = Phase::Resolving(Doubt {
                    held,
                    ..Doubt::default()
                });
                Action::Find(Duration::ZERO)
            }
            Known::Live(task) => {
                attempt.phase = Phase::Polling {
                    task,
                    alive: false,
                    missed: 0,
                };
                Action::Poll(Duration::ZERO)
            }
            Known::Expired { task, reports } => {
                attempt.gone = (reports >= BELIEVED).then(|| task.id.clone());
                attempt.ended = Some(task);
                Action::Find(Duration::ZERO)
            }
            Known::Failed {
                task,
                cooling: true,
            } => {
                attempt.phase = Phase::Over;
                Action::Fail(Failure::Failed(task))
            }
            Known::Failed {
                task,
                cooling: false,
            } => {
                attempt.ended = Some(task);
                Action::Find(Duration::ZERO)
            }
        };
        (attempt, action)
    }

    /// What follows from `event`. An event that was not asked for ends the attempt.
    pub fn on(&mut self, event: Event) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        match (phase, event) {
            (Phase::Looking, Event::Found(found)) => self.looked(found),
            (Phase::Resolving(doubt), Event::Found(found)) => self.resolved(doubt, found),
            (Phase::Looking | Phase::Resolving(_), Event::FindFailed) => fail(Failure::Call),
            (Phase::Creating, Event::Created(task)) => match task.state {
                TaskState::Expired => keep(task.clone(), Action::Fail(Failure::Expired(task))),
                _ => self.adopt(task),
            },
            (Phase::Creating, Event::OutcomeUnknown) => {
                self.lost += 1;
                self.resolve(Doubt::default())
            }
            (Phase::Creating, Event::Refused { again_after }) => match again_after {
                Some(wait) => {
                    self.phase = Phase::Looking;
                    act(Action::Retry(self.pace.next().max(wait)))
                }
                None => fail(Failure::Call),
            },
            (Phase::Polling { alive, .. }, Event::Polled(task)) => match task.state {
                TaskState::Expired => self.gone(task, alive),
                _ => self.adopt(task),
            },
            (
                Phase::Polling {
                    task,
                    alive,
                    missed,
                },
                Event::Vanished,
            ) => self.missed(task, alive, missed + 1),
            (Phase::Polling { task, alive, .. }, Event::PollFailed { passing: true }) => {
                // A provider that cannot be asked does not take a ready task away.
                if task.state == TaskState::Ready {
                    return act(Action::Done(task));
                }
                self.phase = Phase::Polling {
                    task,
                    alive,
                    missed: 0,
                };
                act(Action::Poll(self.pace.next()))
            }
            (_, _) => fail(Failure::Call),
        }
    }

    /// A new waiter: the pause under way may be cut to this length, and the next ones start over.
    pub fn hurry(&mut self) -> Duration {
        self.pace = Pace::new(self.rules.first_poll);
        self.pace.next()
    }

    /// The answer to a look with no intent open.
    fn looked(&mut self, found: Found) -> Step {
        let task = match found {
            Found::Task(task) => self.believe(task),
            Found::Nothing | Found::CannotTell => return act(self.create()),
        };
        match task.state {
            TaskState::Queued | TaskState::Running | TaskState::Ready => self.adopt(task),
            // The ledger waited out the cool-down of this failure already.
            TaskState::Failed if self.knows(&task) => act(self.create()),
            TaskState::Failed => self.failed(task),
            TaskState::Expired => {
                self.ended = Some(task.clone());
                keep(task, self.create())
            }
        }
    }

    /// The answer to a look while an intent is open.
    fn resolved(&mut self, mut doubt: Doubt, found: Found) -> Step {
        let task = match found {
            Found::Task(task) => Some(self.believe(task)),
            Found::Nothing => None,
            Found::CannotTell if doubt.held => return self.await_holder(),
            Found::CannotTell => return fail(Failure::Undecidable),
        };
        match task {
            Some(task) if is_live(&task) => return self.adopt(task),
            _ if doubt.held => return self.await_holder(),
            Some(task) if task.state == TaskState::Failed && !self.knows(&task) => {
                doubt.failed = Some(task);
            }
            Some(task) => self.ended = Some(task),
            None => {}
        }
        doubt.looks += 1;
        self.resolve(doubt)
    }

    /// Looks again, or after looks enough takes the request as disproved or as failed.
    fn resolve(&mut self, doubt: Doubt) -> Step {
        if let Some(pause) = PAUSES.get(doubt.looks) {
            self.phase = Phase::Resolving(doubt);
            return act(Action::Find(*pause));
        }
        match doubt.failed {
            Some(task) => self.failed(task),
            None => act(self.create()),
        }
    }

    /// Another process is between its intent and the answer.
    fn await_holder(&self) -> Step {
        act(Action::Restart(HELD.min(self.rules.first_poll)))
    }

    /// A task that is not expired: wait for it, or end with it.
    fn adopt(&mut self, task: Task) -> Step {
        let action = match task.state {
            TaskState::Queued | TaskState::Running => {
                self.phase = Phase::Polling {
                    task: task.clone(),
                    alive: true,
                    missed: 0,
                };
                Action::Poll(self.pace.next())
            }
            TaskState::Ready => Action::Done(task.clone()),
            TaskState::Expired => Action::Fail(Failure::Expired(task.clone())),
            TaskState::Failed => return self.failed(task),
        };
        keep(task, action)
    }

    /// A task that ended without an artifact: followed by another, after one more look, as often
    /// as the provider allows.
    fn failed(&mut self, task: Task) -> Step {
        if self.recreated >= self.rules.recreations || !self.rules.may_create {
            return keep(task.clone(), Action::Fail(Failure::Failed(task)));
        }
        self.recreated += 1;
        self.ended = Some(task.clone());
        self.phase = Phase::Looking;
        keep(task, Action::Find(FAILED))
    }

    /// The provider does not know the task: that may lag behind too, so it takes as many polls.
    fn missed(&mut self, mut task: Task, alive: bool, missed: usize) -> Step {
        match PAUSES.get(missed) {
            Some(pause) => {
                self.phase = Phase::Polling {
                    task,
                    alive,
                    missed,
                };
                act(Action::Poll(*pause))
            }
            None => {
                task.state = TaskState::Expired;
                self.gone(task, alive)
            }
        }
    }

    /// The polled task expired. One that was expired before this attempt may be replaced by it,
    /// one that was waited for may not: its openers learn what happened.
    fn gone(&mut self, task: Task, alive: bool) -> Step {
        if alive {
            return keep(task.clone(), Action::Fail(Failure::Expired(task)));
        }
        self.ended = Some(task.clone());
        self.phase = Phase::Looking;
        keep(task, Action::Find(Duration::ZERO))
    }

    /// Creates, if the rules allow it. The caller has shown that no live task can exist.
    fn create(&mut self) -> Action {
        let replaced = self.ended.as_ref();
        if !self.rules.may_create {
            return Action::Fail(Failure::MayNotCreate);
        }
        if let Some(task) = replaced.filter(|task| task.state == TaskState::Expired)
            && !self.rules.recreate_expired
        {
            return Action::Fail(Failure::MayNotReplace(task.clone()));
        }
        if self.lost >= REQUESTS {
            return Action::Fail(Failure::Lost);
        }
        self.phase = Phase::Creating;
        Action::Create
    }

    /// `task` as the evidence of readers has it.
    fn believe(&self, mut task: Task) -> Task {
        if task.state == TaskState::Ready && self.gone.as_ref() == Some(&task.id) {
            task.state = TaskState::Expired;
        }
        task
    }

    /// Whether `task` is the one that had ended before.
    fn knows(&self, task: &Task) -> bool {
        self.ended
            .as_ref()
            .is_some_and(|ended| ended.id == task.id && ended.state == task.state)
    }
}

fn is_live(task: &Task) -> bool {
    match task.state {
        TaskState::Queued | TaskState::Running | TaskState::Ready => true,
        TaskState::Expired | TaskState::Failed => false,
    }
}

fn act(action: Action) -> Step {
    Step { keep: None, action }
}

fn fail(failure: Failure) -> Step {
    act(Action::Fail(failure))
}

fn keep(task: Task, action: Action) -> Step {
    Step {
        keep: Some(task),
        action,
    }
}

/// Growing pauses: each half as long again as the one before.
#[derive(Debug, Clone)]
struct Pace {
    next: Duration,
    limit: Duration,
}

impl Pace {
    fn new(first: Duration) -> Self {
        Pace {
            next: first,
            limit: SLOWEST.max(first),
        }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause + pause / 2).min(self.limit);
        pause
    }
}

#[cfg(test)]
mod tests;
