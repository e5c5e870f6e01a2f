//! One copy, from nothing or from what an earlier run left to a whole file with its name.

use std::path::Path;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::part::Part;
use super::plan::Item;
use super::source::{Open, Source};
use super::{Event, Listener, Options};
use crate::error::{Error, Kind, Result};
use crate::fs::{Check, Verdict};

/// Most bytes asked for at a time, and least: whoever looks on sees a slow copy get on too.
const LARGEST: u64 = 1 << 20;
const SMALLEST: u64 = 128 << 10;
/// A piece that took less is followed by a larger one, one that took more than twice as long by a
/// smaller one.
const MOMENT: Duration = Duration::from_millis(250);
/// How often the progress of a waited-for task is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often a file is begun anew that changes while it is copied.
const ROUNDS: usize = 3;

/// How many bytes are asked for after `piece`, which took so long.
fn next(piece: u64, took: Duration) -> u64 {
    match took {
        _ if took < MOMENT => (piece * 2).min(LARGEST),
        _ if took > MOMENT * 2 => (piece / 2).max(SMALLEST),
        _ => piece,
    }
}

/// Copies `item`, unless it is at its place already. At most as many as `turns` has are copied at
/// a time; waiting for a task takes no turn.
pub(super) async fn copy(
    item: &Item,
    source: &Source,
    options: Options,
    turns: &Semaphore,
    tell: Listener<'_>,
) -> Result<()> {
    if !options.force
        && let Some(size) = source.known_size(item).await
        && is_there(item, size)
    {
        return skip(item, size, tell);
    }
    let mut round = 1;
    loop {
        let open = opened(item, source, tell).await?;
        if !options.force && is_there(item, open.size) {
            return skip(item, open.size, tell);
        }
        let _turn = turns.acquire().await;
        match bring(item, source, &open, tell).await {
            Err(error) if error.kind() == Kind::Changed && round < ROUNDS => round += 1,
            brought => return brought,
        }
    }
}

/// Whether the whole copy is at its place: of this size, with this time.
fn is_there(item: &Item, size: u64) -> bool {
    use std::os::unix::fs::MetadataExt;

    let found = std::fs::symlink_metadata(&item.to);
    found.is_ok_and(|found| {
        found.is_file() && found.len() == size && found.mtime() == item.modified.as_second()
    })
}

fn skip(item: &Item, size: u64, tell: Listener<'_>) -> Result<()> {
    Part::sweep(&item.to);
    tell(Event::Skipped {
        path: &item.path,
        to: &item.to,
        size,
    });
    Ok(())
}

/// Opens the file and tells how its task gets on meanwhile.
async fn opened(item: &Item, source: &Source, tell: Listener<'_>) -> Result<Open> {
    let mut opening = std::pin::pin!(source.open_file(item));
    let mut told = None;
    loop {
        tokio::select! {
            opened = &mut opening => return opened,
            () = sleep(LOOK) => {}
        }
        let progress = source.progress(item).await;
        if progress.state != "none" && told.as_ref() != Some(&progress) {
            tell(Event::Waiting {
                path: &item.path,
                state: &progress.state,
                percent: progress.percent,
                estimate: progress.estimate,
                cached: progress.cached,
            });
            told = Some(progress);
        }
    }
}

/// Brings what is missing of an open file and gives the copy its name.
async fn bring(item: &Item, source: &Source, open: &Open, tell: Listener<'_>) -> Result<()> {
    let version = source.version(item, open).await;
    let size = open.size;
    let check = version.digest.map(|promised| Check::new(promised, size));
    let mut verified = None;
    let mut heed = |at: u64, bytes: &[u8]| {
        let verdict = check.as_ref().map(|check| check.take(at, bytes));
        match verdict {
            None | Some(Verdict::Open) => {}
            Some(verdict) => verified = Some(verdict == Verdict::Right),
        }
    };
    let mut part =
        block_in_place(|| Part::open(&item.to, version.name.as_deref(), size, &mut heed))?;
    tell(Event::Started {
        path: &item.path,
        to: &item.to,
        size,
        resumed: part.len(),
    });
    let mut piece = SMALLEST;
    while part.len() < size {
        let at = part.len();
        let len = piece.min(size - at) as u32;
        let begun = Instant::now();
        let bytes = match open.read(at, len).await {
            Ok(bytes) => bytes,
            // What was taken in may be what was found to be wrong.
            Err(error) if check.is_some() && error.kind() == Kind::Protocol => {
                part.discard();
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        piece = next(piece, begun.elapsed());
        heed(at, &bytes);
        block_in_place(|| part.append(&bytes))?;
        tell(Event::Progress {
            path: &item.path,
            bytes: part.len(),
            size,
        });
    }
    if check.is_some() && size > 0 && verified != Some(true) {
        part.discard();
        return Err(wrong(&item.to));
    }
    block_in_place(|| part.finish(item.modified))?;
    tell(Event::Done {
        path: &item.path,
        to: &item.to,
        size,
        verified,
    });
    Ok(())
}

fn wrong(to: &Path) -> Error {
    let words = format!(
        "the bytes that came are not those that the store says it has (CRC-64): {} was not made, and \
         the next try begins anew",
        to.display()
    );
    Error::new(Kind::Protocol, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_large_as_what_brings_them_is_fast() {
        let quick = Duration::from_millis(10);
        let sizes = std::iter::successors(Some(SMALLEST), |size| Some(next(*size, quick)));
        let sizes: Vec<u64> = sizes.take(5).map(|size| size >> 10).collect();
        assert_eq!(sizes, [128, 256, 512, 1024, 1024]);
        assert_eq!(next(LARGEST, MOMENT), LARGEST);
        assert_eq!(next(LARGEST, MOMENT * 3), LARGEST / 2);
        assert_eq!(next(SMALLEST, MOMENT * 3), SMALLEST);
    }
}
