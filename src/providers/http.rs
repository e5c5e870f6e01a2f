//! API calls: one client per account with limits, deadlines, retries and clock skew.
