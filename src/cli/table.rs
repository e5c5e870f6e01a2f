//! How commands show things to people: aligned columns, short sizes. Pure.

/// Which way a column leans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// `lines` of cells as text with aligned columns, two spaces apart.
pub(super) fn columns<const N: usize>(align: [Align; N], lines: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let cells = line
            .iter()
            .zip(widths)
            .zip(align)
            .map(|((cell, width), align)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// About how many bytes, in at most four digits and a unit: `1023B`, `1.5GiB`, `12TiB`.
pub(super) fn short_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    // Tenths of the unit, rounded, so that 1023.96KiB becomes 1.0MiB.
    let mut tenths = (u128::from(bytes) * 10 + 512) / 1024;
    let mut unit = 0;
    while tenths >= 10240 - 5 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    if tenths < 100 {
        format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{}{}", (tenths + 5) / 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_line_up() {
        let line = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = columns(
            [Align::Left, Align::Right, Align::Left],
            &[line(["é", "1", ""]), line(["long", "100", "x"])],
        );
        assert_eq!(text, "é       1\nlong  100  x\n");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1536, "1.5KiB"),
            (10 * 1024, "10KiB"),
            ((1 << 20) - 1, "1.0MiB"),
            (20 << 20, "20MiB"),
            (3 << 29, "1.5GiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(short_size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn no_size_is_long(bytes in any::<u64>()) {
            prop_assert!(short_size(bytes).len() <= 7);
        }
    }
}
