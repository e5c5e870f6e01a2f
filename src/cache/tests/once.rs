//! What comes only once: kept until its last reader is gone, handed on, and refused in time.

use super::*;
use crate::cache::UNSEALED;
use crate::error::Kind;

/// A version that a one-time download brought, of `size` bytes.
fn spooled(seed: u64, size: u64) -> Sample {
    let mut sample = Sample::new(seed, size);
    sample.validator.download = Some(seed.to_string());
    sample
}

#[tokio::test]
async fn an_heir_has_the_first_blocks_and_nothing_is_left_of_the_other() {
    for (size, handed) in [(UNSEALED, 9), (30 * BLOCK_SIZE, 4)] {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        let before = spooled(1, size);
        let artifact = before.open(&cache);
        for block in 0..9 {
            assert!(before.write(&artifact, block));
        }
        cache.flush().await;
        // The same bytes under another name.
        let mut heir = spooled(1, handed * BLOCK_SIZE + 5);
        heir.validator.download = Some("heir".to_owned());
        let inherited = cache
            .inherit(&artifact, handed, &key("a.tar"), &heir.validator)
            .unwrap();
        assert_eq!(heir.readable(&inherited), handed);
        assert_eq!(artifact.cached_bytes(), 0);
        assert!(!before.write(&artifact, 0), "it is over");
        assert!(heir.write(&inherited, handed));
        assert!(inherited.is_complete());
        cache.flush().await;
        drop((artifact, inherited, cache));

        let cache = open(dir.path());
        assert_eq!(heir.cached_bytes(&cache), heir.validator.size);
        assert_eq!(heir.open(&cache).read(handed), Some(heir.block(handed)));
        assert_eq!(heir.readable(&heir.open(&cache)), handed + 1);
        assert_eq!(before.cached_bytes(&cache), 0);
        wait_until("scanned", || cache.used() > 0);
        assert!(cache.used() < 2 * heir.validator.size);
        assert_eq!(cache.stats().damaged_blocks, 0);
    }
}

#[tokio::test]
async fn blocks_that_never_reached_the_disk_are_not_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let (before, heir) = (spooled(1, UNSEALED), spooled(2, 2 * BLOCK_SIZE));
    let artifact = before.open(&cache);
    assert!(before.write(&artifact, 0));
    cache.flush().await;
    let refused = cache.inherit(&artifact, 2, &key("a.tar"), &heir.validator);
    assert_eq!(refused.unwrap_err().kind(), Kind::Cache);
    assert_eq!(heir.cached_bytes(&cache), 0);
}

#[tokio::test]
async fn what_is_kept_does_not_leave_and_what_is_dear_leaves_last() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open_greedy(dir.path(), 8 * MIB);
    let (dear, plain, next) = (
        spooled(1, 3 * MIB),
        Sample::new(2, 3 * MIB),
        Sample::new(3, 4 * MIB),
    );
    let held = dear.open(&cache);
    let kept = held.keep();
    dear.fill(&held);
    cache.flush().await;
    let fill = async |sample: &Sample, file: &str| {
        let artifact = sample.open_as(&cache, file);
        sample.fill(&artifact);
        cache.flush().await;
        sample.readable(&artifact)
    };
    fill(&plain, "plain").await;
    fill(&next, "next").await;
    fill(&Sample::new(4, 4 * MIB), "after").await;
    assert!(held.is_complete());
    // Nobody reads it any more, and it is the oldest; yet others leave before it.
    drop((kept, held));
    fill(&Sample::new(5, 4 * MIB), "last").await;
    assert_eq!(dear.cached_bytes(&cache), 3 * MIB);
    drop(cache);
    let cache = open_greedy(dir.path(), 8 * MIB);
    wait_until("scanned", || cache.used() > 6 * MIB);
    let more = Sample::new(6, 4 * MIB);
    more.fill(&more.open_as(&cache, "more"));
    cache.flush().await;
    assert_eq!(dear.cached_bytes(&cache), 3 * MIB, "also after a restart");
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_before_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open_greedy(dir.path(), 8 * MIB);
    let refused = |size, own| cache.room_for(size, own).unwrap_err().to_string();
    cache.room_for(7 * MIB, None).unwrap();
    assert!(refused(8 * MIB, None).contains("cache_size is too small"));
    let sample = spooled(1, 5 * MIB);
    let artifact = sample.open(&cache);
    let kept = artifact.keep();
    assert!(refused(4 * MIB, None).contains("open now"));
    cache.room_for(7 * MIB, Some(&artifact)).unwrap();
    drop(kept);
    cache.room_for(4 * MIB, None).unwrap();
    let full = Cache::open_with(&dir.path().join("other"), 8 * MIB, |_| u64::MAX).unwrap();
    let words = full.room_for(MIB, None).unwrap_err().to_string();
    assert!(
        words.contains("too full") && words.contains("cache_size"),
        "{words}"
    );
    let tiny = Cache::open(&dir.path().join("tiny"), 0).unwrap();
    assert_eq!(tiny.room_for(0, None).unwrap_err().kind(), Kind::Cache);
}
