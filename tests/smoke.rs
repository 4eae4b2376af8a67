//! The shortest way through everything.

use quipu::{Batch, Commit, Options};

#[test]
fn what_is_put_is_there_after_reopening() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = Options::new().shards(2).log_file_bytes(1 << 20);
    let engine = options.open(folder.path()).unwrap();
    println!("io: {} {:?}", engine.io_kind(), engine.io_fallback());
    let users = engine.directory("acme/users").unwrap();
    let first = users.put("ada", "1815").wait().unwrap();
    assert_eq!(first.number, Commit(1));
    let mut batch = Batch::new();
    for number in 0..1000 {
        batch.put(&users, format!("user{number:05}"), format!("{number}"));
    }
    engine.commit(batch).wait().unwrap();
    assert_eq!(users.get("ada").wait().unwrap().as_deref(), Some(&b"1815"[..]));
    assert_eq!(users.iter().blocking().count(), 1001);
    engine.close().unwrap();

    let engine = options.open(folder.path()).unwrap();
    println!("{:?}", engine.recovery());
    let users = engine.directory("acme/users").unwrap();
    assert_eq!(users.get("user00500").wait().unwrap().as_deref(), Some(&b"500"[..]));
    assert_eq!(users.iter().reverse().limit(10).blocking().count(), 10);
    assert_eq!(engine.roots(None, 10).wait().unwrap(), ["acme"]);
    engine.close().unwrap();
}

#[test]
fn carries_run_and_everything_stays_readable() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = Options::new().shards(1).log_file_bytes(1 << 18).flush_bytes(16 << 10).part_bytes(64 << 10);
    let engine = options.open(folder.path()).unwrap();
    let users = engine.directory("acme/users").unwrap();
    let copy = users.clone();
    engine
        .run_on(&users, async move |local: quipu::Local| {
            for round in 0..100u32 {
                let commits: Vec<_> = (0..100u32)
                    .map(|number| {
                        local.put(
                            &copy,
                            format!("key{:06}", (round * 100 + number) % 3000),
                            format!("value {round} {number}"),
                        )
                    })
                    .collect();
                for commit in commits {
                    commit.await.unwrap();
                }
            }
        })
        .wait()
        .unwrap();
    let stats = engine.stats().wait().unwrap();
    println!("{:#?}", stats.shards[0].levels);
    println!(
        "base {:?} carries {:?} done {} backlog {}",
        stats.shards[0].base,
        stats.shards[0].carries,
        stats.shards[0].carries_done,
        stats.shards[0].backlog_bytes
    );
    assert_eq!(users.iter().blocking().map(|entry| entry.unwrap()).count(), 3000);
    engine.close().unwrap();
    let engine = options.open(folder.path()).unwrap();
    println!("{:?}", engine.recovery());
    let users = engine.directory("acme/users").unwrap();
    assert_eq!(users.iter().blocking().map(|entry| entry.unwrap()).count(), 3000);
    engine.close().unwrap();
}
