//! One memory budget in bytes for the whole process.

/// The budget. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(_limit: u64) -> Self {
        todo!()
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        todo!()
    }

    /// Reserves `bytes` if they are free now.
    pub fn try_reserve(&self, _bytes: u64) -> Option<Reservation> {
        todo!()
    }

    /// Waits for `bytes`, first come first served; a request above the limit gets the whole limit.
    pub async fn reserve(&self, _bytes: u64) -> Reservation {
        todo!()
    }

    /// Bytes reserved now: zero when idle.
    pub fn used(&self) -> u64 {
        todo!()
    }
}

/// Bytes taken from a [`Budget`]; dropping gives them back.
#[derive(Debug)]
pub struct Reservation {}

impl Reservation {
    /// Takes `bytes` (or what is left) out of this reservation into one of its own.
    pub fn split(&mut self, _bytes: u64) -> Reservation {
        todo!()
    }
}
