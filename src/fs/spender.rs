//! Who opens a file, as the policy of spending wants to know it.

use super::Caller;
use crate::tasks::Spender;

/// Who would spend, with the name of its process as far as /proc tells.
pub(super) fn spender(caller: &Caller) -> Spender {
    Spender {
        pid: caller.pid,
        uid: caller.uid,
        comm: process_name(caller.pid),
    }
}

/// `comm` of the process that thread `tid` belongs to, where /proc tells; it never blocks.
pub fn process_name(tid: u32) -> Option<String> {
    if tid == 0 {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let leader = status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))?
        .trim();
    let comm = std::fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
    Some(comm.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_goes_by_the_name_of_its_process() {
        let leader = std::fs::read_to_string(format!("/proc/{}/comm", std::process::id())).unwrap();
        let named = std::thread::Builder::new()
            .name("someone-else".into())
            .spawn(|| process_name(rustix::thread::gettid().as_raw_nonzero().get() as u32))
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(named.as_deref(), Some(leader.trim_end()));
        assert_eq!(process_name(0), None);
        assert_eq!(process_name(u32::MAX), None);
    }
}
