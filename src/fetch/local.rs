//! Answers requests for files of a local directory the way a store would: by range, with an entity
//! tag, so that everything behind the answer is the same for both. Owns nothing.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::try_unfold;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use reqwest::{Body, Response};

use crate::directory::{Directory, Version};
use crate::error::{Error, Kind, Result};
use crate::model::Validator;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;

/// The answer to a request for the bytes `wanted` of the file at `path` below `directory`.
///
/// [`Kind::Changed`] when the file that was `pinned` is gone.
pub(super) async fn answer(
    directory: Directory,
    path: String,
    wanted: Range<u64>,
    pinned: Option<&Validator>,
) -> Result<Response> {
    let opened = blocking(move || directory.open_file(&path)).await;
    let (file, version) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) if error.kind() == Kind::NotFound && pinned.is_some() => {
            let words = "the file was removed from the directory since it was opened";
            return Err(Error::new(Kind::Changed, words));
        }
        Ok(Err(error)) => return Err(error.context("opening the file in its directory")),
        Err(error) => return Err(Error::new(Kind::Internal, error.to_string())),
    };
    let size = version.size;
    let given = wanted.start..wanted.end.min(size);
    let answer = http::Response::builder().header(ETAG, version.etag());
    let answer = if given.is_empty() {
        answer
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(CONTENT_RANGE, format!("bytes */{size}"))
            .body(Body::default())
    } else {
        let Range { start, end } = given;
        answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1))
            .header(CONTENT_LENGTH, end - start)
            .body(body(file, version, given))
    };
    let answer = answer.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
    Ok(answer.into())
}

/// The bytes of `range`, which lies within the file. Ends in an error as soon as the file is no
/// longer of this version: what was read before was.
fn body(file: OwnedFd, version: Version, range: Range<u64>) -> Body {
    let file = Arc::new(file);
    Body::wrap_stream(try_unfold(range, move |left| {
        let file = Arc::clone(&file);
        async move {
            if left.is_empty() {
                return Ok::<_, io::Error>(None);
            }
            let piece = left.start..left.end.min(left.start + PIECE);
            let bytes = blocking(move || read(&file, version, piece)).await??;
            let rest = left.start + bytes.len() as u64..left.end;
            Ok(Some((bytes, rest)))
        }
    }))
}

fn read(file: &OwnedFd, version: Version, piece: Range<u64>) -> io::Result<Bytes> {
    // At most PIECE.
    let mut bytes = vec![0; (piece.end - piece.start) as usize];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut bytes, piece.start))?;
    bytes.truncate(length);
    // A write changes the time before the content.
    if length == 0 || Version::of(file)? != Some(version) {
        return Err(io::Error::other("the file changed while it was read"));
    }
    Ok(bytes.into())
}

/// Runs what waits for the disk off the threads that serve others.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, io::Error> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|_| io::Error::other("reading a local file ended by a bug"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;

    async fn ask(dir: &tempfile::TempDir, wanted: Range<u64>) -> Result<Response> {
        answer(Directory::new(dir.path()), "f".into(), wanted, None).await
    }

    #[tokio::test]
    async fn a_range_is_answered_as_by_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 * PIECE + 17).map(|n| (n % 251) as u8).collect();
        fs::write(dir.path().join("f"), &content).unwrap();
        let size = content.len();
        for wanted in [
            0..1,
            5..size,
            0..size + 100,
            PIECE as usize..2 * PIECE as usize,
        ] {
            let answer = ask(&dir, wanted.start as u64..wanted.end as u64)
                .await
                .unwrap();
            assert_eq!(answer.status(), 206);
            let end = wanted.end.min(size);
            let range = format!("bytes {}-{}/{size}", wanted.start, end - 1);
            assert_eq!(answer.headers()[CONTENT_RANGE], range);
            let length = (end - wanted.start).to_string();
            assert_eq!(answer.headers()[CONTENT_LENGTH], length);
            assert_eq!(answer.bytes().await.unwrap(), content[wanted.start..end]);
        }
        let beyond = ask(&dir, size as u64..size as u64 + 1).await.unwrap();
        assert_eq!(beyond.status(), 416);
        assert_eq!(beyond.headers()[CONTENT_RANGE], format!("bytes */{size}"));
    }

    #[tokio::test]
    async fn what_changes_on_the_way_is_not_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, vec![1; 2 * PIECE as usize]).unwrap();
        let mut answer = ask(&dir, 0..2 * PIECE).await.unwrap();
        assert_eq!(
            answer.chunk().await.unwrap().unwrap(),
            vec![1; PIECE as usize]
        );
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_at(&[2], 2 * PIECE - 1).unwrap();
        // However coarse the clock of the filesystem is.
        let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        file.set_modified(later).unwrap();
        assert!(answer.chunk().await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_gone_was_changed_only_for_who_had_it_open() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ask(&dir, 0..1).await.unwrap_err().kind(), Kind::NotFound);
        let pinned = Validator {
            etag: None,
            last_modified: None,
            size: 1,
            download: None,
        };
        let directory = Directory::new(dir.path());
        let gone = answer(directory, "f".into(), 0..1, Some(&pinned)).await;
        assert_eq!(gone.unwrap_err().kind(), Kind::Changed);
    }
}
