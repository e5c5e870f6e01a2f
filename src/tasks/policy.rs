//! Who may spend: pure, table-tested.
//!
//! Looking is free and an existing task is free; only creating one can cost money. [`decide`] says
//! how far an open may go, [`Denials`] keeps the log from repeating itself. Process names can be
//! forged: this guards the bill, it is not a security boundary.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::OnOpen;
use crate::error::one_line;

/// A limit on creates counts those of this much time before now.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One denial per process name is logged in this time.
const QUIET: Duration = Duration::from_secs(60 * 60);

/// The kernel keeps this many bytes of a process name (TASK_COMM_LEN less the final NUL, proc(5)).
const COMM_LEN: usize = 15;

/// Who asks for bytes, as far as the kernel tells.
#[derive(Debug, Clone, Default)]
pub struct Spender {
    /// Process (thread) id in our namespace; 0 when unknown.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// `comm` of the process, where it can be read.
    pub comm: Option<String>,
}

/// What the configuration says about spending.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// What an open may do about a missing task.
    pub on_open: OnOpen,
    /// Process names that may not spend.
    pub deny_processes: &'a [String],
    /// The only users that may spend, by their ids; empty for all.
    pub spend_uids: &'a [u32],
    /// Whether an expired task may be created again by a new open.
    pub recreate_expired: bool,
    /// Most tasks created in [`DAY`]; 0 = no limit.
    pub max_tasks_per_day: u32,
}

/// What the ledger knows of the task when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Its artifact can be linked.
    Ready,
    /// Its artifact is gone.
    Expired,
    /// Anything else: none, under way, failed, in doubt.
    Other,
}

/// How far an open may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Adopt a task, create one if there is none.
    Spend,
    /// Use an existing task; the reason is for the case that there is none.
    AdoptOnly(String),
    /// Not even that, for this reason.
    Deny(String),
}

/// How far an open by `spender` may go, when `created` tasks were created in the last [`DAY`].
pub fn decide(rules: &Rules<'_>, spender: &Spender, known: Known, created: u32) -> Verdict {
    if rules.on_open == OnOpen::Never {
        return Verdict::Deny("on_open = \"never\": this mount uses no download tasks".into());
    }
    if let Some(reason) = denied(rules, spender) {
        return match known {
            Known::Ready => Verdict::AdoptOnly(reason),
            Known::Expired | Known::Other => Verdict::Deny(reason),
        };
    }
    if rules.on_open == OnOpen::Adopt {
        return Verdict::AdoptOnly(
            "on_open = \"adopt\": only a download task that exists already is used".into(),
        );
    }
    if known == Known::Expired && !rules.recreate_expired {
        return Verdict::AdoptOnly(
            "the artifact of its download task is gone, and recreate_expired = false".into(),
        );
    }
    if rules.max_tasks_per_day > 0 && created >= rules.max_tasks_per_day {
        return Verdict::AdoptOnly(limit_reached(rules.max_tasks_per_day));
    }
    Verdict::Spend
}

/// Why `spender` may do no more than look, if so.
fn denied(rules: &Rules<'_>, spender: &Spender) -> Option<String> {
    let who = if let Some(name) = denied_process(rules.deny_processes, spender) {
        format!("process `{}` is in deny_processes", one_line(name))
    } else if !rules.spend_uids.is_empty() && !rules.spend_uids.contains(&spender.uid) {
        format!("user {} is not in spend_uids", spender.uid)
    } else {
        return None;
    };
    Some(format!(
        "{who}: it may look but not have a download task made or wait for one"
    ))
}

/// Why no task is created once `max_tasks_per_day` is reached.
pub fn limit_reached(limit: u32) -> String {
    format!(
        "max_tasks_per_day = {limit}: that many download tasks were created in the last 24 hours"
    )
}

/// The listed name that `spender` goes by, if any. Both sides are cut as the kernel cuts.
fn denied_process<'a>(names: &'a [String], spender: &Spender) -> Option<&'a str> {
    let comm = spender.comm.as_deref()?;
    names
        .iter()
        .map(String::as_str)
        .find(|name| !name.is_empty() && cut(name) == cut(comm))
}

fn cut(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(COMM_LEN)]
}

/// When each process name's denial was last logged.
#[derive(Debug, Default)]
pub struct Denials {
    logged: HashMap<String, Timestamp>,
}

impl Denials {
    /// Whether the denial of `name` at `now` is to be logged: the first in an hour is.
    pub fn first(&mut self, name: &str, now: Timestamp) -> bool {
        // A clock that went back counts as "long ago": better a line too many.
        self.logged
            .retain(|_, at| now.duration_since(*at).unsigned_abs() < QUIET);
        if self.logged.contains_key(name) {
            return false;
        }
        self.logged.insert(name.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(on_open: OnOpen, deny: &[String]) -> Rules<'_> {
        Rules {
            on_open,
            deny_processes: deny,
            spend_uids: &[],
            recreate_expired: true,
            max_tasks_per_day: 0,
        }
    }

    fn process(comm: &str) -> Spender {
        Spender {
            comm: Some(comm.into()),
            ..Spender::default()
        }
    }

    /// The verdict without its words.
    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Spend => "spend",
            Verdict::AdoptOnly(_) => "adopt",
            Verdict::Deny(_) => "deny",
        }
    }

    #[test]
    fn verdicts() {
        use Known::{Expired, Other, Ready};
        use OnOpen::{Adopt, Create, Never};
        let table = [
            // on_open, comm, known, recreate_expired, limit, created -> verdict
            (Create, "cp", Other, true, 0, 1000, "spend"),
            (Create, "cp", Expired, true, 0, 0, "spend"),
            (Create, "cp", Expired, false, 0, 0, "adopt"),
            (Create, "cp", Other, false, 0, 0, "spend"),
            (Create, "cp", Other, true, 2, 1, "spend"),
            (Create, "cp", Other, true, 2, 2, "adopt"),
            (Create, "cp", Other, true, 2, 3, "adopt"),
            (Create, "updatedb", Other, true, 0, 0, "deny"),
            (Create, "updatedb", Expired, true, 0, 0, "deny"),
            (Create, "updatedb", Ready, true, 0, 0, "adopt"),
            (Create, "tracker-miner-f", Other, true, 0, 0, "deny"),
            (Create, "tracker-miner-", Other, true, 0, 0, "spend"),
            (Create, "updatedb2", Other, true, 0, 0, "spend"),
            (Create, "UPDATEDB", Other, true, 0, 0, "spend"),
            (Adopt, "cp", Other, true, 0, 0, "adopt"),
            (Adopt, "updatedb", Other, true, 0, 0, "deny"),
            (Never, "cp", Ready, true, 0, 0, "deny"),
            (Never, "updatedb", Ready, true, 0, 0, "deny"),
        ];
        let deny = ["updatedb".to_owned(), "tracker-miner-fs-3".to_owned()];
        for (on_open, comm, known, recreate_expired, max_tasks_per_day, created, expected) in table
        {
            let rules = Rules {
                recreate_expired,
                max_tasks_per_day,
                ..rules(on_open, &deny)
            };
            let verdict = decide(&rules, &process(comm), known, created);
            assert_eq!(
                word(&verdict),
                expected,
                "{on_open:?} {comm} {known:?}: {verdict:?}"
            );
        }
    }

    #[test]
    fn only_the_users_named_may_spend() {
        let by = |uid, spend_uids, known| {
            let rules = Rules {
                spend_uids,
                ..rules(OnOpen::Create, &[])
            };
            let spender = Spender {
                uid,
                ..process("cp")
            };
            word(&decide(&rules, &spender, known, 0))
        };
        for (uid, spend_uids, known, expected) in [
            (1000, &[][..], Known::Other, "spend"),
            (1000, &[1000], Known::Other, "spend"),
            (1000, &[0, 1000], Known::Expired, "spend"),
            (1001, &[0, 1000], Known::Other, "deny"),
            (1001, &[0, 1000], Known::Expired, "deny"),
            (1001, &[0, 1000], Known::Ready, "adopt"),
            (0, &[1000], Known::Other, "deny"),
        ] {
            assert_eq!(by(uid, spend_uids, known), expected, "{uid} {spend_uids:?}");
        }
    }

    #[test]
    fn a_process_without_a_name_may_spend() {
        let deny = ["updatedb".to_owned(), String::new()];
        let rules = rules(OnOpen::Create, &deny);
        for spender in [Spender::default(), process("")] {
            assert_eq!(decide(&rules, &spender, Known::Other, 0), Verdict::Spend);
        }
    }

    #[test]
    fn names_are_cut_by_bytes_even_inside_a_character() {
        let deny = ["ééééééééé".to_owned()];
        let rules = rules(OnOpen::Create, &deny);
        let verdict = decide(&rules, &process("ééééééééé-and-more"), Known::Other, 0);
        assert_eq!(word(&verdict), "deny");
    }

    #[test]
    fn case_08_one_log_line_per_name_and_hour() {
        let mut denials = Denials::default();
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        let minutes = |m: i64| start + jiff::SignedDuration::from_mins(m);
        assert!(denials.first("updatedb", start));
        assert!(!denials.first("updatedb", minutes(59)));
        assert!(denials.first("baloo_file", minutes(59)));
        assert!(denials.first("updatedb", minutes(60)));
        assert!(!denials.first("updatedb", minutes(61)));
        assert!(
            denials.first("updatedb", minutes(-100)),
            "after the clock went back"
        );
    }
}
