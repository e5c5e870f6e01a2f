//! What it means that a store refuses a link straight after its refresh. Pure.

use jiff::SignedDuration;

use crate::error::{Error, Kind};

/// How a store turned a link down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not with this signature, from here, at this time (401, 403, some 400).
    Denied,
    /// There is nothing at that address (404, 410).
    Gone,
}

/// What is known of a refused link.
#[derive(Debug, Clone, Copy)]
pub(super) struct History {
    /// Its expiry is past, by the data host's clock; unknown where it has none.
    pub(super) over: Option<bool>,
    /// The provider named the same address as the time before.
    pub(super) repeated: bool,
    /// The address was accepted at least once.
    pub(super) worked: bool,
}

/// The error for everybody who holds the link. `skew` is how far our clock is from the host's,
/// `hint` what the provider knows about its store.
///
/// [`Kind::Expired`] may lead to a new task, which costs money: where in doubt it is
/// [`Kind::Credentials`].
pub(super) fn verdict(
    how: Refusal,
    history: History,
    skew: SignedDuration,
    hint: Option<&str>,
) -> Error {
    let History {
        over,
        repeated,
        worked,
    } = history;
    let spent = repeated && (worked || over.is_none());
    if how == Refusal::Gone || over == Some(true) || spent {
        return Error::new(
            Kind::Expired,
            "the provider has no newer link and this one no longer works: the artifact's time is \
             over",
        );
    }
    let clock = match skew.as_secs() {
        0 => String::new(),
        off => format!(" (it differs from the store's by {} s)", off.abs()),
    };
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    Error::new(
        Kind::Credentials,
        format!(
            "the store refuses even a fresh link: perhaps this machine's address is not allowed \
             there, its clock is wrong{clock}, or the key may not download{hint}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_38_expired_only_where_there_is_no_doubt() {
        let (denied, gone) = (Refusal::Denied, Refusal::Gone);
        let (past, ahead, unknown) = (Some(true), Some(false), None);
        for (how, over, repeated, worked, want) in [
            (gone, ahead, false, false, Kind::Expired),
            (denied, past, false, false, Kind::Expired),
            (denied, ahead, true, true, Kind::Expired),
            (denied, unknown, true, false, Kind::Expired),
            (denied, ahead, true, false, Kind::Credentials),
            (denied, ahead, false, true, Kind::Credentials),
            (denied, unknown, false, false, Kind::Credentials),
        ] {
            let history = History {
                over,
                repeated,
                worked,
            };
            let error = verdict(how, history, SignedDuration::ZERO, None);
            assert_eq!(error.kind(), want, "{how:?} {history:?}");
        }
    }

    #[test]
    fn a_clock_that_differs_is_named() {
        let history = History {
            over: None,
            repeated: false,
            worked: false,
        };
        let skew = SignedDuration::from_secs(-600);
        let error = verdict(Refusal::Denied, history, skew, Some("ask the network"));
        assert!(error.to_string().contains("by 600 s"), "{error}");
        assert!(error.to_string().ends_with("; ask the network"), "{error}");
    }
}
