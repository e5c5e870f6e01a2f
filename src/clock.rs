//! Wall-clock time as a parameter. Deadlines and waits use tokio's monotonic clock instead.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time of day. Everything that compares with a provider's time takes one of these.
pub trait Clock: Send + Sync + 'static {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;
