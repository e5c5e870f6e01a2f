//! The whole journey over the demo's mount: look at everything, copy every file, compare it with
//! what the simulated clouds and the bucket hold, and count what that cost.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{ALIYUN, ATLAS, BUCKET, STORAGE, Stage, UCLOUD, aside, tree};
use crate::cli::print;
use crate::error::{Error, Kind, Result};
use crate::sim::{Bill, Sim};

/// What was found out.
#[derive(Debug)]
pub(super) struct Report {
    findings: Vec<Finding>,
    bill: Bill,
}

/// One promise, and whether it held.
#[derive(Debug)]
struct Finding {
    held: bool,
    words: String,
}

/// Makes the journey. Nothing is printed yet.
pub(super) async fn journey(sim: &Sim, stage: &Stage) -> Result<Report> {
    let root = stage.mountpoint.clone();
    let files = aside(move || look(&root)).await?;
    let mut findings = vec![looking_was_free(&sim.bill(), files.len())];

    let mut bytes = 0;
    let mut wrong = Vec::new();
    for path in &files {
        let copy = stage.dir.path().join("copy");
        let source = path.clone();
        let (size, digest) = aside(move || copied(&source, &copy)).await?;
        bytes += size;
        if expected(sim, stage, path).as_ref() != Some(&digest) {
            wrong.push(path.display().to_string());
        }
    }
    let packed = files
        .iter()
        .filter(|path| is_packed(&stage.mountpoint, path));
    let jobs: HashSet<&Path> = packed
        .clone()
        .map(|path| made_by(&stage.mountpoint, path))
        .collect();
    let (packed, jobs) = (packed.count(), jobs.len() as u64);
    let bill = sim.bill();
    findings.push(Finding {
        held: wrong.is_empty() && !files.is_empty(),
        words: match wrong.as_slice() {
            [] => format!(
                "copied {} files, {bytes} bytes: every digest is the cloud's",
                files.len()
            ),
            wrong => format!("digests differ: {}", wrong.join(", ")),
        },
    });
    findings.push(Finding {
        held: bill.tasks_created == jobs,
        words: format!(
            "{} download tasks created for {packed} files that need one",
            bill.tasks_created,
        ),
    });
    Ok(Report { findings, bill })
}

/// Prints the report; a failure if a promise did not hold.
pub(super) fn conclude(mut report: Report, stage: &Stage) -> Result<()> {
    report.findings.push(Finding {
        held: fs::read_dir(&stage.mountpoint).is_ok_and(|mut entries| entries.next().is_none()),
        words: "unmounted, nothing left behind".to_owned(),
    });
    let mut text = String::new();
    for Finding { held, words } in &report.findings {
        let verdict = if *held { "ok  " } else { "FAIL" };
        text.push_str(&format!("{verdict}  {words}\n"));
    }
    text.push_str(&format!(
        "requests: {} to the API, {} for data, {} bytes served\n",
        report.bill.api_requests(),
        report.bill.data_requests(),
        report.bill.bytes_served
    ));
    print(&text)?;
    match report
        .findings
        .iter()
        .filter(|finding| !finding.held)
        .count()
    {
        0 => Ok(()),
        broken => Err(Error::new(
            Kind::Internal,
            format!(
                "{broken} of {} promises did not hold",
                report.findings.len()
            ),
        )),
    }
}

/// Lists and stats everything, and reads the attributes of all files, which it tells.
fn look(root: &Path) -> io::Result<Vec<PathBuf>> {
    let files = tree::files(&tree::list(root)?);
    for path in &files {
        let mut names = vec![0; 4096];
        let length = rustix::fs::listxattr(path, &mut names)?;
        for name in names[..length].split(|&byte| byte == 0) {
            if !name.is_empty() {
                rustix::fs::getxattr(path, name, &mut vec![0; 4096])?;
            }
        }
    }
    Ok(files)
}

fn looking_was_free(bill: &Bill, files: usize) -> Finding {
    let (tasks, data) = (bill.tasks_created, bill.data_requests());
    Finding {
        held: tasks == 0 && data == 0,
        words: format!("looked at {files} files: {tasks} tasks created, {data} data requests"),
    }
}

/// Copies as `cp` does, and tells the copy's size and SHA-256.
fn copied(from: &Path, to: &Path) -> io::Result<(u64, String)> {
    fs::copy(from, to)?;
    let copy = digest_of(to)?;
    fs::remove_file(to)?;
    Ok(copy)
}

/// Size and SHA-256 of a file.
fn digest_of(path: &Path) -> io::Result<(u64, String)> {
    let mut digest = Sha256::new();
    let size = io::copy(&mut File::open(path)?, &mut Hash(&mut digest))?;
    let digest = digest.finalize();
    Ok((
        size,
        digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    ))
}

/// A hash as something to write to.
struct Hash<'a>(&'a mut Sha256);

impl io::Write for Hash<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The digest of what the simulated clouds hold for `<account>/<instance>/<time>-<id>/<shard>/<file…>`
/// below the mountpoint.
fn expected(sim: &Sim, stage: &Stage, path: &Path) -> Option<String> {
    let root = &*stage.mountpoint;
    let (names, cloud) = (names(root, path), sim.tencent());
    let [account, instance, backup, shard, file @ ..] = names.as_slice() else {
        return None;
    };
    let (_, id) = backup.split_once('-')?;
    let content = match *account {
        ATLAS => sim.part(instance, id, shard),
        ALIYUN => sim.aliyun()?.artifact(instance, id, shard),
        UCLOUD => sim.ucloud()?.artifact(instance, id, shard, file.first()?),
        BUCKET => {
            let storage = stage.dir.path().join(STORAGE);
            let file: PathBuf = file.iter().collect();
            // A snapshot's description lies beside its folder.
            let described = storage.join(&file);
            let lying = Some(described).filter(|path| path.exists());
            let lying = lying.unwrap_or_else(|| storage.join(id).join(shard).join(file));
            return digest_of(&lying).ok().map(|(_, digest)| digest);
        }
        _ if is_packed(root, path) => cloud.packed(instance, id, shard),
        _ => {
            let file = file.join("/");
            cloud.object(&format!("cmongo_backup/{shard}/snapshot/{id}/{file}"))
        }
    };
    content?.sha256().ok()
}

/// Whether a file is what a download task packs, rather than an object of a folder.
fn is_packed(root: &Path, path: &Path) -> bool {
    let names = names(root, path);
    let endings = [".tgz", ".tar", ".tar.gz"];
    let name = names.last().copied().unwrap_or_default();
    endings.into_iter().any(|ending| name.ends_with(ending))
}

/// What one download task makes of which `path` is a file: a shard's directory, and with Atlas all
/// of a backup.
fn made_by<'a>(root: &Path, path: &'a Path) -> &'a Path {
    let above = match names(root, path).first() {
        Some(&ATLAS) => 2,
        _ => 1,
    };
    path.ancestors().nth(above).unwrap_or(path)
}

/// The parts of `path` below `root`.
fn names<'a>(root: &Path, path: &'a Path) -> Vec<&'a str> {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.iter().filter_map(|name| name.to_str()).collect()
}
