//! One suite for every engine: what the daemon relies on.

use super::*;

fn put(table: &'static str, key: &str, value: &[u8]) -> Write {
    Write { table, key: key.into(), value: Some(value.to_vec()) }
}

fn suite<E: Engine>() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let engine = E::open(&path).unwrap();
    assert!(engine.scan("pods").unwrap().is_empty(), "a table never written is empty");

    engine
        .commit(&[put("pods", "b", b"2"), put("pods", "a", b"1"), put("podsx", "c", b"3")])
        .unwrap();
    engine
        .commit(&[
            put("pods", "a", b"one"),
            Write { table: "pods", key: "none".into(), value: None },
        ])
        .unwrap();
    let pods = engine.scan("pods").unwrap();
    assert_eq!(pods, [("a".into(), b"one".to_vec()), ("b".into(), b"2".to_vec())]);
    drop(engine);

    let again = E::open(&path).unwrap();
    assert_eq!(again.scan("pods").unwrap(), pods, "a commit outlives the process");
    again.commit(&[Write { table: "pods", key: "a".into(), value: None }]).unwrap();
    assert_eq!(again.scan("pods").unwrap().len(), 1);
    drop(again);
    half_made_database_is_none::<E>(&path);
    broken_database_is_set_aside::<E>(&path);
    lost_databases_are_made_again::<E>(dir.path());
}

/// What a loss of power left of the making of a database has no name that counts.
fn half_made_database_is_none<E: Engine>(path: &Path) {
    let (fresh, draft) = (path.with_file_name("fresh"), path.with_file_name("fresh.new"));
    std::fs::write(&draft, b"half").unwrap();
    let copies = path.with_file_name("no-copies");
    let store = Store::open_with::<E>(&fresh, &copies, &["pods"]).unwrap();
    assert!(store.load::<String>("pods").unwrap().is_empty());
    assert!(fresh.exists() && !draft.exists());
}

fn broken_database_is_set_aside<E: Engine>(path: &Path) {
    let dir = path.parent().unwrap();
    let bad = dir.join("bad");
    std::fs::write(&bad, b"this is no database".repeat(1000)).unwrap();
    let store = Store::open_with::<E>(&bad, &dir.join("copies"), &["pods"]).unwrap();
    assert!(store.load::<String>("pods").unwrap().is_empty());
    let aside = std::fs::read_dir(dir).unwrap().filter_map(Result::ok);
    assert!(aside.into_iter().any(|e| e.file_name().to_string_lossy().starts_with("bad.broken-")));
}

/// Ends every file of a database in the middle.
fn cut(path: &Path) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| cut(&entry.unwrap().path()));
    } else if let Ok(metadata) = path.metadata() {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_len(metadata.len() / 2).unwrap();
    }
}

/// Returns once the writer has ended, and the database is closed with it.
fn close(store: Store) {
    let mirror = std::sync::Arc::downgrade(&store.mirror);
    drop(store);
    while mirror.strong_count() > 0 {
        std::thread::yield_now();
    }
}

fn lost_databases_are_made_again<E: Engine>(dir: &Path) {
    let (path, copies) = (dir.join("lost"), dir.join("copies"));
    let open = || Store::open_with::<E>(&path, &copies, &["pods"]).unwrap();
    let commit =
        |store: &Store, write| store.send(vec![write]).unwrap().blocking_recv().unwrap().unwrap();
    let store = open();
    assert!(store.load::<u32>("pods").unwrap().is_empty());
    for (key, value) in [("a", b"\x011"), ("b", b"\x012"), ("c", b"\x013")] {
        commit(&store, put("pods", key, value));
    }
    commit(&store, Write { table: "pods", key: "c".into(), value: None });
    close(store);
    let both = [("a".to_owned(), 1), ("b".to_owned(), 2)];
    let remove = || {
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.unwrap();
    };
    let losses: [&dyn Fn(); 2] = [&remove, &|| cut(&path)];
    for lose in losses {
        lose();
        let store = open();
        assert_eq!(store.load::<u32>("pods").unwrap(), both);
        close(store);
    }
    // One that lost its last commits, whoever's fault that is.
    let early = dir.join("early");
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp").arg("-rT").arg(from).arg(to).status();
        assert!(done.unwrap().success());
    };
    copy(&path, &early);
    let store = open();
    commit(&store, put("pods", "c", b"\x013"));
    close(store);
    copy(&early, &path);
    let store = open();
    assert_eq!(store.load::<u32>("pods").unwrap().len(), 3);
    commit(&store, Write { table: "pods", key: "c".into(), value: None });
    close(store);
    // Where the database is whole it decides, and the copies follow.
    std::fs::write(copies.join("pods/a"), b"\x019").unwrap();
    std::fs::write(copies.join("pods/z"), b"\x019").unwrap();
    let store = open();
    assert_eq!(store.load::<u32>("pods").unwrap(), both);
    // A record that is damaged in itself is taken from its copy.
    commit(&store, put("pods", "a", b"\x01nonsense"));
    std::fs::write(copies.join("pods/a"), b"\x011").unwrap();
    assert_eq!(store.load::<u32>("pods").unwrap(), both);
    assert_eq!(store.read::<u32>("pods").unwrap(), [1, 2]);
    close(store);
    assert!(!copies.join("pods/z").exists());
}

/// A store of the default engine, with its copies beside it.
fn open(dir: &Path) -> Store {
    Store::open(&dir.join("db"), &dir.join("copies"), &["pods"]).unwrap()
}

#[cfg(feature = "store-redb")]
#[test]
fn redb_keeps_the_contract() {
    suite::<super::redb::Redb>();
}

#[cfg(feature = "store-sled")]
#[test]
fn sled_keeps_the_contract() {
    suite::<super::sled::Sled>();
}

#[tokio::test]
async fn writes_of_many_tasks_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let writes = (0..200).map(|n| {
        let store = store.clone();
        async move { store.put("pods", &format!("{n:03}"), &n).await.unwrap() }
    });
    futures_util::future::join_all(writes).await;
    let all =
        tokio::task::spawn_blocking(move || store.load::<u32>("pods")).await.unwrap().unwrap();
    assert_eq!(all.len(), 200);
    assert!(all.iter().all(|(key, n)| key.parse::<u32>().unwrap() == *n));
}

#[tokio::test]
async fn what_is_noted_goes_with_the_next_commit_and_is_seen_by_every_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all = || {
        let store = store.clone();
        tokio::task::spawn_blocking(move || store.load::<String>("pods"))
    };
    store.note("pods", "x", &"intended").unwrap();
    let expected = |value: &str| [("x".to_owned(), value.to_owned())];
    assert_eq!(all().await.unwrap().unwrap(), expected("intended"));
    store.note("pods", "x", &"noted").unwrap();
    store.put("pods", "x", &"whole").await.unwrap();
    assert_eq!(all().await.unwrap().unwrap(), expected("whole"));
    store.note("pods", "y", &"undone").unwrap();
    store.delete("pods", "y").await.unwrap();
    assert_eq!(all().await.unwrap().unwrap(), expected("whole"));
    // Without anybody who waits, it is there after a moment all the same.
    store.note("pods", "z", &"alone").unwrap();
    let copy = dir.path().join("copies/pods/z");
    let start = std::time::Instant::now();
    while !copy.exists() {
        assert!(start.elapsed() < writer::RETRY * 20, "nobody wrote it");
        tokio::time::sleep(writer::RETRY / 20).await;
    }
}

#[test]
fn a_record_of_another_version_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.send(vec![put("pods", "x", b"\x09{}")]).unwrap().blocking_recv().unwrap().unwrap();
    assert!(store.load::<serde_json::Value>("pods").unwrap().is_empty());
    assert_eq!(store.scan(ASIDE).unwrap()[0].0, "pods/x");
    assert!(store.scan("pods").unwrap().is_empty());
}

#[tokio::test]
async fn writes_are_applied_in_the_order_of_the_calls_whoever_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.put("pods", "x", &"running");
    store.put_later("pods", "x", &"exited");
    first.await.unwrap();
    drop(store.put("pods", "y", &"not waited for"));
    store.flush().await.unwrap();
    let all = tokio::task::spawn_blocking(move || store.load::<String>("pods")).await.unwrap();
    let expected = [("x", "exited"), ("y", "not waited for")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(all.unwrap(), expected);
}

/// An engine on a disk that is full for a while, and that, as redb's, works no more once it has met an error, or panics
/// over it.
struct OnFullDisk {
    dir: PathBuf,
    broken: std::cell::Cell<bool>,
    engine: Chosen,
}

impl Engine for OnFullDisk {
    fn open(path: &Path) -> Result<Self> {
        let dir = path.parent().unwrap().to_owned();
        Ok(Self { dir, broken: false.into(), engine: Chosen::open(path)? })
    }

    fn commit(&self, writes: &[Write]) -> Result<()> {
        assert!(!self.dir.join("panics").exists(), "the engine trips over the disk");
        if self.broken.get() || self.dir.join("full").exists() {
            self.broken.set(true);
            return Err(Error::Store("no space left on device".into()));
        }
        self.engine.commit(writes)
    }

    fn scan(&self, table: &str) -> Result<Vec<(String, Vec<u8>)>> {
        self.engine.scan(table)
    }
}

#[tokio::test]
async fn a_disk_that_was_full_is_written_again_and_nothing_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let store =
        Store::open_with::<OnFullDisk>(&path, &dir.path().join("copies"), &["pods"]).unwrap();
    store.put("pods", "gone", &"x").await.unwrap();
    std::fs::write(dir.path().join("full"), "").unwrap();
    let refused = store.put("pods", "new", &"x").await.unwrap_err().to_string();
    assert!(refused.contains("no space") && refused.contains(path.to_str().unwrap()), "{refused}");
    store.put_later("pods", "exit", &"old");
    store.put_later("pods", "exit", &"137");
    store.delete("pods", "gone").await.unwrap_err();
    std::fs::remove_file(dir.path().join("full")).unwrap();
    store.put("pods", "after", &"x").await.unwrap();
    let read = store.clone();
    let all = tokio::task::spawn_blocking(move || read.load::<String>("pods")).await.unwrap();
    let expected = [("after", "x"), ("exit", "137")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(all.unwrap(), expected);
}

#[tokio::test]
async fn an_engine_that_panics_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copies) = (dir.path().join("db"), dir.path().join("copies"));
    let store = Store::open_with::<OnFullDisk>(&path, &copies, &["pods"]).unwrap();
    std::fs::write(dir.path().join("panics"), "").unwrap();
    let refused = store.put("pods", "new", &"x").await.unwrap_err().to_string();
    assert!(refused.contains("panicked") && refused.contains(path.to_str().unwrap()), "{refused}");
    store.put_later("pods", "exit", &"137");
    std::fs::remove_file(dir.path().join("panics")).unwrap();
    store.put("pods", "after", &"x").await.unwrap();
    let all = tokio::task::spawn_blocking(move || store.load::<String>("pods")).await.unwrap();
    let expected = [("after", "x"), ("exit", "137")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(all.unwrap(), expected);
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with::<OnFullDisk>(
        &dir.path().join("db"),
        &dir.path().join("copies"),
        &["pods"],
    )
    .unwrap();
    std::fs::write(dir.path().join("full"), "").unwrap();
    store.put_later("pods", "exit", &"137");
    store.flush().await.unwrap_err();
    std::fs::remove_file(dir.path().join("full")).unwrap();
    let start = std::time::Instant::now();
    loop {
        let read = store.clone();
        let all = tokio::task::spawn_blocking(move || read.load::<String>("pods")).await.unwrap();
        if all.unwrap() == [("exit".into(), "137".into())] {
            return;
        }
        assert!(start.elapsed() < writer::RETRY * 20, "nobody wrote it");
        tokio::time::sleep(writer::RETRY / 20).await;
    }
}
