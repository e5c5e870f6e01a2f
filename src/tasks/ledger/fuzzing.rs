//! Rows of a ledger that a sick disk, or somebody else, changed.

use std::cell::RefCell;

use jiff::Timestamp;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::record::{self, ArtifactRecord, Intent, Record};
use super::schema;
use crate::fuzzing::Input;
use crate::model::{ArtifactKey, Task, TaskKey, TaskState, Validator};

thread_local! {
    static LEDGER: RefCell<Connection> = RefCell::new({
        let mut db = Connection::open_in_memory().expect("memory suffices");
        schema::migrate(&mut db).expect("the schema is right");
        db
    });
}

/// Any row is read as it was written. With one of its columns changed it is unreadable, or what it
/// was: never another task, for that could cost a second one.
pub fn ledger(data: &[u8]) {
    LEDGER.with_borrow_mut(|db| {
        let step = db.transaction().expect("nobody else is there");
        let mut input = Input(data);
        tasks(&step, &mut input);
        artifacts(&step, &mut input);
        // Dropped, it is undone.
    });
}

fn tasks(db: &Connection, input: &mut Input<'_>) {
    let (key, record) = (key(input), task_record(input));
    if record::put_task(db, &key, &record).is_err() {
        // Numbers beyond SQLite's.
        return;
    }
    assert_eq!(
        record::task(db, &key)
            .expect("it was just written")
            .as_ref(),
        Some(&record)
    );
    if change(db, "tasks", input) {
        let mut found = Vec::new();
        if record::tasks(db, &mut |key, record| found.push((key, record))).is_ok() {
            assert_eq!(found, [(key, record)]);
        }
    }
}

fn artifacts(db: &Connection, input: &mut Input<'_>) {
    let key = ArtifactKey {
        task: key(input),
        file: input.line(),
    };
    let record = ArtifactRecord {
        validator: Validator {
            size: input.number(),
            etag: input.optional_line(),
            last_modified: input.optional_line(),
            download: input.optional_line(),
        },
        task_id: input.line(),
        source_name: input.optional_line(),
        digest: input.optional_line(),
        verified: false,
    };
    if record::put_artifact(db, &key, &record).is_err() {
        return;
    }
    if change(db, "artifacts", input) {
        let mut found = Vec::new();
        if record::artifacts(db, &mut |key, record| found.push((key, record))).is_ok() {
            assert_eq!(found, [(key, record)]);
        }
    }
}

/// Changes one column of the only row of `table`; `false` if the schema forbids the value.
fn change(db: &Connection, table: &str, input: &mut Input<'_>) -> bool {
    let columns: Vec<String> = db
        .prepare_cached(&format!("SELECT * FROM {table}"))
        .map(|all| all.column_names().map(str::to_owned).collect())
        .expect("the table is there");
    let column = &columns[usize::from(input.bytes::<1>()[0]) % columns.len()];
    let value = match input.bytes::<1>()[0] % 4 {
        0 => Value::Null,
        1 => Value::Integer(input.number() as i64),
        2 => Value::Text(input.line()),
        _ => Value::Blob(input.0.to_vec()),
    };
    db.prepare_cached(&format!("UPDATE {table} SET {column} = ?1"))
        .and_then(|mut change| change.execute([value]))
        .is_ok()
}

fn key(input: &mut Input<'_>) -> TaskKey {
    TaskKey {
        provider: input.line(),
        instance: input.line(),
        backup: input.line(),
        shard: input.line(),
    }
}

fn task_record(input: &mut Input<'_>) -> Record {
    const STATES: [TaskState; 5] = [
        TaskState::Queued,
        TaskState::Running,
        TaskState::Ready,
        TaskState::Expired,
        TaskState::Failed,
    ];
    let task = input.choice().then(|| Task {
        state: STATES[usize::from(input.bytes::<1>()[0]) % STATES.len()],
        id: input.line(),
        percent: None,
        expires: input.choice().then(|| time(input)),
        message: input.optional_line(),
    });
    let intent = input.choice().then(|| Intent {
        owner: input.line(),
        at: time(input),
    });
    let changed = time(input);
    Record {
        task,
        intent,
        since: time(input),
        changed,
        checked: changed,
        reports: input.bytes::<1>()[0],
        revision: input.number(),
    }
}

fn time(input: &mut Input<'_>) -> Timestamp {
    let micros = i64::from_le_bytes(input.bytes());
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}
