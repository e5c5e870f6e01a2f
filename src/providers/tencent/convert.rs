//! From what TencentDB for MongoDB sends to the nouns of the house. Pure: the time is a parameter.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use url::form_urlencoded;

use super::wire;
use crate::error::{Error, Kind, Result, one_line};
use crate::model::{Backup, Facts, Instance, Shard, Task, TaskState};

/// Facts of an instance.
pub(super) const REGION: &str = "region";
const SHARDS: &str = "shards";
/// Facts of a backup.
pub(super) const NAME: &str = "name";
pub(super) const METHOD: &str = "method";

/// The times of the API carry no zone: they are China Standard Time.
const CHINA: Offset = Offset::constant(8);

/// The directory of an instance; `None` if it has no id. It was `asked` for in one of `regions`.
///
/// Whether a list holds to its region is not documented, nor is how the instance's own is written:
/// that counts where it is a region of the account's.
pub(super) fn instance(
    listed: wire::Instance,
    asked: &str,
    regions: &[String],
) -> Option<Instance> {
    let id = listed.instance_id?;
    let own = listed.region.filter(|own| regions.contains(own));
    let region = own.unwrap_or_else(|| asked.to_owned());
    let mut shards: Vec<String> = listed
        .replica_sets
        .into_iter()
        .filter_map(|set| set.replica_set_id)
        .collect();
    if shards.is_empty() {
        let count = listed.replication_set_num.unwrap_or(1).clamp(1, 1000);
        shards = (0..count).map(|number| format!("{id}_{number}")).collect();
    }
    Some(Instance {
        created: listed.create_time.as_deref().and_then(timestamp),
        facts: Facts::from([(REGION, region), (SHARDS, shards.join("\n"))]),
        id,
    })
}

/// The backup that was listed, once it is complete.
pub(super) fn backup(listed: wire::Backup, of: &Instance) -> Result<Option<Backup>> {
    if listed.status.is_some_and(|status| status != 2) {
        return Ok(None);
    }
    let Some(name) = listed.backup_name else {
        return Ok(None);
    };
    let time = |text: Option<String>| text.as_deref().and_then(timestamp);
    let (started, finished) = (time(listed.start_time), time(listed.end_time));
    let named = || name_time(&name, &of.id);
    let Some(started) = started.or_else(named).or(finished) else {
        let name = one_line(&name);
        return Err(Error::new(
            Kind::Protocol,
            format!("Tencent Cloud lists backup {name} without any time"),
        ));
    };
    let mut facts = Facts::from([(NAME, name.clone())]);
    if let Some(method) = listed.backup_method {
        facts.insert(METHOD, method.to_string());
    }
    let shards = of.facts.get(SHARDS).map(String::as_str).unwrap_or_default();
    Ok(Some(Backup {
        id: match listed.back_id.filter(|id| *id > 0) {
            Some(id) => id.to_string(),
            None => name,
        },
        started,
        finished: finished.unwrap_or(started),
        status: "success".to_owned(),
        successful: true,
        method: listed.backup_method.map(method_word),
        version: None,
        trigger: match listed.backup_type {
            Some(0) => Some("automatic".to_owned()),
            Some(1) => Some("manual".to_owned()),
            _ => None,
        },
        not_downloadable: None,
        shards: shards
            .lines()
            .map(|id| Shard {
                id: id.to_owned(),
                facts: Facts::new(),
            })
            .collect(),
        facts,
    }))
}

fn method_word(method: i64) -> String {
    match method {
        0 => "logical".to_owned(),
        1 => "physical".to_owned(),
        3 => "snapshot".to_owned(),
        other => other.to_string(),
    }
}

/// What tells backups apart that several listings brought.
pub(super) fn identity(listed: &wire::Backup) -> String {
    match listed.back_id.filter(|id| *id > 0) {
        Some(id) => id.to_string(),
        None => listed.backup_name.clone().unwrap_or_default(),
    }
}

/// A task as it is listed. It has no id of its own: the time of its creation, with the shard,
/// tells it from those before.
pub(super) fn task(listed: &wire::Task) -> Task {
    let state = state(listed.status, listed.url.is_some());
    Task {
        id: listed.create_time.clone().unwrap_or_default(),
        state,
        percent: match state {
            TaskState::Ready => Some(100),
            _ => listed.percent.map(|percent| percent.clamp(0, 100) as u8),
        },
        expires: None,
        message: (state == TaskState::Failed)
            .then(|| "Tencent Cloud reports that packing the backup failed".to_owned()),
    }
}

/// A status as a state. 4 waits for the service's own retry. A finished task that lacks its link
/// is not ready yet.
pub(super) fn state(status: Option<i64>, linked: bool) -> TaskState {
    match status {
        Some(2) if linked => TaskState::Ready,
        Some(3) => TaskState::Failed,
        Some(1 | 2) => TaskState::Running,
        _ => TaskState::Queued,
    }
}

/// The task of `shard` among those listed for the backup `name`: a live one before others, then
/// the newest; of two made in one second the one listed first, which is the newest by the API's
/// own order.
pub(super) fn newest<'a>(
    listed: &'a [wire::Task],
    name: &str,
    shard: &str,
) -> Option<&'a wire::Task> {
    listed
        .iter()
        .rev()
        .filter(|task| task.replica_set_id.as_deref() == Some(shard))
        .filter(|task| task.backup_name.as_deref().is_none_or(|of| of == name))
        .max_by_key(|task| {
            let live = state(task.status, true) != TaskState::Failed;
            (live, task.create_time.as_deref().and_then(timestamp))
        })
}

/// Until when a pre-signed link is valid: the end of its `q-sign-time` ("Request signature",
/// cloud.tencent.com/document/product/436/7778), also where the whole signature stands in one
/// parameter `sign`.
pub(super) fn link_end(link: &str) -> Option<Timestamp> {
    let (_, query) = link.split_once('?')?;
    let parameters: BTreeMap<String, String> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let window = match (parameters.get("q-sign-time"), parameters.get("sign")) {
        (Some(window), _) => window.clone(),
        (None, Some(signature)) => form_urlencoded::parse(signature.as_bytes())
            .find(|(name, _)| name == "q-sign-time")?
            .1
            .into_owned(),
        (None, None) => return None,
    };
    let end = window.split_once(';')?.1.trim().parse().ok()?;
    Timestamp::from_second(end).ok()
}

/// A time as the API writes it, `2024-05-06 01:02:03` in China, or with an offset of its own.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let civil: DateTime = text.parse().ok()?;
    // "0000-00-00" and the like stand for no time.
    let time = CHINA.to_timestamp(civil).ok()?;
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}

/// The time in a backup's name, `<instance>_2024-05-06 01:02` or, older, with underscores only.
fn name_time(name: &str, instance: &str) -> Option<Timestamp> {
    let rest = name.strip_prefix(instance)?.strip_prefix('_')?;
    let (date, time) = rest.split_at_checked(10)?;
    timestamp(&format!("{date} {}", time.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn of(json: &str) -> Instance {
        let regions = ["ap-guangzhou", "ap-beijing"].map(str::to_owned);
        instance(
            serde_json::from_str(json).unwrap(),
            "ap-guangzhou",
            &regions,
        )
        .unwrap()
    }

    fn read(json: &str) -> Result<Option<Backup>> {
        let cluster = of(
            r#"{"InstanceId":"cmgo-abcd1234","ReplicaSets":[{"ReplicaSetId":"cmgo-abcd1234_0"},{"ReplicaSetId":"cmgo-abcd1234_1"}]}"#,
        );
        backup(serde_json::from_str(json).unwrap(), &cluster)
    }

    #[test]
    fn times_are_those_of_china() {
        assert_eq!(
            timestamp("2021-03-26 10:47:37"),
            Some(at("2021-03-26T02:47:37Z"))
        );
        assert_eq!(
            timestamp(" 2024-05-06T01:02:03 "),
            Some(at("2024-05-05T17:02:03Z"))
        );
        assert_eq!(
            timestamp("2024-05-06T01:02:03Z"),
            Some(at("2024-05-06T01:02:03Z"))
        );
        for none in ["", "soon", "0000-00-00 00:00:00", "1970-01-01 00:00:00"] {
            assert_eq!(timestamp(none), None, "{none}");
        }
    }

    #[test]
    fn an_instance_is_in_its_own_region_if_that_is_one_of_the_accounts() {
        let region = |json: &str| of(json).facts[REGION].clone();
        for (json, expected) in [
            (r#"{"InstanceId":"i","Region":"ap-beijing"}"#, "ap-beijing"),
            (r#"{"InstanceId":"i","Region":"gz"}"#, "ap-guangzhou"),
            (r#"{"InstanceId":"i","Region":1}"#, "ap-guangzhou"),
            (r#"{"InstanceId":"i","Region":null}"#, "ap-guangzhou"),
            (r#"{"InstanceId":"i"}"#, "ap-guangzhou"),
        ] {
            assert_eq!(region(json), expected, "{json}");
        }
    }

    #[test]
    fn case_07_shards_are_listed_or_counted() {
        let shards = |json: &str| of(json).facts[SHARDS].clone();
        assert_eq!(shards(r#"{"InstanceId":"i"}"#), "i_0");
        assert_eq!(
            shards(r#"{"InstanceId":"i","ReplicationSetNum":3}"#),
            "i_0\ni_1\ni_2"
        );
        assert_eq!(
            shards(
                r#"{"InstanceId":"i","ReplicationSetNum":1,"ReplicaSets":[{"ReplicaSetId":"x"}]}"#
            ),
            "x"
        );
        let created = of(r#"{"InstanceId":"i","CreateTime":"2024-05-06 08:00:00"}"#).created;
        assert_eq!(created, Some(at("2024-05-06T00:00:00Z")));
    }

    #[test]
    fn only_complete_backups_are_shown() {
        let full = read(
            r#"{"InstanceId":"cmgo-abcd1234","BackupType":1,"BackupName":"cmgo-abcd1234_2024-05-06 01:02","BackupSize":5747379,"StartTime":"2024-05-06 01:02:03","EndTime":"2024-05-06 01:02:09","Status":2,"BackupMethod":0,"BackId":1234}"#,
        );
        let full = full.unwrap().unwrap();
        assert_eq!(full.id, "1234");
        assert_eq!(full.started, at("2024-05-05T17:02:03Z"));
        assert_eq!(full.finished, at("2024-05-05T17:02:09Z"));
        assert_eq!(full.method.as_deref(), Some("logical"));
        assert_eq!(full.trigger.as_deref(), Some("manual"));
        assert_eq!(full.shards.len(), 2);
        let progress = r#"{"BackupName":"cmgo-abcd1234_2024-05-06 01:02","Status":1}"#;
        assert_eq!(read(progress).unwrap(), None);
        assert_eq!(read("{}").unwrap(), None);
    }

    #[test]
    fn a_name_stands_in_for_id_and_time() {
        for name in [
            "cmgo-abcd1234_2019-09-02_04:49",
            "cmgo-abcd1234_2019-09-02 04:49",
        ] {
            let json = format!(r#"{{"BackupName":"{name}","Status":2,"BackId":0}}"#);
            let backup = read(&json).unwrap().unwrap();
            assert_eq!(backup.id, name);
            assert_eq!(backup.started, at("2019-09-01T20:49:00Z"));
            assert_eq!(backup.finished, backup.started);
        }
        let error = read(r#"{"BackupName":"other","Status":2}"#).unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol);
    }

    #[test]
    fn statuses_are_states() {
        for (json, expected) in [
            (r#"{"Status":0}"#, TaskState::Queued),
            (r#"{"Status":1,"Percent":"40"}"#, TaskState::Running),
            (r#"{"Status":2}"#, TaskState::Running),
            (r#"{"Status":2,"Url":""}"#, TaskState::Running),
            (r#"{"Status":2,"Url":"https://h/k"}"#, TaskState::Ready),
            (r#"{"Status":3,"Url":"https://h/k"}"#, TaskState::Failed),
            (r#"{"Status":4}"#, TaskState::Queued),
            ("{}", TaskState::Queued),
        ] {
            let task = task(&serde_json::from_str(json).unwrap());
            assert_eq!(task.state, expected, "{json}");
        }
    }

    #[test]
    fn the_newest_task_counts_and_a_live_one_before_a_failed() {
        let tasks: Vec<wire::Task> = serde_json::from_str(
            r#"[{"ReplicaSetId":"s","BackupName":"b","CreateTime":"2024-05-06 09:00:02","Status":3},
                {"ReplicaSetId":"s","BackupName":"b","CreateTime":"2024-05-06 09:00:01","Status":2,"Url":"https://h/1"},
                {"ReplicaSetId":"s","BackupName":"b","CreateTime":"2024-05-06 09:00:00","Status":2,"Url":"https://h/0"},
                {"ReplicaSetId":"t","CreateTime":"2024-05-06 09:00:00","Status":1},
                {"ReplicaSetId":"s","BackupName":"other","CreateTime":"2024-05-06 10:00:00","Status":1}]"#,
        )
        .unwrap();
        let id =
            |of: &[wire::Task], shard: &str| newest(of, "b", shard).map(|found| task(found).id);
        assert_eq!(id(&tasks, "s").as_deref(), Some("2024-05-06 09:00:01"));
        assert_eq!(id(&tasks[..1], "s").as_deref(), Some("2024-05-06 09:00:02"));
        assert_eq!(id(&tasks, "t").as_deref(), Some("2024-05-06 09:00:00"));
        assert_eq!(id(&tasks, "u"), None);
    }

    #[test]
    fn the_life_of_a_link_is_in_its_signature() {
        let end = Some(Timestamp::from_second(1_715_043_723).unwrap());
        for link in [
            "https://b.cos.r.myqcloud.com/n%2Fs.tar?q-sign-algorithm=sha1&q-sign-time=1714957263%3B1715043723&q-signature=x",
            "https://b.cos.r.myqcloud.com/k?q-sign-time=1714957263;1715043723",
            "https://b.cos.r.myqcloud.com/k?sign=q-sign-algorithm%3Dsha1%26q-sign-time%3D1714957263%3B1715043723%26q-signature%3Dx",
        ] {
            assert_eq!(link_end(link), end, "{link}");
        }
        for link in [
            "https://h/k",
            "https://h/k?q-sign-time=1",
            "https://h/k?sign=x",
        ] {
            assert_eq!(link_end(link), None, "{link}");
        }
    }
}
