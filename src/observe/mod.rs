//! What operators see: logs, events, metrics, the status document. A leaf: anyone may import it.

pub mod events;
pub mod kernel;
pub mod logs;
pub mod metrics;
pub mod sink;
pub mod status;
