//! Which blocked callers have been asked to stop.
//!
//! fuser answers `FUSE_INTERRUPT` with ENOSYS, after which the kernel no longer tells us about
//! signals and a caller waits for our reply whatever it is sent, SIGKILL included. So we look for
//! ourselves: one task reads `/proc/<tid>/status` of every blocked caller a few times a second and
//! wakes the operations whose caller has a signal to take, or is gone. The task owns the only
//! timer; [`Interrupts`] owns the table of watched callers behind one lock, held for moments only.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

/// An operation this young is not watched: most end sooner.
const GRACE: Duration = Duration::from_millis(50);
/// Pause between two looks at the callers.
const PERIOD: Duration = Duration::from_millis(50);
/// The pause grows with the cost of a look, to keep that below a tenth of one processor, but never
/// beyond this: a signal must be noticed well within a second.
const LONGEST_PERIOD: Duration = Duration::from_millis(250);

/// The watch over all blocked callers. Cheap to clone; the task ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Interrupts {
    watched: Arc<Watched>,
    _task: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug, Default)]
struct Watched {
    callers: Mutex<HashMap<u32, Caller>>,
    /// Tells the task that the table is no longer empty.
    occupied: Notify,
}

#[derive(Debug, Default)]
struct Caller {
    operations: usize,
    signalled: Arc<Notify>,
}

impl Interrupts {
    /// Starts the watching task on `runtime`.
    pub(super) fn start(runtime: &Handle) -> Self {
        let watched = Arc::new(Watched::default());
        let task = runtime.spawn(watch(Arc::clone(&watched)));
        Interrupts {
            watched,
            _task: Arc::new(AbortOnDropHandle::new(task)),
        }
    }

    /// Resolves when the thread `tid` has a signal to take or is gone; never for 0, which is what
    /// the kernel says of callers that are not visible in our pid namespace.
    pub(super) async fn signalled(&self, tid: u32) {
        if tid == 0 {
            return std::future::pending().await;
        }
        sleep(GRACE).await;
        let registration = Registration::new(&self.watched, tid);
        registration.signalled.notified().await;
    }
}

/// One operation's entry in the table, for as long as it waits.
struct Registration<'a> {
    watched: &'a Watched,
    tid: u32,
    signalled: Arc<Notify>,
}

impl<'a> Registration<'a> {
    fn new(watched: &'a Watched, tid: u32) -> Self {
        let mut callers = watched.lock();
        let caller = callers.entry(tid).or_default();
        caller.operations += 1;
        let signalled = Arc::clone(&caller.signalled);
        drop(callers);
        watched.occupied.notify_one();
        Registration {
            watched,
            tid,
            signalled,
        }
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut callers = self.watched.lock();
        if let Some(caller) = callers.get_mut(&self.tid) {
            caller.operations -= 1;
            if caller.operations == 0 {
                callers.remove(&self.tid);
            }
        }
    }
}

impl Watched {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Caller>> {
        // Every update is a single step, so a panicking holder leaves nothing half done.
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tids(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }
}

/// Looks at all watched callers again and again, each once however many operations it blocks in.
async fn watch(watched: Arc<Watched>) {
    if !proc_is_ours() {
        tracing::warn!(
            "/proc does not show our own processes: a blocked operation ends by its deadline only"
        );
        return;
    }
    let mut pause = PERIOD;
    loop {
        if watched.lock().is_empty() {
            watched.occupied.notified().await;
        }
        sleep(pause).await;
        let tids = watched.tids();
        let began = Instant::now();
        let looked = tokio::task::spawn_blocking(move || {
            let mut tids = tids;
            tids.retain(|&tid| must_stop(tid));
            tids
        });
        let Ok(stopped) = looked.await else { return };
        pause = (began.elapsed() * 9).clamp(PERIOD, LONGEST_PERIOD);
        let callers = watched.lock();
        for caller in stopped.iter().filter_map(|tid| callers.get(tid)) {
            // A waiter that registers after this is met by the next look.
            caller.signalled.notify_waiters();
        }
    }
}

/// Whether `/proc` belongs to our pid namespace; else thread ids would name strangers.
fn proc_is_ours() -> bool {
    fs::read_link("/proc/self")
        .is_ok_and(|target| target.to_str() == Some(&std::process::id().to_string()))
}

/// Whether the thread has a signal to take, or is gone. When nothing can be learnt (hidepid), no.
fn must_stop(tid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => Status::parse(&status).is_some_and(Status::must_stop),
        Err(_) => i32::try_from(tid)
            .ok()
            .and_then(Pid::from_raw)
            .is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH)),
    }
}

/// The lines of `/proc/<tid>/status` that matter here (proc_pid_status(5)); bit n-1 is signal n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Status {
    ended: bool,
    pending: u64,
    blocked: u64,
    ignored: u64,
}

impl Status {
    /// `None` if a line is missing or malformed.
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let mask = |name| u64::from_str_radix(field(name)?, 16).ok();
        Some(Status {
            ended: field("State")?.starts_with(['Z', 'X']),
            pending: mask("SigPnd")? | mask("ShdPnd")?,
            blocked: mask("SigBlk")?,
            ignored: mask("SigIgn")?,
        })
    }

    /// Whether the thread must get back to user space: it has ended, or a signal is pending that
    /// it neither blocks nor ignores and that is more than a notice.
    ///
    /// A fatal signal counts however it is handled otherwise: the kernel turns it into a pending
    /// SIGKILL for every thread of the process, which nobody can block.
    fn must_stop(self) -> bool {
        self.ended || self.pending & !self.blocked & !self.ignored & !NOTICES != 0
    }
}

/// Signals that do not ask a program to give up waiting. By default they are ignored or stop the
/// process until it is continued; even where a handler takes them (a child ended, the window
/// changed its size, a profiler ticks) EINTR would do harm, because the kernel cannot restart a
/// FUSE request as it restarts other calls: a copy would fail, a page fault would be a SIGBUS.
const NOTICES: u64 = mask(&[
    libc::SIGCHLD,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGCONT,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGPROF,
    libc::SIGVTALRM,
]);

const fn mask(signals: &[i32]) -> u64 {
    let mut mask = 0;
    let mut i = 0;
    while i < signals.len() {
        mask |= 1 << (signals[i] - 1);
        i += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(
        state: &str,
        thread: &[i32],
        process: &[i32],
        blocked: &[i32],
        ignored: &[i32],
    ) -> String {
        format!(
            "Name:\tcat\nUmask:\t0022\nState:\t{state}\nTgid:\t7\nSigQ:\t1/95\nSigPnd:\t{:016x}\n\
             ShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\nCapInh:\t0\n",
            mask(thread),
            mask(process),
            mask(blocked),
            mask(ignored),
            u64::MAX,
        )
    }

    #[test]
    fn a_deliverable_signal_stops_and_a_notice_does_not() {
        use libc::*;
        let waiting = "D (disk sleep)";
        let table: &[(&str, String, bool)] = &[
            ("nothing", text(waiting, &[], &[], &[], &[]), false),
            ("SIGINT", text(waiting, &[], &[SIGINT], &[], &[]), true),
            ("SIGTERM", text(waiting, &[], &[SIGTERM], &[], &[]), true),
            (
                "SIGHUP to one thread",
                text(waiting, &[SIGHUP], &[], &[], &[]),
                true,
            ),
            ("SIGKILL", text(waiting, &[SIGKILL], &[], &[], &[]), true),
            ("SIGALRM", text(waiting, &[], &[SIGALRM], &[], &[]), true),
            ("SIGUSR1", text(waiting, &[], &[SIGUSR1], &[], &[]), true),
            (
                "a real-time signal",
                text(waiting, &[64], &[], &[], &[]),
                true,
            ),
            (
                "SIGINT blocked",
                text(waiting, &[], &[SIGINT], &[SIGINT], &[]),
                false,
            ),
            (
                "SIGINT ignored",
                text(waiting, &[], &[SIGINT], &[], &[SIGINT]),
                false,
            ),
            (
                "SIGKILL with all blocked",
                text(waiting, &[SIGKILL], &[], &[SIGINT, SIGTERM], &[]),
                true,
            ),
            (
                "one blocked, one not",
                text(waiting, &[], &[SIGINT, SIGTERM], &[SIGINT], &[]),
                true,
            ),
            ("SIGCHLD", text(waiting, &[], &[SIGCHLD], &[], &[]), false),
            ("SIGWINCH", text(waiting, &[], &[SIGWINCH], &[], &[]), false),
            ("SIGURG", text(waiting, &[SIGURG], &[], &[], &[]), false),
            ("SIGSTOP", text(waiting, &[], &[SIGSTOP], &[], &[]), false),
            ("SIGCONT", text(waiting, &[], &[SIGCONT], &[], &[]), false),
            ("SIGTSTP", text(waiting, &[], &[SIGTSTP], &[], &[]), false),
            (
                "stopped and then interrupted",
                text(waiting, &[], &[SIGSTOP, SIGINT], &[], &[]),
                true,
            ),
            ("stopped", text("T (stopped)", &[], &[], &[], &[]), false),
            ("a zombie", text("Z (zombie)", &[], &[], &[], &[]), true),
            ("dead", text("X (dead)", &[], &[], &[], &[]), true),
        ];
        for (what, status, expected) in table {
            let status = Status::parse(status).expect(what);
            assert_eq!(status.must_stop(), *expected, "{what}: {status:x?}");
        }
    }

    #[test]
    fn a_text_without_the_lines_is_no_status() {
        assert_eq!(Status::parse(""), None);
        assert_eq!(Status::parse("State:\tS (sleeping)\nSigPnd:\txyz\n"), None);
        let whole = text("S", &[], &[], &[], &[]);
        assert!(Status::parse(&whole.replace("SigBlk", "SigBlx")).is_none());
    }

    #[test]
    fn the_kernel_writes_what_we_parse() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(!Status::parse(&status).unwrap().ended);
        assert!(proc_is_ours());
    }

    #[tokio::test]
    async fn a_caller_that_is_gone_is_signalled_and_leaves_the_table() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let interrupts = Interrupts::start(&Handle::current());
        let waiter = tokio::spawn({
            let interrupts = interrupts.clone();
            let tid = child.id();
            async move { interrupts.signalled(tid).await }
        });
        let again = interrupts.signalled(child.id());
        assert!(
            tokio::time::timeout(Duration::from_millis(300), again)
                .await
                .is_err(),
            "a healthy caller is left alone"
        );
        child.kill().unwrap();
        // Not reaped yet: a zombie is as gone as can be.
        tokio::time::timeout(Duration::from_secs(1), waiter)
            .await
            .unwrap()
            .unwrap();
        child.wait().unwrap();
        tokio::time::timeout(Duration::from_secs(1), interrupts.signalled(child.id()))
            .await
            .unwrap();
        assert!(interrupts.watched.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_invisible_caller_is_never_signalled() {
        let interrupts = Interrupts::start(&Handle::current());
        let wait = tokio::time::timeout(Duration::from_secs(3600), interrupts.signalled(0));
        assert!(wait.await.is_err());
    }
}
