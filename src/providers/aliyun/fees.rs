//! What is known of prices, each with its source: estimates, never the bill.

/// A price for a unit of data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fee {
    /// US dollars for a gigabyte.
    pub usd_per_gb: f64,
    /// Where it is published, and when it was read there.
    pub source: &'static str,
}

/// Converting a snapshot of a cloud disk into a file, on the public cloud; due when it succeeds. What
/// counts as the size is not published.
pub const CONVERSION: Fee = Fee {
    usd_per_gb: 0.03125,
    source: "Alibaba Cloud, ApsaraDB for MongoDB, \"Download backup files\", 28 March 2026",
};
