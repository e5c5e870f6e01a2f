//! What operators see: logs, events, metrics, the status document.
