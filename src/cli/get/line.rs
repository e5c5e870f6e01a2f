//! The lines that bars are, laid out for the width of the terminal. Pure.
//!
//! No line is wider than the terminal, or it would wrap and could not be drawn over. What does not
//! fit is left out: details from the last one on, and the middle of a path.

use crate::cli::table::{short_size, short_time};

/// Columns that the name of a file keeps before details are left out.
const NAME: usize = 20;
/// Columns that the bar itself keeps before details are left out.
const BAR: usize = 10;
/// Between two details.
const GAP: &str = "  ";

/// A file: its path at the left, `details`, the most important first, at the right.
pub(super) fn file(width: usize, path: &str, details: &[String]) -> String {
    let name = path.chars().count();
    let details = fitting(details, width.saturating_sub(name.min(NAME) + GAP.len()));
    if details.is_empty() {
        return elided(path, width);
    }
    let room = width - details.chars().count() - GAP.len();
    format!("{:<room$}{GAP}{details}", elided(path, room))
}

/// All files: a bar of which `done`, 0 to 1, is filled, and `details`.
pub(super) fn total(width: usize, done: f64, details: &[String]) -> String {
    // Its brackets and the blank behind it.
    let frame = 3;
    let details = fitting(details, width.saturating_sub(BAR + frame));
    let room = width.saturating_sub(details.chars().count() + frame);
    if room == 0 {
        return details;
    }
    let filled = ((room as f64 * done.clamp(0.0, 1.0)) as usize).min(room);
    let tip = if filled < room { ">" } else { "" };
    let bar = format!("{}{tip}", "=".repeat(filled));
    format!("[{bar:<room$}] {details}").trim_end().to_owned()
}

/// What is told of bytes on their way: `here` of `size`, at so many a second.
pub(super) fn details(here: u64, size: u64, rate: f64) -> Vec<String> {
    let percent = (u128::from(here) * 100)
        .checked_div(size.into())
        .unwrap_or(100);
    let mut details = vec![
        format!("{percent:>3} %"),
        format!("{} of {}", short_size(here), short_size(size)),
    ];
    if rate >= 1.0 && here < size {
        details.push(format!("{}/s", short_size(rate as u64)));
        let seconds = (size.saturating_sub(here) as f64 / rate).ceil();
        details.push(format!("{} left", short_time(seconds as i64)));
    }
    details
}

/// As many of `details`, from the first on, as `room` columns hold.
fn fitting(details: &[String], room: usize) -> String {
    let mut text = String::new();
    for detail in details {
        let gap = if text.is_empty() { "" } else { GAP };
        if text.chars().count() + gap.len() + detail.chars().count() > room {
            break;
        }
        text = format!("{text}{gap}{detail}");
    }
    text
}

/// `path` in at most `width` columns: of what is too long its first directories and its last name
/// are kept, or at least the end of that.
fn elided(path: &str, width: usize) -> String {
    let length = |text: &str| text.chars().count();
    if length(path) <= width {
        return path.to_owned();
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let ends = path.match_indices('/').map(|(at, _)| &path[..=at]);
    let shortened = ends.map(|first| format!("{first}…/{name}"));
    let fits = |text: &String| length(text) <= width;
    if let Some(longest) = shortened.take_while(fits).last() {
        return longest;
    }
    let end: String = match width.checked_sub(1) {
        None => return String::new(),
        Some(kept) => name
            .chars()
            .skip(length(name).saturating_sub(kept))
            .collect(),
    };
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATH: &str = "shop/orders/20260105T140000Z-17/rs0/orders.tgz";

    fn owned(details: &[&str]) -> Vec<String> {
        details.iter().map(|&detail| detail.to_owned()).collect()
    }

    #[test]
    fn a_line_tells_what_it_has_room_for() {
        let details = details(3 << 20, 12 << 20, 1.5e6);
        for (width, line) in [
            (
                90,
                "shop/orders/20260105T140000Z-17/rs0/orders.tgz    25 %  3.0MiB of 12MiB  1.4MiB/s  7s left",
            ),
            (
                80,
                "shop/orders/…/orders.tgz                25 %  3.0MiB of 12MiB  1.4MiB/s  7s left",
            ),
            (50, "shop/orders/…/orders.tgz     25 %  3.0MiB of 12MiB"),
            (40, "shop/orders/…/orders.tgz            25 %"),
            (20, "shop/…/orders.tgz"),
            (8, "…ers.tgz"),
        ] {
            assert_eq!(file(width, PATH, &details), line, "{width}");
        }
    }

    #[test]
    fn a_total_keeps_its_bar() {
        let details = owned(&["50 %", "1 of 2 files", "3.0MiB of 6.0MiB"]);
        for (width, line) in [
            (
                57,
                "[=========>        ] 50 %  1 of 2 files  3.0MiB of 6.0MiB",
            ),
            (37, "[========>       ] 50 %  1 of 2 files"),
            (17, "[=====>    ] 50 %"),
            (3, ""),
        ] {
            assert_eq!(total(width, 0.5, &details), line, "{width}");
        }
        assert_eq!(total(17, 1.0, &[]), "[==============]");
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(details(0, 0, 0.0), owned(&["100 %", "0B of 0B"]));
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide(
            width in 0_usize..200,
            path in "[a-zé/.-]{0,120}",
            here in any::<u64>(),
            size in any::<u64>(),
            rate in any::<f64>(),
        ) {
            let details = details(here, size, rate);
            prop_assert!(file(width, &path, &details).chars().count() <= width);
            let total = total(width, here as f64 / size as f64, &details);
            prop_assert!(total.chars().count() <= width);
        }
    }
}
