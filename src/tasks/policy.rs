//! Who may spend: pure, table-tested.

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
