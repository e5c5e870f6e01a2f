use super::*;
use proptest::prelude::*;

const FREE: Rules = Rules {
    may_create: true,
    recreate_expired: true,
    recreations: 0,
    first_poll: Duration::from_secs(10),
};
const NOW: Duration = Duration::ZERO;

fn task(id: &str, state: TaskState) -> Task {
    Task {
        id: id.into(),
        state,
        percent: None,
        expires: None,
        message: None,
    }
}

fn found(id: &str, state: TaskState) -> Event {
    Event::Found(Found::Task(task(id, state)))
}

fn nothing() -> Event {
    Event::Found(Found::Nothing)
}

fn intended(ended: Option<Task>) -> Known {
    Known::Intended { held: false, ended }
}

fn expired(id: &str) -> Known {
    Known::Expired {
        task: task(id, TaskState::Expired),
        reports: 0,
    }
}

fn failed(id: &str, cooling: bool) -> Known {
    Known::Failed {
        task: task(id, TaskState::Failed),
        cooling,
    }
}

/// The actions of an attempt that meets `events`.
fn course(known: Known, rules: Rules, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
    let (mut attempt, first) = Attempt::begin(known, rules);
    let mut actions = vec![first];
    actions.extend(events.into_iter().map(|event| attempt.on(event).action));
    actions
}

/// The last of those actions.
fn last(known: Known, rules: Rules, events: impl IntoIterator<Item = Event>) -> Action {
    course(known, rules, events).pop().expect("begin acts")
}

#[test]
fn every_start_asks_before_it_pays() {
    use TaskState::{Queued, Ready, Running};
    for known in [
        Known::Absent,
        intended(None),
        expired("a"),
        failed("a", false),
    ] {
        assert_eq!(last(known, FREE, []), Action::Find(NOW));
    }
    for state in [Queued, Running, Ready] {
        let known = Known::Live(task("a", state));
        assert_eq!(last(known, FREE, []), Action::Poll(NOW));
    }
}

#[test]
fn a_first_look_decides() {
    use TaskState::{Expired, Failed, Ready, Running};
    let ten = Duration::from_secs(10);
    let table = [
        (nothing(), Action::Create),
        (Event::Found(Found::CannotTell), Action::Create),
        (found("a", Running), Action::Poll(ten)),
        (found("a", Ready), Action::Done(task("a", Ready))),
        (found("a", Expired), Action::Create),
        (
            found("a", Failed),
            Action::Fail(Failure::Failed(task("a", Failed))),
        ),
        (Event::FindFailed, Action::Fail(Failure::Call)),
    ];
    for (event, action) in table {
        assert_eq!(
            last(Known::Absent, FREE, [event.clone()]),
            action,
            "{event:?}"
        );
    }
}

#[test]
fn rules_stop_a_create_but_not_an_adoption() {
    let adopt = Rules {
        may_create: false,
        ..FREE
    };
    let keep_expired = Rules {
        recreate_expired: false,
        ..FREE
    };
    let gone = task("a", TaskState::Expired);
    let none = Action::Fail(Failure::MayNotCreate);
    let spent = Action::Fail(Failure::MayNotReplace(gone));
    assert_eq!(last(Known::Absent, adopt, [nothing()]), none);
    assert_eq!(last(expired("a"), adopt, [nothing()]), none);
    assert_eq!(last(expired("a"), keep_expired, [nothing()]), spent);
    assert_eq!(
        last(
            Known::Absent,
            keep_expired,
            [found("a", TaskState::Expired)]
        ),
        spent
    );
    assert_eq!(
        last(Known::Absent, keep_expired, [nothing()]),
        Action::Create
    );
    let ready = task("b", TaskState::Ready);
    for rules in [adopt, keep_expired] {
        assert_eq!(
            last(expired("a"), rules, [found("b", TaskState::Ready)]),
            Action::Done(ready.clone())
        );
    }
}

#[test]
fn an_unknown_outcome_takes_every_look_to_disprove() {
    let looks: Vec<Action> = PAUSES.iter().map(|pause| Action::Find(*pause)).collect();
    let mut expected = looks.clone();
    expected.push(Action::Create);
    let in_vain = || std::iter::repeat_with(nothing).take(LOOKS);
    assert_eq!(course(intended(None), FREE, in_vain()), expected);

    let mut expected = vec![Action::Find(NOW), Action::Create];
    expected.extend(looks.clone());
    expected.push(Action::Create);
    expected.extend(looks);
    expected.push(Action::Fail(Failure::Lost));
    let events = std::iter::once(nothing())
        .chain([Event::OutcomeUnknown])
        .chain(in_vain())
        .chain([Event::OutcomeUnknown])
        .chain(in_vain());
    assert_eq!(course(Known::Absent, FREE, events), expected);
}

#[test]
fn an_unknown_outcome_is_adopted_or_left_to_the_operator() {
    use TaskState::{Expired, Failed, Ready};
    let before = || intended(Some(task("old", Expired)));
    assert_eq!(
        last(before(), FREE, [found("new", Ready)]),
        Action::Done(task("new", Ready))
    );
    assert_eq!(
        last(before(), FREE, [Event::Found(Found::CannotTell)]),
        Action::Fail(Failure::Undecidable)
    );
    let failed = std::iter::repeat_with(|| found("new", Failed)).take(LOOKS);
    assert_eq!(
        last(before(), FREE, failed),
        Action::Fail(Failure::Failed(task("new", Failed)))
    );
    // The old one says nothing of the new.
    let again = Action::Find(PAUSES[1]);
    assert_eq!(last(before(), FREE, [found("old", Expired)]), again);
    let failed = intended(Some(task("old", Failed)));
    assert_eq!(last(failed, FREE, [found("old", Failed)]), again);
}

#[test]
fn an_intent_in_other_hands_is_waited_for() {
    let held = || Known::Intended {
        held: true,
        ended: None,
    };
    let wait = Action::Restart(HELD);
    for event in [
        nothing(),
        Event::Found(Found::CannotTell),
        found("old", TaskState::Expired),
    ] {
        assert_eq!(last(held(), FREE, [event]), wait);
    }
    assert_eq!(
        last(held(), FREE, [found("new", TaskState::Ready)]),
        Action::Done(task("new", TaskState::Ready))
    );
}

#[test]
fn failures_cool_down() {
    use TaskState::Failed;
    let fail = |id| Action::Fail(Failure::Failed(task(id, Failed)));
    assert_eq!(last(failed("a", true), FREE, []), fail("a"));
    let cooled = || failed("a", false);
    assert_eq!(last(cooled(), FREE, [found("a", Failed)]), Action::Create);
    assert_eq!(last(cooled(), FREE, [nothing()]), Action::Create);
    assert_eq!(last(cooled(), FREE, [found("b", Failed)]), fail("b"));
    let created = Event::Created(task("b", Failed));
    assert_eq!(last(cooled(), FREE, [nothing(), created]), fail("b"));
}

#[test]
fn polls() {
    use TaskState::{Expired, Failed, Queued, Ready, Running};
    let poll = |seconds| Action::Poll(Duration::from_secs(seconds));
    let live = |state| Known::Live(task("a", state));
    let polled = |state| Event::Polled(task("a", state));
    let passing = Event::PollFailed { passing: true };
    assert_eq!(
        course(
            live(Queued),
            FREE,
            [
                polled(Queued),
                passing.clone(),
                polled(Running),
                polled(Ready)
            ]
        ),
        [
            poll(0),
            poll(10),
            poll(15),
            Action::Poll(Duration::from_millis(22_500)),
            Action::Done(task("a", Ready))
        ]
    );
    let fail = |failure| Action::Fail(failure);
    assert_eq!(
        last(live(Running), FREE, [polled(Failed)]),
        fail(Failure::Failed(task("a", Failed)))
    );
    // Expired before this open: it may look for another; under its eyes: it may not.
    assert_eq!(
        last(live(Ready), FREE, [polled(Expired)]),
        Action::Find(NOW)
    );
    assert_eq!(
        last(live(Ready), FREE, [polled(Running), polled(Expired)]),
        fail(Failure::Expired(task("a", Expired)))
    );
    let vanished = || std::iter::repeat_n(Event::Vanished, LOOKS);
    assert_eq!(last(live(Ready), FREE, vanished()), Action::Find(NOW));
    assert_eq!(
        last(live(Ready), FREE, vanished().skip(1)),
        Action::Poll(PAUSES[LOOKS - 1])
    );
    assert_eq!(
        last(live(Ready), FREE, [passing]),
        Action::Done(task("a", Ready))
    );
    let final_failure = Event::PollFailed { passing: false };
    assert_eq!(
        last(live(Running), FREE, [final_failure]),
        fail(Failure::Call)
    );
}

#[test]
fn refusals() {
    let refused = |again_after| Event::Refused { again_after };
    assert_eq!(
        last(Known::Absent, FREE, [nothing(), refused(None)]),
        Action::Fail(Failure::Call)
    );
    let minute = Duration::from_secs(60);
    assert_eq!(
        course(
            Known::Absent,
            FREE,
            [
                nothing(),
                refused(Some(NOW)),
                nothing(),
                refused(Some(minute)),
                found("other", TaskState::Ready)
            ]
        ),
        [
            Action::Find(NOW),
            Action::Create,
            Action::Retry(Duration::from_secs(10)),
            Action::Create,
            Action::Retry(minute),
            Action::Done(task("other", TaskState::Ready)),
        ]
    );
}

#[test]
fn a_provider_is_believed_once_against_a_reader() {
    let known = |reports| Known::Expired {
        task: task("a", TaskState::Expired),
        reports,
    };
    let ready = || found("a", TaskState::Ready);
    assert_eq!(
        last(known(1), FREE, [ready()]),
        Action::Done(task("a", TaskState::Ready))
    );
    assert_eq!(last(known(2), FREE, [ready()]), Action::Create);
}

#[test]
fn case_05_pauses_grow_to_two_minutes_and_start_over_for_a_new_opener() {
    let known = Known::Live(task("a", TaskState::Running));
    let (mut attempt, _) = Attempt::begin(known, FREE);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let polled = Event::Polled(task("a", TaskState::Running));
        let Action::Poll(pause) = attempt.on(polled).action else {
            panic!("a running task is polled")
        };
        pauses.push(pause);
    }
    assert!(pauses.is_sorted());
    assert_eq!(pauses[9], SLOWEST);
    assert_eq!(attempt.hurry(), FREE.first_poll);
    let pace = Pace::new(Duration::from_secs(300)).next();
    assert_eq!(
        pace,
        Duration::from_secs(300),
        "a longer first pause is kept"
    );
}

/// A cloud that bills, as the machine sees it through a ledger that survives crashes.
#[derive(Debug)]
struct Cloud {
    tasks: Vec<Made>,
    lists: bool,
}

#[derive(Debug)]
struct Made {
    task: Task,
    /// So many more looks do not show it.
    hidden: usize,
}

impl Cloud {
    fn look(&mut self) -> Found {
        if !self.lists {
            return Found::CannotTell;
        }
        for made in &mut self.tasks {
            made.hidden = made.hidden.saturating_sub(1);
        }
        let shown = || self.tasks.iter().rev().filter(|made| made.hidden == 0);
        shown()
            .find(|made| is_live(&made.task))
            .or_else(|| shown().next())
            .map_or(Found::Nothing, |made| Found::Task(made.task.clone()))
    }

    /// Carries a create out: never beside a live task.
    fn create(&mut self, hidden: usize) -> Task {
        let live = self.tasks.iter().filter(|made| is_live(&made.task));
        assert_eq!(live.count(), 0, "paid twice: {:?}", self.tasks);
        let task = task(&format!("t{}", self.tasks.len()), TaskState::Queued);
        self.tasks.push(Made {
            task: task.clone(),
            hidden: hidden + 1,
        });
        task
    }

    fn poll(&mut self, id: &str) -> Event {
        let polled = self.tasks.iter_mut().find(|made| made.task.id == id);
        let Some(made) = polled else {
            return Event::Vanished;
        };
        made.hidden = made.hidden.saturating_sub(1);
        match made.hidden {
            0 => Event::Polled(made.task.clone()),
            _ => Event::Vanished,
        }
    }

    /// Time passes: the newest task moves on.
    fn age(&mut self, to: usize) {
        use TaskState::{Expired, Failed, Ready, Running};
        if let Some(made) = self.tasks.last_mut().filter(|m| is_live(&m.task)) {
            made.task.state = [Running, Ready, Expired, Failed][to % 4];
        }
    }
}

/// What a ledger row holds.
#[derive(Debug, Default)]
struct Row {
    task: Option<Task>,
    intended: bool,
}

impl Row {
    fn known(&self) -> Known {
        match &self.task {
            ended if self.intended => intended(ended.clone()),
            None => Known::Absent,
            Some(task) => match task.state {
                TaskState::Expired => expired(&task.id),
                TaskState::Failed => failed(&task.id, false),
                _ => Known::Live(task.clone()),
            },
        }
    }
}

#[test]
fn a_failed_task_is_followed_by_another_as_often_as_allowed() {
    use TaskState::{Failed, Ready, Running};
    let rules = Rules {
        recreations: 2,
        ..FREE
    };
    let created = |id| Event::Created(task(id, Running));
    let polled = |id, state| Event::Polled(task(id, state));
    let (look, ten) = (
        Action::Find(Duration::from_secs(1)),
        Action::Poll(FREE.first_poll),
    );
    let twice = [
        nothing(),
        created("a"),
        polled("a", Failed),
        found("a", Failed),
        created("b"),
        polled("b", Failed),
        found("b", Failed),
        created("c"),
    ];
    let mut actions = course(Known::Absent, rules, twice.clone());
    let slower = Action::Poll(ten_and_a_half(1));
    let slowest = Action::Poll(ten_and_a_half(2));
    assert_eq!(
        actions.split_off(1),
        [
            Action::Create,
            ten,
            look.clone(),
            Action::Create,
            slower,
            look,
            Action::Create,
            slowest,
        ]
    );
    let done = twice.clone().into_iter().chain([polled("c", Ready)]);
    assert_eq!(
        last(Known::Absent, rules, done),
        Action::Done(task("c", Ready))
    );
    let over = twice.into_iter().chain([polled("c", Failed)]);
    let failure = Action::Fail(Failure::Failed(task("c", Failed)));
    assert_eq!(last(Known::Absent, rules, over), failure);

    // One that somebody else had requested is followed as well, but only where creating is allowed.
    let others = [found("x", Failed), found("x", Failed)];
    assert_eq!(last(Known::Absent, rules, others.clone()), Action::Create);
    let adopt = Rules {
        may_create: false,
        ..rules
    };
    let failure = Action::Fail(Failure::Failed(task("x", Failed)));
    assert_eq!(
        last(Known::Absent, adopt, others.into_iter().take(1)),
        failure
    );
}

/// The pause after so many polls before it.
fn ten_and_a_half(polls: u32) -> Duration {
    (0..polls).fold(FREE.first_poll, |pause, _| pause + pause / 2)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Random opens, crashes, lost requests, lost answers, lagging lists, ageing tasks: the
    /// cloud never carries a create out beside a live task (asserted in `Cloud::create`), and
    /// none at all where the rules forbid it.
    #[test]
    fn no_history_pays_twice(
        lists in any::<bool>(),
        may_create in prop::bool::weighted(0.9),
        recreate_expired in prop::bool::weighted(0.8),
        recreations in 0..3_u32,
        dice in prop::collection::vec((0..12_usize, 0..LOOKS, any::<usize>()), 1..120),
    ) {
        let rules = Rules { may_create, recreate_expired, recreations, ..FREE };
        let mut cloud = Cloud { tasks: Vec::new(), lists };
        let mut row = Row::default();
        let (mut attempt, mut action) = Attempt::begin(row.known(), rules);
        for (event, hidden, to) in dice {
            if event == 0 {
                cloud.age(to);
                continue;
            }
            if event == 1 {
                // Killed, or ended: the next open begins from the ledger.
                (attempt, action) = Attempt::begin(row.known(), rules);
                continue;
            }
            let told = match &action {
                Action::Find(_) | Action::Retry(_) => match event {
                    2 => Event::FindFailed,
                    _ => Event::Found(cloud.look()),
                },
                Action::Poll(_) => match (event, &row.task) {
                    (2, _) | (_, None) => Event::PollFailed { passing: true },
                    (_, Some(task)) => cloud.poll(&task.id),
                },
                Action::Create => {
                    prop_assert!(may_create);
                    let gone = row.task.as_ref().is_some_and(|t| t.state == TaskState::Expired);
                    prop_assert!(recreate_expired || !gone);
                    row.intended = true;
                    match event {
                        2 => Event::OutcomeUnknown,
                        3 => {
                            cloud.create(hidden);
                            Event::OutcomeUnknown
                        }
                        4 => {
                            cloud.create(hidden);
                            (attempt, action) = Attempt::begin(row.known(), rules);
                            continue;
                        }
                        5 => {
                            (attempt, action) = Attempt::begin(row.known(), rules);
                            continue;
                        }
                        6 | 7 => {
                            row.intended = false;
                            Event::Refused { again_after: (event == 7).then_some(NOW) }
                        }
                        _ => {
                            // The answer is on disk before anything else happens.
                            let made = cloud.create(hidden);
                            row = Row { task: Some(made.clone()), intended: false };
                            Event::Created(made)
                        }
                    }
                }
                Action::Restart(_) | Action::Done(_) | Action::Fail(_) => {
                    (attempt, action) = Attempt::begin(row.known(), rules);
                    continue;
                }
            };
            let step = attempt.on(told);
            if let Some(task) = step.keep {
                row = Row { task: Some(task), intended: false };
            }
            action = step.action;
        }
    }
}
