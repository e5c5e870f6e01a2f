//! Which backups of single shards belong together. Pure.
//!
//! In shard backup mode each shard lists its own backups and nothing documented ties those of one
//! run together. Backups of different shards with the same `BackupJobId` are one run. Whatever is
//! left is matched by time: oldest first, a backup joins the run that began at most [`NEAR`] before
//! it and has none of its shard yet. The run is named after its job, or else after the backup of
//! its first shard in the order of ids; the answer does not depend on the order of the listings.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::convert::Piece;

/// Backups of one run begin within this time of each other: one schedule starts them all.
const NEAR: SignedDuration = SignedDuration::from_mins(30);

/// The runs that `pieces` of all shards make up: an id and the pieces, ordered by shard.
pub(super) fn runs(pieces: Vec<Piece>) -> Vec<(String, Vec<Piece>)> {
    let mut by_job: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
    let mut rest = Vec::new();
    for piece in pieces {
        match piece.job.clone() {
            Some(job) => by_job.entry(job).or_default().push(piece),
            None => rest.push(piece),
        }
    }
    let mut runs = Vec::new();
    for (job, pieces) in by_job {
        // A number that is given to each backup by itself, or to all of a shard, ties nothing.
        if spans_shards(&pieces) {
            runs.push((job, ordered(pieces)));
        } else {
            rest.extend(pieces);
        }
    }
    runs.extend(by_time(rest).into_iter().map(|pieces| {
        let pieces = ordered(pieces);
        (pieces[0].set.clone(), pieces)
    }));
    runs
}

/// Whether there are several shards, each once.
fn spans_shards(pieces: &[Piece]) -> bool {
    let mut shards: Vec<&str> = pieces.iter().map(|piece| piece.shard.as_str()).collect();
    shards.sort_unstable();
    shards.len() > 1 && shards.windows(2).all(|pair| pair[0] != pair[1])
}

/// Groups of pieces near each other; none is empty.
fn by_time(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    pieces.sort_by(|a, b| (a.started, &a.shard, &a.set).cmp(&(b.started, &b.shard, &b.set)));
    let mut runs: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces {
        let run = runs.iter_mut().find(|run| {
            piece.started.duration_since(run[0].started) <= NEAR
                && run.iter().all(|member| member.shard != piece.shard)
        });
        match run {
            Some(run) => run.push(piece),
            None => runs.push(vec![piece]),
        }
    }
    runs
}

fn ordered(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.sort_by(|a, b| a.shard.cmp(&b.shard));
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::providers::aliyun::{convert, wire};

    fn piece(shard: &str, set: &str, job: &str, minute: u64) -> Piece {
        let listed: wire::Backup = serde_json::from_value(serde_json::json!({
            "BackupId": set,
            "BackupJobId": job,
            "BackupStartTime": format!("2026-03-01T{:02}:{:02}:00Z", minute / 60, minute % 60),
        }))
        .unwrap();
        convert::piece(&listed, shard, None).unwrap().unwrap()
    }

    fn sets(runs: &[(String, Vec<Piece>)]) -> Vec<(&str, Vec<&str>)> {
        let mut sets: Vec<_> = runs
            .iter()
            .map(|(id, run)| (id.as_str(), run.iter().map(|p| p.set.as_str()).collect()))
            .collect();
        sets.sort();
        sets
    }

    #[test]
    fn a_common_job_is_a_run() {
        let found = runs(vec![
            piece("d-b", "12", "j1", 9),
            piece("d-a", "11", "j1", 0),
            piece("d-a", "21", "j2", 3),
            piece("d-b", "22", "j2", 4),
        ]);
        assert_eq!(
            sets(&found),
            [("j1", vec!["11", "12"]), ("j2", vec!["21", "22"])]
        );
    }

    #[test]
    fn without_one_the_time_tells() {
        for job in ["", "own"] {
            let job = |n: u32| match job {
                "" => String::new(),
                job => format!("{job}{n}"),
            };
            let found = runs(vec![
                piece("d-a", "11", &job(1), 0),
                piece("d-b", "12", &job(2), 7),
                piece("d-b", "22", &job(3), 60),
                piece("d-a", "21", &job(4), 61),
                piece("d-a", "31", &job(5), 200),
            ]);
            assert_eq!(
                sets(&found),
                [
                    ("11", vec!["11", "12"]),
                    ("21", vec!["21", "22"]),
                    ("31", vec!["31"])
                ]
            );
        }
    }

    #[test]
    fn a_job_of_all_backups_of_a_shard_ties_nothing() {
        let found = runs(vec![
            piece("d-a", "11", "a", 0),
            piece("d-a", "21", "a", 120),
            piece("d-b", "12", "b", 1),
        ]);
        assert_eq!(sets(&found), [("11", vec!["11", "12"]), ("21", vec!["21"])]);
    }

    proptest! {
        #[test]
        fn every_piece_is_in_one_run_whatever_the_order(
            listed in proptest::collection::vec((0_u64..3, 0_u64..600, 0_u64..4), 0..24), turn in 0_usize..24,
        ) {
            let pieces: Vec<Piece> = listed
                .iter()
                .enumerate()
                .map(|(set, (shard, minute, job))| {
                    let job = if *job == 0 { String::new() } else { format!("j{job}") };
                    piece(&format!("d-{shard}"), &format!("{set:03}"), &job, *minute)
                })
                .collect();
            let mut turned = pieces.clone();
            if !turned.is_empty() {
                let by = turn % turned.len();
                turned.rotate_left(by);
            }
            let (found, other) = (runs(pieces.clone()), runs(turned));
            prop_assert_eq!(sets(&found), sets(&other));
            prop_assert_eq!(found.iter().map(|(_, run)| run.len()).sum::<usize>(), pieces.len());
            for (_, run) in &found {
                prop_assert!(run.len() == 1 || spans_shards(run));
            }
        }
    }
}
