//! How the simulated UCloud behaves where the documents are silent or contradict each other; the
//! defaults are what is documented, or what its other databases do.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::super::durations::millis;

/// The settings. As JSON, durations are whole milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Whether backups of sharded clusters have links; the manual says that they do not.
    pub sharded_links: bool,
    /// Whether snapshots have.
    pub snapshot_links: bool,
    /// Which of the two addresses a link has.
    pub addresses: Addresses,
    /// The least life of a link, and what becomes of a wish for less.
    #[serde(with = "millis")]
    pub least_life: SignedDuration,
    /// See there.
    pub short_life: ShortLife,
    /// How links are signed, and how their store refuses.
    pub style: Style,
    /// Whether the signature of a link is escaped in it.
    pub escaped_signature: bool,
    /// The status of an answer to an expired link.
    pub expired_status: u16,
    /// Whether a range behind the end gets the whole file with 206; otherwise 416.
    pub whole_for_no_range: bool,
    /// How an empty list is written.
    pub empty_list: EmptyList,
    /// Whether numbers are written as text, the return code among them.
    pub numbers_as_text: bool,
    /// Whether a row of a backup has only what the documents' sample has.
    pub bare_rows: bool,
    /// The word for a backup that is complete.
    pub done: String,
    /// Where logs of operations are listed.
    pub oplogs: Oplogs,
    /// Calls that the key may not make.
    pub denied: Vec<String>,
    /// Calls per second.
    pub calls_per_second: usize,
}

/// The addresses of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addresses {
    /// Both.
    Both,
    /// Only that for the internet.
    Internet,
    /// Only that for the inside of the cloud.
    Intranet,
    /// None, although the call succeeds.
    Neither,
}

/// What becomes of a wish for a shorter life than the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShortLife {
    /// It is raised to the least.
    Raised,
    /// The call is refused.
    Refused,
}

/// How links are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// As US3 does itself; it refuses in JSON.
    Us3,
    /// As S3 does (version 4); it refuses in XML.
    S3,
}

/// How an empty list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyList {
    /// `[]`
    Empty,
    /// `null`
    Null,
    /// Not at all.
    Missing,
}

/// Where logs of operations are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oplogs {
    /// Among the packed logs.
    Packages,
    /// Among the backups.
    Backups,
    /// Nowhere.
    Nowhere,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            sharded_links: true,
            snapshot_links: false,
            addresses: Addresses::Both,
            least_life: SignedDuration::ZERO,
            short_life: ShortLife::Raised,
            style: Style::Us3,
            escaped_signature: false,
            expired_status: 403,
            whole_for_no_range: true,
            empty_list: EmptyList::Empty,
            numbers_as_text: false,
            bare_rows: false,
            done: "Success".to_owned(),
            oplogs: Oplogs::Packages,
            denied: Vec::new(),
            calls_per_second: 50,
        }
    }
}
