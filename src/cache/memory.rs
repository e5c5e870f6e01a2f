//! One memory budget in bytes for the whole process.
//!
//! Whoever brings bytes into memory reserves them first and hands the [`Reservation`] on with the
//! bytes; dropping it gives them back. Waiters are served first come, first served, so a large
//! request is not starved by small ones.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// While this much is free nobody waits for memory: larger than what is ever asked at once.
const PLENTY: usize = 32 << 20;

/// The budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    /// One permit is one byte.
    free: Arc<Semaphore>,
    limit: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS as u64);
        Budget {
            free: Arc::new(Semaphore::new(limit as usize)),
            limit,
        }
    }

    /// A budget of `configured` bytes, but at most half of the memory that this machine or this
    /// process's control group may use: a daemon killed for its memory takes the mount with it.
    /// Says so in the log if that is less than configured.
    pub fn within_machine(configured: u64) -> Self {
        let budget = Budget::new(configured.min(machine_memory(Path::new("/")) / 2));
        if budget.limit < configured {
            tracing::info!(
                "memory for reading is {} MiB, not the configured {} MiB: half of what this \
                 machine or control group allows",
                budget.limit >> 20,
                configured >> 20
            );
        }
        budget
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Reserves `bytes` if they are free now.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let bytes = u32::try_from(bytes).ok()?;
        let permit = self.free.clone().try_acquire_many_owned(bytes).ok()?;
        Some(Reservation(permit))
    }

    /// Waits for `bytes`, first come first served; a request above the limit gets the whole limit.
    /// Dropping the future gives up the place in the queue.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let bytes = u32::try_from(bytes.min(self.limit)).unwrap_or(u32::MAX);
        let permit = self.free.clone().acquire_many_owned(bytes).await;
        Reservation(permit.expect("the semaphore is never closed"))
    }

    /// Bytes reserved now: zero when idle.
    pub fn used(&self) -> u64 {
        self.limit - self.free.available_permits() as u64
    }
}

/// Bytes taken from a [`Budget`]; dropping gives them back.
#[derive(Debug)]
pub struct Reservation(OwnedSemaphorePermit);

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.0.num_permits() as u64
    }

    /// Whether so much of the budget is free that nobody waits for this.
    pub fn is_dispensable(&self) -> bool {
        self.0.semaphore().available_permits() >= PLENTY
    }

    /// Takes `bytes` (or what is left) out of this reservation into one of its own.
    pub fn split(&mut self, bytes: u64) -> Reservation {
        let bytes = bytes.min(self.bytes()) as usize;
        Reservation(self.0.split(bytes).expect("no more than what is held"))
    }
}

/// Bytes of memory this process may use: the machine's, or less if a control group says so.
/// `/proc` and `/sys` are those below `root`.
fn machine_memory(root: &Path) -> u64 {
    let info = rustix::system::sysinfo();
    let machine = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
    let read = |path: &Path| fs::read_to_string(root.join(path)).ok();
    let group = read(Path::new("proc/self/cgroup")).and_then(|text| group_limit(&text, read));
    group.map_or(machine, |group| group.min(machine))
}

/// The smallest memory limit from the process's control group up to the root, for both versions
/// (cgroups(7): `memory.max` and `memory.high` in v2, where reaching the latter slows the process
/// down; `memory/…/memory.limit_in_bytes` in v1). `groups` is the text of `/proc/self/cgroup`;
/// `read` takes paths below the root directory.
fn group_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    const V2: (&str, &[&str]) = ("sys/fs/cgroup", &["memory.max", "memory.high"]);
    const V1: (&str, &[&str]) = ("sys/fs/cgroup/memory", &["memory.limit_in_bytes"]);
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (mount, files) = match controllers {
            "" => V2,
            list if list.split(',').any(|name| name == "memory") => V1,
            _ => return None,
        };
        // Inside a container the path may lie outside of what is mounted: the root is tried too.
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        let limits = groups.flat_map(|group| {
            let directory = Path::new(mount).join(group);
            files.iter().map(move |file| directory.join(file))
        });
        // What is not limited says "max".
        limits
            .filter_map(|path| read(&path)?.trim().parse::<u64>().ok())
            .min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    #[test]
    fn reservations_add_up_and_come_back() {
        let budget = Budget::new(1000);
        let a = budget.try_reserve(600).unwrap();
        assert!(budget.try_reserve(401).is_none());
        let b = budget.try_reserve(400).unwrap();
        assert_eq!(budget.used(), 1000);
        drop(a);
        assert_eq!(budget.used(), 400);
        drop(b);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_split_never_exceeds_what_is_held() {
        let budget = Budget::new(100);
        let mut whole = budget.try_reserve(100).unwrap();
        let part = whole.split(30);
        assert_eq!((whole.bytes(), part.bytes()), (70, 30));
        let rest = whole.split(1000);
        assert_eq!((whole.bytes(), rest.bytes()), (0, 70));
        drop((whole, part));
        assert_eq!(budget.used(), 70);
        drop(rest);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_request_above_the_limit_gets_the_whole_limit() {
        let budget = Budget::new(100);
        assert_eq!(budget.reserve(u64::MAX).await.bytes(), 100);
        assert_eq!(Budget::new(0).reserve(1).await.bytes(), 0);
    }

    #[test]
    fn waiters_are_served_in_order() {
        let budget = Budget::new(100);
        let held = budget.try_reserve(50).unwrap();
        let context = &mut Context::from_waker(Waker::noop());
        let mut large = Box::pin(budget.reserve(100));
        assert!(large.as_mut().poll(context).is_pending());
        let mut small = Box::pin(budget.reserve(10));
        assert!(small.as_mut().poll(context).is_pending());
        assert!(budget.try_reserve(10).is_none());
        drop(held);
        assert!(small.as_mut().poll(context).is_pending());
        let Poll::Ready(whole) = large.as_mut().poll(context) else {
            panic!("the first in the queue was not served")
        };
        drop(whole);
        assert!(small.as_mut().poll(context).is_ready());
    }

    #[test]
    fn giving_up_waiting_lets_others_through() {
        let budget = Budget::new(100);
        let held = budget.try_reserve(50).unwrap();
        let context = &mut Context::from_waker(Waker::noop());
        let mut large = Box::pin(budget.reserve(100));
        assert!(large.as_mut().poll(context).is_pending());
        drop(large);
        assert!(budget.try_reserve(50).is_some());
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let v2 = |path: &Path| match path.to_str()? {
            "sys/fs/cgroup/a/b/memory.max" => Some("max\n".to_owned()),
            "sys/fs/cgroup/a/b/memory.high" => Some("2097152\n".to_owned()),
            "sys/fs/cgroup/a/memory.max" => Some("1048576\n".to_owned()),
            "sys/fs/cgroup/c/memory.max" => Some("1048576\n".to_owned()),
            "sys/fs/cgroup/c/memory.high" => Some("524288\n".to_owned()),
            _ => None,
        };
        assert_eq!(group_limit("0::/a/b\n", v2), Some(1 << 20));
        assert_eq!(group_limit("0::/c\n", v2), Some(1 << 19));
        assert_eq!(group_limit("0::/\n", v2), None);
        let v1 = |path: &Path| match path.to_str()? {
            "sys/fs/cgroup/memory/memory.limit_in_bytes" => Some("4096\n".to_owned()),
            _ => None,
        };
        let groups = "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n";
        assert_eq!(group_limit(groups, v1), Some(4096));
        assert_eq!(group_limit("garbage", v1), None);
    }

    #[test]
    fn the_limit_is_read_from_files() {
        let root = tempfile::tempdir().unwrap();
        let unlimited = machine_memory(root.path());
        assert!(unlimited > 1 << 20);
        let files = [
            ("proc/self/cgroup", "0::/system.slice/backups.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
            (
                "sys/fs/cgroup/system.slice/backups.service/memory.max",
                "8388608\n",
            ),
        ];
        for (file, content) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        assert_eq!(machine_memory(root.path()), 8 << 20);
    }

    #[test]
    fn this_machine_has_memory() {
        let budget = Budget::within_machine(u64::MAX);
        assert!(budget.limit() > 1 << 20);
        assert_eq!(Budget::within_machine(4096).limit(), 4096);
    }

    proptest! {
        #[test]
        fn used_is_the_sum_of_what_is_held(
            steps in proptest::collection::vec((0u64..300, any::<u8>(), 0u8..3), 0..100)
        ) {
            let budget = Budget::new(1000);
            let mut held: Vec<Reservation> = Vec::new();
            for (bytes, at, action) in steps {
                let index = usize::from(at) % held.len().max(1);
                match action {
                    0 => held.extend(budget.try_reserve(bytes)),
                    1 if !held.is_empty() => {
                        let part = held[index].split(bytes);
                        held.push(part);
                    }
                    _ if !held.is_empty() => drop(held.swap_remove(index)),
                    _ => {}
                }
                prop_assert_eq!(budget.used(), held.iter().map(Reservation::bytes).sum::<u64>());
            }
            drop(held);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
