//! A backup kept as a folder of many small objects. Their names go wrong wherever a key is escaped
//! twice, or not at all, or taken for a path of some other system. Pure: a function of the number.

use super::content::Content;

/// The directory below which such a backup keeps its databases.
const TOP: &str = "1544517027220146694";

/// Sizes: nothing, one byte, and enough for a client to ask for.
const SIZES: [u64; 4] = [0, 1, 700, 5000];

/// The objects numbered from 0 to `count`, by their path below the folder.
pub fn many_objects(count: u64) -> impl Iterator<Item = (String, Content)> {
    (0..count).map(|number| {
        let path = format!("{TOP}/{}/{}", directory(number), file(number));
        let size = SIZES[(number % SIZES.len() as u64) as usize];
        (path, Content::noise(number, size))
    })
}

/// Each directory holds files of every kind: there are seven of the ones, eleven of the others.
fn directory(number: u64) -> String {
    match number % 7 {
        0 => "shop".to_owned(),
        1 => "year 2018+2019".to_owned(),
        2 => "100% done%25".to_owned(),
        3 => "目录/备 份".to_owned(),
        4 => "a&b=c/d;e@f".to_owned(),
        5 => format!("deep/er/and/deep er/{}", number % 3),
        _ => "UPPER/upper".to_owned(),
    }
}

fn file(number: u64) -> String {
    match number % 11 {
        0 => format!("c{number:04}.bson.gz"),
        1 => format!("sp ace {number}.bson.gz"),
        2 => format!("plus+{number}+%2B.bson.gz"),
        3 => format!("{number}% sure %25.bson.gz"),
        4 => format!("备份 {number}.bson.gz"),
        // Two ways to write the same letter are two names.
        5 if number.is_multiple_of(2) => format!("\u{e9} {}.bson.gz", number / 2),
        5 => format!("e\u{301} {}.bson.gz", number / 2),
        6 => format!("what?#{number}.bson.gz"),
        7 => format!("quote'and\"quote {number}.bson.gz"),
        8 => format!("star*({number})!~$,[]{{}}.bson.gz"),
        9 => format!("back\\slash {number}.bson.gz"),
        _ => format!("<{number}>|^`:.metadata.json.gz"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_object_has_a_path_of_its_own() {
        let paths: BTreeSet<String> = many_objects(2500).map(|(path, _)| path).collect();
        assert_eq!(paths.len(), 2500);
        let as_directory = |path: &String| paths.contains(&format!("{path}/"));
        assert!(!paths.iter().any(as_directory));
        for part in [" ", "+", "%", "目", "备", "\u{301}", "?", "#", "\\", "\""] {
            assert!(paths.iter().any(|path| path.contains(part)), "{part}");
        }
    }
}
