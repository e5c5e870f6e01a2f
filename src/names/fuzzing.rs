//! Names that somebody else chose.

use super::*;

/// Each line is remote text: its component is safe, tells it from every other, and leads back.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let remotes: Vec<&str> = text.split('\n').take(64).collect();
    let components: Vec<String> = remotes.iter().map(|remote| component(remote)).collect();
    for (remote, name) in remotes.iter().zip(&components) {
        assert_safe(name);
        match original(name) {
            Some(back) => assert_eq!(&back, remote),
            None => assert!(name.contains(DIGEST_MARK), "{name:?}"),
        }
        // The text itself taken for a component.
        if let Some(back) = original(remote) {
            assert_eq!(component(&back), *remote);
        }
        assert_safe(&backup_name(Timestamp::UNIX_EPOCH, remote));
        assert!(
            !display(remote)
                .chars()
                .any(|c| c.is_control() || is_invisible(c))
        );
    }
    for (a, first) in remotes.iter().zip(&components) {
        for (b, second) in remotes.iter().zip(&components) {
            assert_eq!(a == b, first == second, "{a:?} and {b:?}");
        }
    }
    let entries: Vec<(&String, &&str)> = components.iter().zip(&remotes).collect();
    let told_apart = unique(&entries);
    let different: std::collections::HashSet<&String> = told_apart.iter().collect();
    assert_eq!(different.len(), entries.len());
    told_apart.iter().for_each(|name| assert_safe(name));
}

fn assert_safe(name: &str) {
    let safe = !name.is_empty()
        && !name.starts_with('.')
        && !name.contains('/')
        && !name.chars().any(char::is_control)
        && name.len() <= MAX_BYTES;
    assert!(safe, "{name:?}");
}
